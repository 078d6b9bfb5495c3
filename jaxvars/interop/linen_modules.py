"""Flax Linen modules inside a scope: their parameters and collections are variables of the scope."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

from jaxvars._keys import name_hash
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.interop._calls import MAX_CALLS, AbstractCall, looked_up
from jaxvars.interop._module_layer import ModuleLayer, plain_call
from jaxvars.interop._module_variables import KEY, CallInit, ModuleVariable, module_variables
from jaxvars.interop.collections import PARAMS, collection_leaves, names_of
from jaxvars.interop.trees import path_name
from jaxvars.store import add_to_collection, next_rng_key

if TYPE_CHECKING:
    import flax.linen

__all__ = ["LinenLayer", "linen", "unboxed"]


def linen(
    module: flax.linen.Module,
    name: str | None = None,
    *,
    trainable: bool = True,
    collect: Sequence[str] = (),
    streams: Sequence[str] = ("dropout",),
) -> LinenLayer:
    """Return a Flax Linen module as a layer: inside a model it is called as the module is.

    The first call makes the variables. Those of ``params`` are ``"scope/Dense_0/kernel"``, trainable. Those of every
    other collection (``batch_stats``, ``cache``, ...) are not; they are in a collection of that name, and are assigned
    in place where the module changes them, inside ``jit``, ``scan`` and ``remat`` too. A later call of the same object
    shares the variables, as does another one of the same name in a scope that reuses.

    Initial values are those of ``module.init`` with the key `module_key`; all of a module's are made by one compiled
    program. Regularizers of the scope apply to ``params``, custom getters to everything, initializers of the scope to
    nothing. Boxed values (``nn.with_partitioning``) are stored without their box; the axes are noted in the specs, for
    ``jv.placement.apply(specs, mesh)``.

    Beside the module's own arguments a call takes ``method=``, ``mutable=`` and ``rngs=``, as ``module.apply`` does. A
    module that needs random numbers gets fresh keys of `jv.next_rng_key` where there are no ``rngs``.

    Args:
      module: a module that is not bound.
      name: the name of the scope; None for the class's name, made unique.
      trainable: whether optimizers touch the parameters.
      collect: collections that the module fills anew in each call (``self.sow``), such as ``"losses"`` or
        ``"intermediates"``. They are no variables: each value joins the frame's collection of that name,
        `jv.get_collection`.
      streams: names of random streams with a key of their own; all others share one, as with a single key in Linen.

    Returns:
      The layer, with `variables`, `trainable_variables`, `scope_name` and all else that `jv.layers.Layer` has.

    Raises:
      InvalidTypeError: `module` is no Linen module.
      Its calls raise what `jv.get_variable` and the module raise.

    Example:
      >>> import flax.linen as nn, jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     with jv.variable_scope("encoder"):
      ...         x = jv.interop.linen(nn.Dense(4), name="fc")(x)
      ...     return jv.layers.dense(x, 2, name="head")
      >>> list(jv.transform(net).init(0, jnp.ones([1, 3])))
      ['encoder/fc/bias', 'encoder/fc/kernel', 'head/bias', 'head/kernel']
    """
    import flax.linen as nn
    from flax import nnx

    if not isinstance(module, nn.Module):
        hint = f" Write: jv.interop.linen({module.__name__}(...))" if isinstance(module, type) else ""
        if isinstance(module, nnx.Module) or (isinstance(module, type) and issubclass(module, nnx.Module)):
            hint = " It is one of Flax NNX. Write: jv.interop.nnx(module)"
        raise InvalidTypeError(f"jv.interop.linen takes a flax.linen.Module, got {module!r:.60}.{hint}")
    return LinenLayer(module, name, trainable, tuple(collect), tuple(streams))


class LinenLayer(ModuleLayer):
    """What `linen` returns."""

    def __init__(
        self, module: Any, name: str | None, trainable: bool, collect: tuple[str, ...], streams: tuple[str, ...]
    ) -> None:
        super().__init__(module, name or module.name, trainable, type(module).__name__)
        self.collect = collect
        self.streams = streams

    def __call__(self, *args: Any, method: Any = None, rngs: Any = None, mutable: Any = True, **kwargs: Any) -> Any:
        """Call the module on the variables of its scope; see `linen`."""
        args, kwargs = plain_call(args, kwargs)
        with self._opened() as frame:
            module = described(self.module, method, self.collect, args, kwargs)
            values = self._values(frame, module.variables, module.init, args, kwargs)
            before = {variable.path: value for variable, value in zip(module.variables, values, strict=True)}
            if rngs is None and module.draws:
                rngs = self._rngs()
            out, after = self.module.apply(
                jax.tree.unflatten(module.structure, values),
                *args,
                rngs=rngs,
                method=method,
                mutable=self._mutable(mutable, module),
                **kwargs,
            )
            self._assign(frame, before, self._changed(after, module))
            return out

    def _rngs(self) -> dict[str, jax.Array]:
        key = next_rng_key()
        return {stream: jax.random.fold_in(key, name_hash(stream)) for stream in (PARAMS, *self.streams)}

    def _mutable(self, wanted: Any, module: Described) -> list[str]:
        """The collections that a call may change: of those that are there, what the caller wants."""
        import flax.core

        there = [*module.mutable, *self.collect]
        return [name for name in there if flax.core.scope.in_filter(wanted, name)]

    def _changed(self, after: Mapping[str, Any], module: Described) -> list[tuple[str, Any]]:
        """The (path, value) of what came back; what is collected goes to the frame's collections."""
        found: list[tuple[str, Any]] = []
        unknown: list[str] = []
        for (collection, path), value in collection_leaves(after).items():
            if collection in self.collect:
                add_to_collection(collection, value)
            elif (name := module.names.get((collection, path))) is not None:
                found.append((name, value))
            else:
                unknown.append(f"  {collection}: {path}")
        if unknown:
            collections = sorted({line.split(":")[0].strip() for line in unknown})
            raise InvalidArgumentError(
                f"{self.scope_name}: a call of {type(self.module).__name__} made variables that its init does not:\n"
                + "\n".join(unknown)
                + f"\nIf it sows them anew in each call, write: jv.interop.linen(module, collect={collections!r})"
            )
        return found


class Described(NamedTuple):
    """What the variables of a module are in calls like this one.

    Attributes:
      init: what makes them.
      variables: in the order of the leaves of `structure`.
      structure: of the tree that ``module.apply`` takes.
      names: (collection, path) -> name below the scope.
      mutable: the collections other than ``params``.
      draws: whether the module cannot be called without random keys.
    """

    init: LinenInit
    variables: tuple[ModuleVariable, ...]
    structure: Any
    names: Mapping[tuple[str, str], str]
    mutable: tuple[str, ...]
    draws: bool


@dataclasses.dataclass(frozen=True)
class LinenInit(CallInit):
    """``module.init`` for calls like one.

    Attributes:
      module: the module.
      method: the method that is called, None for ``__call__``.
      collect: collections that are left out.
      call: the arguments.
    """

    module: Any
    method: Any
    collect: tuple[str, ...]
    call: AbstractCall

    def tree(self, key: jax.Array, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the variables as they are stored: without boxes, and without what is collected."""
        return self.chosen(self.boxed(key, args, kwargs))

    def boxed(self, key: jax.Array, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the variables as Flax makes them."""
        return self.module.init(key, *args, method=self.method, **kwargs)

    @property
    def called(self) -> Callable[..., Any]:
        """The method of the module that is called."""
        if callable(self.method):
            return functools.partial(self.method, self.module)
        return getattr(self.module, self.method or "__call__")

    def chosen(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return a tree of collections as it is stored: without boxes, and without what is collected."""
        return {name: unboxed(tree) for name, tree in variables.items() if name not in self.collect}

    def __repr__(self) -> str:
        return f"{type(self.module).__name__}.init"


def described(module: Any, method: Any, collect: tuple[str, ...], args: Any, kwargs: Any) -> Described:
    """Return what the module's variables are; nothing is computed, and equal calls are looked up."""
    init = LinenInit(module, method, collect, AbstractCall.of(args, kwargs))
    return looked_up(_described, init)


@functools.lru_cache(maxsize=MAX_CALLS)
def _described(init: LinenInit) -> Described:
    boxed = init.call.evaluated(
        lambda args, kwargs: jax.eval_shape(lambda key: init.boxed(key, args, kwargs), KEY), init.called
    )
    tree = init.chosen(boxed)
    leaves, homes = collection_leaves(tree), _axes(boxed)
    names = names_of(leaves)
    variables = module_variables(leaves, init, homes)
    mutable = tuple(name for name in tree if name != PARAMS)
    return Described(init, variables, jax.tree.structure(tree), names, mutable, _draws(init, tree, mutable))


def _draws(init: LinenInit, tree: Any, mutable: tuple[str, ...]) -> bool:
    """Whether the module cannot be called without random keys."""
    from flax.errors import InvalidRngError

    def call(args: Any, kwargs: Any) -> None:
        jax.eval_shape(
            lambda tree: init.module.apply(
                tree, *args, method=init.method, mutable=[*mutable, *init.collect], **kwargs
            ),
            tree,
        )

    try:
        init.call.evaluated(call, init.called)
    except InvalidRngError:
        return True
    return False


def unboxed(tree: Any) -> Any:
    """A tree with the values of boxes (``nn.Partitioned`` and its like) in their place."""
    from flax.linen import meta

    # Partitioned.unbox() would constrain the value to the mesh that is set; where variables live is said in the specs.
    return jax.tree.map(
        lambda leaf: leaf.value if isinstance(leaf, meta.Partitioned) else meta.unbox(leaf), tree, is_leaf=_is_box
    )


def _axes(tree: Any) -> dict[tuple[str, str], PartitionSpec]:
    """(collection, path) -> the axes of a mesh, of the values in boxes that name some."""
    import flax.linen as nn
    from flax.linen.spmd import logical_to_mesh_axes

    found: dict[tuple[str, str], PartitionSpec] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_box):
        if isinstance(leaf, nn.LogicallyPartitioned):
            spec = logical_to_mesh_axes(leaf.names, leaf.rules)
        elif isinstance(leaf, nn.Partitioned):
            spec = leaf.get_partition_spec()
        else:
            continue
        if spec is not None and any(axis is not None for axis in spec):
            found[str(path[0].key), path_name(path[1:])] = spec
    return found


def _is_box(leaf: Any) -> bool:
    from flax.linen import meta

    return isinstance(leaf, meta.AxisMetadata)
