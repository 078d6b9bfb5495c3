"""What a state costs in a jitted training loop, where the step itself does next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from benchmarks import peers
from benchmarks.measure import Table, interleaved
from benchmarks.states import all_kinds, equinox_module, nnx_module

TITLE = "Dispatch of a jitted step"

GOAL = 1.03
SLOW = 10  # the cases that only pass through Python run in every tenth round


def tables(quick: bool) -> list[Table]:
    """One table per size, without and with donation."""
    return [_table(count, donate, quick) for donate in (False, True) for count in (10, 100, 1000)]


def _table(count: int, donate: bool, quick: bool) -> Table:
    cases = {kind: _loop(state, donate) for kind, state in all_kinds(count).items()}
    slow = {} if donate else _python_loops(count)
    samples = interleaved(
        cases | slow,
        rounds=11 if quick else 301,
        calls=max(4, 1000 // count),
        settle=jax.block_until_ready,
        every=dict.fromkeys(slow, SLOW),
    )
    return Table(
        f"state -> state, x + 1 on {count:,} f32 scalars{', donated' if donate else ''}",
        "us",
        samples,
        base="raw tuple",
        goals={"jv.Variables": GOAL} if count >= 100 else {},
        note="" if donate else f"Cases with fewer rounds run in every {SLOW}th round.",
    )


def add_one(tree: Any) -> Any:
    """The step."""
    return jax.tree.map(lambda x: x + 1, tree)


def _loop(state: Any, donate: bool) -> Callable[[], Any]:
    """A function that makes one more step from where it stands."""
    return _from_there(jax.jit(lambda tree: add_one(tree), donate_argnums=0 if donate else ()), state)


def _from_there(step: Callable[[Any], Any], state: Any) -> Callable[[], Any]:
    present = [state]

    def call() -> Any:
        present[0] = step(present[0])
        return present[0]

    return call


def _python_loops(count: int) -> dict[str, Callable[[], Any]]:
    """The ways of Equinox and NNX that go through Python on every call."""
    found: dict[str, Callable[[], Any]] = {}
    if peers.equinox():
        import equinox

        found["Equinox modules, filter_jit"] = _from_there(equinox.filter_jit(add_one), equinox_module(count))
    if peers.linen():
        found["nnx.jit(module)"] = _nnx_jit(nnx_module(count))
        found["nnx.split, jax.jit, nnx.update"] = _nnx_split(nnx_module(count))
    return found


def _nnx_jit(module: Any) -> Callable[[], Any]:
    from flax import nnx

    @nnx.jit
    def step(module: Any) -> None:
        nnx.update(module, add_one(nnx.state(module)))

    def call() -> Any:
        step(module)
        return module

    return call


def _nnx_split(module: Any) -> Callable[[], Any]:
    from flax import nnx

    step = jax.jit(add_one)

    def call() -> Any:
        _, state = nnx.split(module)
        state = step(state)
        nnx.update(module, state)
        return state

    return call
