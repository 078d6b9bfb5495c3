"""From the device strings that variables carry to devices of JAX, at the moment a value is made or restored.

A string is resolved where its value is put: by `model.init`, `jv.VariableStore`, `jv.checkpoint.restore` and
`jv.variables_initializer`. `model.specs` resolves nothing, so the specs of a cluster can be made on a laptop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
from jax.sharding import AbstractMesh, NamedSharding, Sharding, SingleDeviceSharding

from jaxvars import _compat
from jaxvars.errors import InvalidArgumentError, some_names
from jaxvars.scopes.device_scope import SOFT
from jaxvars.scopes.devices import DeviceSpec
from jaxvars.spec import Hole
from jaxvars.variables import Variables

__all__ = ["fill_homes", "resolve", "shardings_of"]

Device: TypeAlias = Any  # a jax.Device, which type checkers do not know as a type


def resolve(device: str, soft_placement: bool = False) -> Device | None:
    """Return the JAX device that a device string means here.

    ``/device:CPU:3`` is ``jax.devices("cpu")[3]``, and likewise for GPU, TPU and other platforms; ``*`` or no index is
    the first one. With several processes ``/task:1`` means the devices of process 1, with one process every job,
    replica and task is this one.

    Args:
      device: the string, in any of TF1's forms.
      soft_placement: where it does not exist, take one that does: of the same type, or else of JAX's default platform,
        the index taken round.

    Returns:
      The device; None where the string leaves the choice to JAX.

    Raises:
      InvalidArgumentError: it is malformed, or there is no such device: says what there is.

    Example:
      >>> import jaxvars as jv
      >>> jv.placement.resolve("/job:ps/cpu:0").platform
      'cpu'
      >>> jv.placement.resolve("/job:ps/task:7") is None
      True
    """
    spec = DeviceSpec.from_string(device)
    found = _candidates(spec)
    if found is None:
        return None
    index = spec.device_index or 0
    if index < len(found):
        return found[index]
    if not soft_placement:
        raise InvalidArgumentError(
            f"There is no device {spec.to_string()}; {_available()}. Write:\n"
            f"    jv.placement.resolve({device!r}, soft_placement=True)    # another one will do"
        )
    others = found or jax.local_devices()
    return others[index % len(others)]


def _candidates(spec: DeviceSpec) -> Sequence[Device] | None:
    """The devices of the right type and task, in the order of their index; None where any will do."""
    task = spec.task if jax.process_count() > 1 else None
    if spec.device_type is None and task is None:
        return None
    try:
        devices = jax.devices(None if spec.device_type is None else spec.device_type.lower())
    except RuntimeError:  # a platform that is not here
        return []
    return devices if task is None else [device for device in devices if device.process_index == task]


def shardings_of(notes: Mapping[str, str], defined_at: Mapping[str, str]) -> dict[str, Sharding]:
    """Return where values shall be put, by name; names whose device JAX may choose are left out.

    Args:
      notes: name -> the device string of its spec's placement.
      defined_at: name -> ``"file.py:line"`` or "", for the error.

    Raises:
      InvalidArgumentError: devices that do not exist: all variables concerned, and what there is.
    """
    found: dict[str, Sharding] = {}
    seen: dict[str, Device | None] = {}
    absent: dict[str, str] = {}
    for name, note in notes.items():
        if note not in seen:
            text = note.removesuffix(SOFT)
            try:
                seen[note] = resolve(text, soft_placement=text != note)
            except InvalidArgumentError:
                absent[name] = note
                continue
        device = seen[note]
        if device is not None:
            found[name] = SingleDeviceSharding(device)
    if absent:
        raise InvalidArgumentError(_absent_text(absent, defined_at))
    return found


def fill_homes(holes: dict[str, Any], *notes: Variables) -> None:
    """Set the devices of holes that are about to be filled; inside ``jit`` its caller decides, and nothing is set.

    Args:
      holes: name -> hole; changed in place.
      notes: states whose layouts name devices; of several the last one that does counts.

    Raises:
      InvalidArgumentError: a device does not exist, or an abstract mesh has none.
    """
    if not _compat.is_eager(_compat.current_trace()):
        return
    named: dict[str, tuple[str, str]] = {}
    for state in notes:
        layout = state._layout
        for name, hole in holes.items():
            position = layout.index.get(name)
            note = None if position is None else layout.placement[position]
            if isinstance(note, str) and position is not None and hole.sharding is None:
                named[name] = note, layout.defined_at[position]
    found = shardings_of(
        {name: note for name, (note, _) in named.items()}, {name: at for name, (_, at) in named.items()}
    )
    found |= _on_devices(holes)
    for name, sharding in found.items():
        holes[name] = Hole(
            holes[name].shape,
            holes[name].dtype,
            sharding=sharding,
            initializer=getattr(holes[name], "initializer", None),
        )


def _on_devices(holes: Mapping[str, Any]) -> dict[str, Sharding]:
    """The shardings of holes over an abstract mesh, on the devices of the mesh that ``jax.set_mesh`` set.

    Raises:
      InvalidArgumentError: there is none, or one of other axes.
    """
    abstract = {
        name: hole.sharding
        for name, hole in holes.items()
        if isinstance(hole.sharding, NamedSharding) and isinstance(hole.sharding.mesh, AbstractMesh)
    }
    if not abstract:
        return {}
    mesh = jax.sharding.get_mesh()
    wrong = [name for name, sharding in abstract.items() if dict(sharding.mesh.shape) != dict(mesh.shape)]
    if wrong:
        axes = ", ".join(f"{axis}={size}" for axis, size in abstract[wrong[0]].mesh.shape.items())
        raise InvalidArgumentError(
            f"{some_names(wrong)}: to be spread over an AbstractMesh ({axes}), which has no devices to put a value on. "
            "Write one of:\n"
            f"    specs = jv.placement.apply(model.specs(*args), jv.placement.mesh({axes}))\n"
            "    variables = model.init(rng, *args, variables=specs)\n"
            "or\n"
            f"    with jax.set_mesh(jv.placement.mesh({axes})): variables = model.init(rng, *args)"
        )
    return {
        name: NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)
        for name, sharding in abstract.items()
    }


def _absent_text(absent: Mapping[str, str], defined_at: Mapping[str, str]) -> str:
    lines = [
        f"    {name}: {note}{f', defined at {site}' if (site := defined_at.get(name)) else ''}"
        for name, note in absent.items()
    ]
    name, note = next(iter(absent.items()))
    there = jax.local_devices()[0]
    return (
        f"Cannot assign a device for operation {name}: it was explicitly assigned to {note} but {_available()}.\n"
        + "\n".join(lines)
        + "\nWrite one of:\n"
        f"    with jv.device({note!r}, soft_placement=True): ...    # another one will do\n"
        f"    with jv.device('/device:{there.platform.upper()}:0'): ...    # a device that exists"
    )


def _available() -> str:
    """What there is, in TF1's words."""
    devices = jax.devices()
    platforms = {devices[0].platform.upper(): len(devices)}
    with contextlib.suppress(RuntimeError):  # JAX may have been told to leave the CPU alone
        platforms.setdefault("CPU", len(jax.devices("cpu")))
    texts = [
        f"/device:{platform}:0" + (f" to /device:{platform}:{count - 1}" if count > 1 else "")
        for platform, count in platforms.items()
    ]
    return f"available devices are [ {', '.join(texts)} ]"
