"""Which JAX transform is running the code that touches a variable, read off the Python call stack.

JAX's traces do not say which call made them, and one call may run its body twice (a ``scan`` whose carry
changes dtype, ``lax.map`` with a batch size, ``associative_scan``). The Python stack does say: between the
function of a frame and the line that touches a variable, the stack frames of ``jax.lax.scan`` lie there, alive,
for as long as that one call lasts.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType
from typing import NamedTuple

import jax

_JAX = os.path.dirname(os.path.abspath(jax.__file__)) + os.sep
# These files call back into user code without transforming it.
_NEUTRAL = ("tree_util.py", f"{os.sep}tree.py", "profiler.py")

# The function of JAX that a transform enters by, and what the user calls it.
_TRANSFORMS: dict[tuple[str, str], str] = {
    ("api.py", "vmap_f"): "jax.vmap",
    ("api.py", "grad_f"): "jax.grad",
    ("api.py", "value_and_grad_f"): "jax.grad",
    ("api.py", "jacfun"): "jax.jacobian",
    ("api.py", "jvp"): "jax.jvp",
    ("api.py", "vjp"): "jax.vjp",
    ("api.py", "linearize"): "jax.linearize",
    ("api.py", "eval_shape"): "jax.eval_shape",
    ("api.py", "make_jaxpr_f"): "jax.make_jaxpr",
    ("pjit.py", "cache_miss"): "jax.jit",
    ("ad_checkpoint.py", "fun_remat"): "jax.checkpoint",
    ("loops.py", "scan"): "jax.lax.scan",
    ("loops.py", "while_loop"): "jax.lax.while_loop",
    ("loops.py", "fori_loop"): "jax.lax.fori_loop",
    ("loops.py", "map"): "jax.lax.map",
    ("loops.py", "associative_scan"): "jax.lax.associative_scan",
    ("conditionals.py", "cond"): "jax.lax.cond",
    ("conditionals.py", "switch"): "jax.lax.switch",
    ("shard_map.py", "wrapped"): "jax.shard_map",
    ("pmap.py", "wrapped"): "jax.pmap",
    ("custom_derivatives.py", "__call__"): "jax.custom_vjp",
    ("custom_derivatives.py", "_flatten_fwd"): "jax.custom_vjp",
    ("custom_derivatives.py", "_flatten_jvp"): "jax.custom_vjp",
    ("custom_derivatives.py", "closure_convert"): "jax.closure_convert",
}
# Functions with a derivative rule of their own: JAX runs the function or its rule, never both.
CUSTOM_RULE = "jax.custom_vjp"
# Calls that run one body several times over.
LOOPS = frozenset(
    {"jax.lax.scan", "jax.lax.while_loop", "jax.lax.fori_loop", "jax.lax.map", "jax.lax.associative_scan"}
)
BRANCHES = frozenset({"jax.lax.cond", "jax.lax.switch"})


class _IsJax(dict[str, bool]):
    """File name -> whether it is JAX's. A table, because every read of a variable asks for several frames."""

    def __missing__(self, filename: str) -> bool:
        kind = filename.startswith(_JAX) and not filename.endswith(_NEUTRAL)
        self[filename] = kind
        return kind


is_jax = _IsJax()


def _transform_of(code: CodeType) -> str | None:
    return _TRANSFORMS.get((os.path.basename(code.co_filename), code.co_name))


class JaxCall(NamedTuple):
    """One live call of a JAX transform, and the user function that it runs."""

    entry: FrameType
    body: FrameType
    transforms: tuple[str, ...]


def jax_calls(root: FrameType | None, skip: int = 1) -> list[JaxCall]:
    """Return the JAX transforms between `root` and the caller, innermost first.

    Args:
      root: the stack frame to stop at; None walks to the end of the stack.
      skip: how many of the innermost stack frames to pass over, known to be our own.

    Returns:
      One `JaxCall` for each run of JAX's own stack frames that holds a known transform. Empty when the caller
      runs straight in the frame's function, which costs well under a microsecond.
    """
    calls: list[JaxCall] = []
    frame: FrameType | None = sys._getframe(skip)
    body: FrameType | None = None
    while frame is not None and frame is not root:
        if not is_jax[frame.f_code.co_filename]:
            body = frame
            frame = frame.f_back
            continue
        entry = frame
        transforms: list[str] = []
        while frame is not None and frame is not root and is_jax[frame.f_code.co_filename]:
            name = _transform_of(frame.f_code)
            if name is not None and name not in transforms:
                transforms.append(name)
            entry = frame
            frame = frame.f_back
        if transforms and body is not None:
            calls.append(JaxCall(entry, body, tuple(transforms)))
    return calls
