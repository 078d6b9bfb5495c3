"""Device strings as TF1 wrote them: ``"/job:ps/task:1/device:GPU:0"``, parsed, printed and merged field by field."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, Self

from jaxvars._source import user_site
from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["DeviceSpec", "canonical_device"]

# The types that may stand without "device:" before them, in any case.
_SHORT_TYPES = frozenset({"CPU", "GPU", "TPU", "CUSTOM", "EPU"})
_JOB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXAMPLE = "/job:worker/task:1/device:GPU:0"


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device, or a part of its description; None is open. TF1: ``tf.DeviceSpec``.

    Attributes:
      job: the job's name, such as ``"ps"``.
      replica: number of the replica.
      task: number of the task within the job.
      device_type: ``"CPU"``, ``"GPU"``, ...; ``"cpu"`` and ``"gpu"`` become capitals.
      device_index: number of the device of this type.

    Example:
      >>> import jaxvars as jv
      >>> jv.DeviceSpec(job="ps", device_type="gpu", device_index=1).to_string()
      '/job:ps/device:GPU:1'
      >>> jv.DeviceSpec.from_string("/job:ps/gpu:*")
      DeviceSpec(job='ps', replica=None, task=None, device_type='GPU', device_index=None)
    """

    job: str | None = None
    replica: int | None = None
    task: int | None = None
    device_type: str | None = None
    device_index: int | None = None

    def __post_init__(self) -> None:
        if self.device_type in ("cpu", "gpu"):
            object.__setattr__(self, "device_type", self.device_type.upper())

    @classmethod
    def from_string(cls, spec: str) -> Self:
        """Return the description that a string gives; "" leaves everything open.

        Fields come in any order, the leading "/" may be missing, and ``/gpu:1`` is short for ``/device:GPU:1``.

        Args:
          spec: the string.

        Raises:
          InvalidArgumentError: it is malformed; says which part, and what to write.
          InvalidTypeError: it is no string.
        """
        if not isinstance(spec, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTypeError(
                f"A device is named by a string, got {spec!r:.60} ({type(spec).__name__}). Write for example "
                f"{_EXAMPLE!r}."
            )
        return cls(**_fields(spec))

    def to_string(self) -> str:
        """Return the canonical string: job, replica, task, device, those that are set; "" if none is."""
        parts: list[str] = []
        for name in ("job", "replica", "task"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"/{name}:{value}")
        if self.device_type is not None:
            parts.append(f"/device:{self.device_type}:{'*' if self.device_index is None else self.device_index}")
        return "".join(parts)

    def make_merged_spec(self, dev: DeviceSpec) -> DeviceSpec:
        """Return this description with the fields that `dev` sets taken from `dev`.

        Type and index are fields of their own, as in TF1: ``/gpu:1`` merged with ``/cpu`` is ``/device:CPU:1``.

        Args:
          dev: what takes precedence: the inner one of two nested devices.
        """
        return DeviceSpec(
            *(own if other is None else other for own, other in zip(_tuple(self), _tuple(dev), strict=True))
        )

    def replace(self, **fields: Any) -> DeviceSpec:
        """Return the description with some fields set anew; None opens one."""
        return dataclasses.replace(self, **fields)


def _tuple(spec: DeviceSpec) -> tuple[Any, ...]:
    return spec.job, spec.replica, spec.task, spec.device_type, spec.device_index


@functools.lru_cache(maxsize=1024)
def canonical_device(spec: str) -> str:
    """Return the canonical form of a device string.

    Example:
      >>> canonical_device("/gpu:1")
      '/device:GPU:1'

    Raises:
      InvalidArgumentError: it is malformed.
    """
    return DeviceSpec.from_string(spec).to_string()


def _fields(spec: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in spec.split("/"):
        if part:
            for name, value in _parsed(part, spec).items():
                if name in fields:
                    raise _malformed(spec, _twice(name), f"one {name.removeprefix('device_')} only")
                fields[name] = value
    return fields


def _twice(name: str) -> str:
    if name == "device_type":
        return "Multiple device types are not allowed"
    return f"it has more than one {name}"


def _parsed(part: str, spec: str) -> dict[str, Any]:
    """The fields that one part between slashes sets."""
    name, *values = part.split(":")
    if name == "job" and len(values) == 1:
        if not _JOB.fullmatch(values[0]):
            raise _malformed(
                spec, f"{values[0]!r} is not the name of a job", "letters, digits and _, as in /job:worker"
            )
        return {"job": values[0]}
    if name in ("replica", "task") and len(values) == 1:
        return {name: _number(values[0], part, spec)}
    if name == "device" and len(values) == 2 and _TYPE.fullmatch(values[0]):
        return {"device_type": values[0], **_index(values[1], part, spec)}
    if name.upper() in _SHORT_TYPES and len(values) <= 1:
        return {"device_type": name.upper(), **_index(values[0] if values else "*", part, spec)}
    raise _malformed(spec, f"Unknown attribute {name!r} in {part!r}", _remedy(name, values))


def _index(value: str, part: str, spec: str) -> dict[str, int]:
    return {} if value == "*" else {"device_index": _number(value, part, spec)}


def _number(value: str, part: str, spec: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise _malformed(spec, f"{value!r} in {part!r} is not a number", "a number from 0, or for devices *")
    return int(value)


def _remedy(name: str, values: list[str]) -> str:
    if name == "device" and len(values) == 1:
        return f"/device:{values[0] or 'GPU'}:0"
    return "/job:NAME, /replica:N, /task:N and /device:TYPE:N, or /cpu:N, /gpu:N, /tpu:N"


def _malformed(spec: str, what: str, remedy: str) -> InvalidArgumentError:
    site = user_site()
    return InvalidArgumentError(
        f"The device {spec!r}{f' at {site}' if site else ''} cannot be understood: {what}. Write {remedy}. "
        f"A whole one is {_EXAMPLE!r}."
    )
