"""`transform`: from a function that calls `get_variable` to pure `init` and `apply`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxvars import refusals
from jaxvars._keys import as_key
from jaxvars.agreement import check_agreement, mismatch_error
from jaxvars.buffers import is_deleted
from jaxvars.defining import DefiningFrame
from jaxvars.edits import in_collections
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.frame import NeedsStaging, Restart
from jaxvars.frames import ApplyFrame, InitialValuesFrame, Mismatch, SpecsFrame, with_values
from jaxvars.keeping import kept_values
from jaxvars.spec import Hole, is_hole
from jaxvars.staging import UNTRACEABLE, Staging
from jaxvars.variables import Variables

__all__ = ["Model", "transform"]

_RESERVED = ("rng", "variables")


def transform(fn: Callable[..., Any], *, tf1_op_names: bool = False) -> Model:
    """Make a model of a function that calls `jv.get_variable`. TF1: building a graph; Haiku: ``transform_with_state``.

    Args:
      fn: the model function: any arguments and results. It may use every JAX transform.
      tf1_op_names: name variables as TensorFlow named their ops, so that ported code gets the very names of its
        checkpoints: ``a/w_1`` where a scope or op took ``a/w``.

    Returns:
      The model, with pure `specs`, `init` and `apply`.

    Raises:
      InvalidArgumentError: `fn` has a parameter ``rng`` or ``variables``, which `init` and `apply` take themselves.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> def net(x):
      ...     w = jv.get_variable("w", [3, 2], initializer=jv.ones_initializer())
      ...     return x @ w
      >>> model = jv.transform(net)
      >>> variables = model.init(0, jnp.ones([1, 3]))
      >>> out, variables = model.apply(variables, jnp.ones([1, 3]))
      >>> out
      Array([[3., 3.]], dtype=float32)
    """
    return Model(fn, tf1_op_names=tf1_op_names)


class Model:
    """A model function as pure functions of its variables. Made by `transform`."""

    def __init__(self, fn: Callable[..., Any], *, tf1_op_names: bool = False) -> None:
        """Wrap `fn`; see `transform`."""
        _check_function(fn)
        self.fn = fn
        self.tf1_op_names = tf1_op_names
        # What runs have learned: which variables are written inside transforms, and how to run eagerly.
        self._written: frozenset[str] = frozenset()
        self._staging = Staging(self._apply_here)

    @property
    def __name__(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)

    def __repr__(self) -> str:
        return f"<jv.Model {self.__name__}>"

    # specs and init

    def specs(self, *args: Any, **kwargs: Any) -> Variables:
        """Return the variables that the model makes for these arguments, all of them holes.

        The function runs once, abstractly: no random number is drawn and no value computed.

        Args:
          *args: the model's arguments; arrays may be ``jax.ShapeDtypeStruct``.
          **kwargs: the same.

        Returns:
          `Variables` whose values are holes, for `jv.checkpoint.restore` and `jv.placement`.

        Raises:
          InvalidArgumentError: whatever `get_variable` refuses.

        Example:
          >>> import jax, jaxvars as jv
          >>> model = jv.transform(lambda x: x @ jv.get_variable("w", [3, 2]))
          >>> model.specs(jax.ShapeDtypeStruct((1, 3), "float32"))["w"].shape
          (3, 2)
        """
        frame = self._run_specs(args, kwargs, None)
        return _holes(frame)

    def init(self, rng: Any, *args: Any, variables: Variables | None = None, **kwargs: Any) -> Variables:
        """Make the model's variables; with `variables`, only those it lacks or holds as holes.

        The value of a variable depends on `rng` and its own name only: not on creation order, on other layers, or
        on what was already there. Works under ``jax.jit`` and ``jax.vmap``.

        Args:
          rng: a JAX key or an int seed.
          *args: the model's arguments.
          variables: values to keep; its extra names are kept too.
          **kwargs: the model's keyword arguments.

        Returns:
          All variables of the model with values, and the extra ones of `variables`.

        Raises:
          InvalidArgumentError: a value in `variables` has another shape or dtype than the model asks for; with several
            processes, which all must call it, their variables differ (`jv.placement.check_processes`).

        Example:
          >>> import jax.numpy as jnp, jaxvars as jv
          >>> model = jv.transform(lambda x: x @ jv.get_variable("w", [3, 2]))
          >>> old = jv.Variables({"w": jnp.ones([3, 2]), "unused": jnp.zeros(1)})
          >>> sorted(model.init(0, jnp.ones([1, 3]), variables=old))
          ['unused', 'w']
        """
        if variables is not None:
            _check_variables(variables, "init")
        key = as_key(rng)
        frame = self._run_specs(args, kwargs, variables)
        wanted = _holes(frame)
        merged = wanted if variables is None else wanted | variables
        if jax.process_count() > 1:
            from jaxvars.placement.processes import check_processes

            check_processes(merged)  # before what only one of the processes may refuse
        if variables is not None:
            check_agreement(self, wanted, variables)
        holes = {name: merged[name] for name in wanted if is_hole(merged[name])}
        if wanted._layout.placed or merged._layout.placed:
            from jaxvars.placement.homes import fill_homes  # only models that name devices pay for it

            fill_homes(holes, wanted, merged)
        computed = {name for name in holes if frame.holes[name].initializer is None}
        fillable = {name: _fillable(hole, frame.holes[name]) for name, hole in holes.items() if name not in computed}
        from jaxvars.filling import fill  # here: `import jaxvars` does without

        values = fill(fillable, key)
        if computed:
            known = {name: merged[name] for name in wanted if not is_hole(merged[name])} | values
            values |= self._computed_values(known, computed, holes, key, args, kwargs)
        return with_values(merged, values)

    def _run_specs(self, args: Any, kwargs: Any, given: Variables | None) -> SpecsFrame:
        frame = SpecsFrame(given, rng=None, written=self._written, tf1_op_names=self.tf1_op_names)

        # A fresh function each time: JAX caches traces by function identity.
        def abstract(leaves: list[Any], key: Any) -> None:
            call_args, call_kwargs = rebuild(leaves)
            frame.rng = key
            self._run(frame, call_args, call_kwargs)

        leaves, rebuild = _split(args, kwargs)
        # Only the type of a key: making one would compile.
        try:
            jax.eval_shape(abstract, leaves, jax.eval_shape(lambda: jax.random.key(0)))
        except UNTRACEABLE as error:
            error.add_note(
                "jaxvars: specs and init run the model abstractly, so Python's `if`, `range`, `float` and NumPy cannot "
                "see the value of a variable or an array. Write jnp.where or jax.lax.cond, or run the code by hand in "
                "`with jv.VariableStore(0):`, where values are concrete."
            )
            raise
        self._written |= frame.written
        return frame

    def _computed_values(
        self, known: Mapping[str, Any], computed: set[str], holes: Mapping[str, Any], key: Any, args: Any, kwargs: Any
    ) -> dict[str, Any]:
        """Run the model once more, to compute the initial values that its own code makes."""
        leaves, rebuild = _split(args, kwargs)

        def compute(known: Mapping[str, Any], leaves: list[Any], key: Any) -> dict[str, Any]:
            call_args, call_kwargs = rebuild(leaves)
            frame = InitialValuesFrame(dict(known), rng=key, tf1_op_names=self.tf1_op_names)
            self._run(frame, call_args, call_kwargs)
            values, frame.computed = frame.computed, {}  # a handle that is kept keeps the frame
            return {name: values[name] for name in computed}

        abstract = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.ShapeDtypeStruct)]
        if abstract:
            _refuse_dependence(compute, known, leaves, abstract, key)
            leaves = [jax.numpy.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x for x in leaves]
        if all(getattr(value, "sharding", None) is None for value in holes.values()):
            return jax.jit(compute)(known, leaves, key)
        from jaxvars.placement.edge import computed_at_home

        return computed_at_home(jax.jit(compute), known, leaves, key, holes)

    # apply

    def apply(self, variables: Variables, *args: Any, rng: Any = None, **kwargs: Any) -> tuple[Any, Variables]:
        """Run the model on these variables; pure: returns the result and the variables after it.

        Args:
          variables: a value for every variable of the model. Extra names pass through.
          *args: the model's arguments.
          rng: a JAX key or int seed for `jv.next_rng_key`, if the model draws keys.
          **kwargs: the model's keyword arguments.

        Returns:
          ``(out, variables)``: what the function returned, and the variables with its assignments, in the very
          layout that was given.

        Raises:
          NotFoundError: variables are missing (all are listed, with the line that makes them).
          FailedPreconditionError: variables have no value yet.
          InvalidArgumentError: a shape or dtype differs from what the model asks for.
          TransformError: a use of a variable that a JAX transform cannot carry.

        Example:
          >>> import jaxvars as jv
          >>> def counter():
          ...     return jv.get_variable("n", [], "int32", initializer=jv.zeros_initializer()).assign_add(1)
          >>> model = jv.transform(counter)
          >>> out, variables = model.apply(model.init(0))
          >>> int(variables["n"])
          1
        """
        _check_variables(variables, "apply")
        key = None if rng is None else as_key(rng)
        try:
            if variables._layout.placed:
                return self._apply_gathered(variables, args, kwargs, key)
            return self._apply_now(variables, args, kwargs, key)
        except Mismatch as mismatch:
            raise self._explain(mismatch, variables, args, kwargs) from None
        except (RuntimeError, ValueError) as error:
            if "deleted" in str(error):  # XLA's words; they name no variable
                _refuse_donated(variables)
            if "incompatible devices" in str(error):
                _refuse_devices(error, variables)
            raise

    def __call__(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        """Run the model and return only its result.

        Raises:
          FailedPreconditionError: the model assigned variables; use `apply`, which returns them.
        """
        out, after = self.apply(variables, *args, **kwargs)
        changed = [
            name for name, old, new in zip(variables, variables._leaves, after._leaves, strict=True) if old is not new
        ]
        if changed:
            raise FailedPreconditionError(
                f"{self!r} assigned {', '.join(changed[:5])}{' and more' if len(changed) > 5 else ''}, and a plain "
                "call would lose that. Write:\n    out, variables = model.apply(variables, *args)"
            )
        return out

    def to_pure(self, variables: Variables) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]:
        """Return ``(init_fn, apply_fn, tree)`` for programs that know only functions and dicts.

        Args:
          variables: values of the model. The trainable ones are in ``tree["params"]``, the others in ``tree["state"]``.

        Returns:
          ``init_fn(rng, *args) -> tree``, ``apply_fn(tree, *args, rng=None) -> (out, tree)``, and the values, copied.

        Raises:
          InvalidArgumentError: within one of both a name is a variable and a scope, as ``a`` and ``a/b`` are.

        Example:
          >>> import jax, jax.numpy as jnp, jaxvars as jv
          >>> model = jv.transform(lambda x: x @ jv.get_variable("net/w", [3, 2]))
          >>> x = jnp.ones([1, 3])
          >>> init_fn, apply_fn, tree = model.to_pure(model.init(0, x))
          >>> grads = jax.grad(lambda params: apply_fn({**tree, "params": params}, x)[0].sum())(tree["params"])
          >>> grads["net"]["w"].shape
          (3, 2)
        """
        from jaxvars.interop.pure import to_pure

        _check_variables(variables, "to_pure")
        return to_pure(self, variables)

    def _apply_gathered(self, variables: Variables, args: Any, kwargs: Any, key: Any) -> tuple[Any, Variables]:
        """Run a model whose variables may live on several devices."""
        from jaxvars.placement.edge import gathered

        found = gathered(variables, (args, kwargs))
        if found is None:
            return self._apply_now(variables, args, kwargs, key)
        out, after = self._apply_now(found.variables, args, kwargs, key)
        return out, found.returned(after)

    def _apply_now(self, variables: Variables, args: Any, kwargs: Any, key: Any) -> tuple[Any, Variables]:
        if not self._staging.preferred:
            try:
                return self._apply_here(variables, args, kwargs, key, may_stage=self._staging.can_stage)
            except NeedsStaging:
                pass  # staged below, where errors of the model's own code are not chained to this one
        return self._staging.run(variables, args, kwargs, key)

    def _apply_here(
        self, variables: Variables, args: Any, kwargs: Any, key: Any, *, may_stage: bool = False
    ) -> tuple[Any, Variables]:
        while True:
            frame = ApplyFrame(variables, rng=key, written=self._written, tf1_op_names=self.tf1_op_names)
            frame.may_stage = may_stage
            try:
                out, written = self._run(frame, args, kwargs)
            except Restart as restart:
                self._written |= {restart.key}
                continue
            return out, with_values(variables, kept_values(variables, written))

    def _run(self, frame: DefiningFrame, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Run the function in a frame; return its result and the values it wrote."""
        frame.open(sys._getframe())
        try:
            out = _values_of(self.fn(*args, **kwargs))
            return out, frame.current_values()
        except BaseException as error:
            ours = refusals.explained(error, frame) if isinstance(error, Exception) else None
            frame.abandon_inner_traces()
            if ours is None:
                raise
            raise ours from error
        finally:
            frame.close()

    def _explain(self, mismatch: Mismatch, variables: Variables, args: Any, kwargs: Any) -> Exception:
        """Every problem at once: run the specs, and compare all of them."""
        try:
            wanted = _holes(self._run_specs(args, kwargs, variables))
        except Exception:
            wanted = Variables({})
        return mismatch_error(self, mismatch, wanted, variables)


def _refuse_donated(variables: Variables) -> None:
    for position, leaf in enumerate(variables._leaves):
        if is_deleted(leaf):
            variables._raise_deleted(position, leaf)


def _refuse_devices(error: Exception, variables: Variables) -> None:
    from jaxvars.placement.edge import devices_error

    raise devices_error(error, variables) from None


def _values_of(out: Any) -> Any:
    """Return a result with its handles replaced by their values: outside of the frame they would be names only."""
    return out if isinstance(out, jax.Array) else jax.tree.map(lambda leaf: leaf, out)


def _check_function(fn: Callable[..., Any]) -> None:
    if not callable(fn):
        raise InvalidTypeError(f"jv.transform takes a function, got {type(fn).__name__}: jv.transform(fn).")
    if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidTypeError(
            f"The model function {getattr(fn, '__name__', fn)!r}{_site_of(fn)} is a generator or coroutine: it would "
            "run after its frame has ended. Let it return a list instead of yielding, and await outside of it."
        )
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return
    taken = [name for name in _RESERVED if name in parameters]
    if taken:
        raise InvalidArgumentError(
            f"The model function {getattr(fn, '__name__', fn)!r}{_site_of(fn)} has a parameter "
            f"{' and '.join(map(repr, taken))}, which model.init and model.apply take themselves. Give it "
            "another name; for random numbers call jv.next_rng_key() in it."
        )


def _site_of(fn: Any) -> str:
    code = getattr(fn, "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""


def _check_variables(variables: Any, what: str) -> None:
    if isinstance(variables, Variables):
        return
    if isinstance(variables, tuple):
        hint = "model.apply returns a pair. Write: out, variables = model.apply(variables, *args)"
    else:
        hint = "Write: jv.Variables.from_nested(tree)" if isinstance(variables, Mapping) else "Variables come first."
    raise InvalidTypeError(f"model.{what} takes jv.Variables, got {type(variables).__name__}. {hint}")


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _split(args: Any, kwargs: Any) -> tuple[list[Any], Callable[[list[Any]], tuple[Any, Any]]]:
    """Separate the arrays among the arguments from all else, which a trace closes over as it is."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    rest = [None if _is_array(leaf) else leaf for leaf in leaves]
    where = [_is_array(leaf) for leaf in leaves]

    def rebuild(arrays: list[Any]) -> tuple[Any, Any]:
        remaining = iter(arrays)
        return jax.tree.unflatten(structure, [next(remaining) if a else r for a, r in zip(where, rest, strict=True)])

    return arrays, rebuild


def _holes(frame: SpecsFrame) -> Variables:
    variables = Variables.from_specs([(spec, frame.holes[spec.key]) for spec in frame.records])
    return in_collections(variables, frame.joined)


def _fillable(hole: Any, wanted: Hole | None) -> Any:
    """The hole to fill: a given one may be plain (from eval_shape) or carry a sharding."""
    if getattr(hole, "initializer", None) is not None or wanted is None:
        return hole
    return wanted.update(sharding=hole.sharding)


def _refuse_dependence(
    compute: Callable[..., Any], known: Any, leaves: list[Any], abstract: list[int], key: Any
) -> None:
    """Raise if an initial value depends on arguments of which only the shape was given."""
    closed = jax.make_jaxpr(compute)(known, leaves, key)
    first = len(jax.tree.leaves(known))
    tainted = {closed.jaxpr.invars[first + i] for i in abstract}
    for equation in closed.jaxpr.eqns:
        if any(v in tainted for v in equation.invars if not hasattr(v, "val")):
            tainted.update(equation.outvars)
    if any(v in tainted for v in closed.jaxpr.outvars if not hasattr(v, "val")):
        raise InvalidArgumentError(
            "The initial value of a variable is computed from the model's arguments, so init needs those as arrays, "
            "not as jax.ShapeDtypeStruct."
        )
