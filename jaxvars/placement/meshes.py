"""`mesh`: the devices of a machine or cluster in a grid with named axes, and `batch`, which spreads data over it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvars.errors import InvalidArgumentError, InvalidTypeError, nearest_names

__all__ = ["axes_text", "batch", "mesh", "nearest_axes"]


def mesh(*, devices: Sequence[Any] | None = None, axis_types: Any = None, **axes: int) -> Mesh:
    """Return a mesh: all devices, of all processes, in a grid with named axes.

    The devices are ordered as `jax.make_mesh` orders them: neighbours in the grid are neighbours in the machine. TF1's
    counterpart is the cluster that a server was given, in which jobs and tasks were named.

    Args:
      devices: which devices, by default ``jax.devices()``.
      axis_types: a `jax.sharding.AxisType` for all axes or a dict of one per axis, by default ``Auto``: XLA decides how
        results are spread. JAX's own default is ``Explicit``, under which plain indexing of a spread array is an error.
      **axes: axis -> size, in order; one size may be -1, which stands for all that is left.

    Raises:
      InvalidArgumentError: no axis, sizes that are not positive or do not multiply to the number of devices, -1 twice,
        types of axes that there are not; all of these at once.

    Example:
      >>> import jax, jaxvars as jv
      >>> mesh = jv.placement.mesh(data=-1, model=1)
      >>> mesh.axis_names, mesh.size == len(jax.devices())
      (('data', 'model'), True)
    """
    given = list(jax.devices()) if devices is None else list(devices)
    problems = _size_problems(axes, len(given))
    types, more = _types(axis_types, axes)
    problems += more
    if problems:
        raise InvalidArgumentError("\n".join(["jv.placement.mesh:", *(f"  {problem}" for problem in problems)]))
    known = math.prod(size for size in axes.values() if size != -1)
    sizes = [len(given) // known if size == -1 else int(size) for size in axes.values()]
    return jax.make_mesh(sizes, tuple(axes), axis_types=types, devices=given)


def _size_problems(axes: Mapping[str, Any], count: int) -> list[str]:
    """What is wrong with the sizes of axes for so many devices."""
    devices = f"{count} device{'' if count == 1 else 's'}"
    if not axes:
        return [f"there is no axis. Write: jv.placement.mesh(data=-1)    # all {devices} along one axis"]
    problems = [
        f"{name}={size!r}: a size is a positive int, or -1 for all that is left"
        for name, size in axes.items()
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or (size < 1 and size != -1)
    ]
    open_axes = [name for name, size in axes.items() if size == -1]
    if len(open_axes) > 1:
        problems.append(f"{' and '.join(f'{name}=-1' for name in open_axes)}: only one size may be -1")
    if problems:
        return problems
    known = math.prod(size for size in axes.values() if size != -1)
    shown = " x ".join(f"{name}={size}" for name, size in axes.items() if size != -1)
    if open_axes and count % known:
        return [f"{open_axes[0]}=-1: {shown} does not divide the {devices}"]
    if not open_axes and known != count:
        hint = ""
        if known < count:
            written = ", ".join(f"{name}={size}" for name, size in axes.items())
            hint = f". To use some of them write: jv.placement.mesh(devices=jax.devices()[:{known}], {written})"
        makes = f" makes {known}" if len(axes) > 1 else ""
        return [f"{shown}{makes}, and there {'is' if count == 1 else 'are'} {devices}{hint}"]
    return []


def _types(axis_types: Any, axes: Mapping[str, Any]) -> tuple[tuple[AxisType, ...], list[str]]:
    """The type of each axis, and what is wrong with those that were given."""
    if axis_types is None or isinstance(axis_types, AxisType):
        return (axis_types or AxisType.Auto,) * len(axes), []
    named: dict[str, Any]
    if isinstance(axis_types, Mapping):
        named = dict(cast("Mapping[str, Any]", axis_types))
    elif isinstance(axis_types, tuple | list) and len(cast("Sequence[Any]", axis_types)) == len(axes):
        named = dict(zip(axes, cast("Sequence[Any]", axis_types), strict=True))
    else:
        named = {"": axis_types}
    if not all(isinstance(kind, AxisType) for kind in named.values()):
        return (), [
            f"axis_types={axis_types!r:.80}: give a jax.sharding.AxisType for all axes, or a dict of one per axis"
        ]
    unknown = [f"axis_types: there is no axis {name!r}{nearest_axes(name, axes)}" for name in named if name not in axes]
    return tuple(named.get(name, AxisType.Auto) for name in axes), unknown


def nearest_axes(name: str, names: Iterable[str]) -> str:
    """Return `` (nearest: data)`` for the name of an axis that there is not, "" where none is like it."""
    near = nearest_names(name, list(names))
    return f" (nearest: {', '.join(near)})" if near else ""


def axes_text(mesh: Any) -> str:
    """Return the axes of a mesh as they were written: ``data=4, model=2``."""
    return ", ".join(f"{name}={size}" for name, size in mesh.shape.items())


def batch(mesh: Mesh, tree: Any, axis: Any = "data") -> Any:
    """Return a batch of examples spread over the mesh: the first dimension of every array over one axis.

    With several processes each gives its own part of the batch, of equal size, and the result is the whole. With one
    process what is given is the whole.

    Args:
      mesh: the mesh.
      tree: arrays, of NumPy or JAX, with the examples along their first dimension; scalars are replicated.
      axis: the mesh axis, or several of them, such as ``("replica", "data")``.

    Returns:
      The same tree of `jax.Array`, each spread over the mesh.

    Raises:
      InvalidArgumentError: the mesh has no such axis, or it does not divide the first dimension of some arrays; all are
        listed.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> mesh = jv.placement.mesh(data=-1)
      >>> images = jv.placement.batch(mesh, np.zeros([4 * mesh.size, 28, 28]))
      >>> images.sharding.spec
      P('data',)
    """
    names = (axis,) if isinstance(axis, str) else tuple(axis)
    missing = [name for name in names if name not in mesh.shape]
    if missing:
        listed = ", ".join(f"{name!r}{nearest_axes(name, mesh.shape)}" for name in missing)
        raise InvalidArgumentError(f"batch: the mesh has axes {axes_text(mesh)}, and no axis {listed}.")
    if not isinstance(cast(object, mesh), Mesh):
        raise InvalidTypeError("batch: data needs devices. Write: mesh = jv.placement.mesh(data=-1)")
    spread = NamedSharding(mesh, PartitionSpec(names[0] if len(names) == 1 else names))
    whole = NamedSharding(mesh, PartitionSpec())
    pieces = math.prod(mesh.shape[name] for name in names)
    processes = 1 if spread.is_fully_addressable else jax.process_count()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    wrong = [
        f"  {jax.tree_util.keystr(path) or 'the batch'}: shape {np.shape(leaf)}"
        for path, leaf in leaves
        if np.ndim(leaf) and np.shape(leaf)[0] * processes % pieces
    ]
    if wrong:
        given = f", given by {processes} processes," if processes > 1 else ""
        raise InvalidArgumentError(
            "\n".join([f"batch: the first dimension{given} is not a multiple of {pieces} ({axes_text(mesh)}):", *wrong])
        )
    return jax.tree.map(lambda leaf: _spread(leaf, spread if np.ndim(leaf) else whole), tree)


def _spread(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))
