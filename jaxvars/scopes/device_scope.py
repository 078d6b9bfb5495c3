"""`device`: where the variables made inside live, as ``tf.device`` said it.

The open blocks form a stack, each entry made for good and pointing to the one around it, so that leaving is going back
to that one, also after an exception. The stack belongs to the thread or task. A frame begins with the blocks that are
open around it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias, cast

from jaxvars._source import user_site
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.scopes.decorator import ScopeDecorator
from jaxvars.scopes.devices import DeviceSpec

__all__ = ["SOFT", "Home", "VariableOp", "current_home", "device", "device_text", "open_devices"]

DeviceFunction: TypeAlias = Callable[[Any], Any]

#: Ends the note of a home for which another device will do.
SOFT = " (soft)"
#: What `VariableOp.type` is: TF1's name for the op behind a variable.
VARIABLE_OP = "VariableV2"


class VariableOp(NamedTuple):
    """What a device function is called with: of a ``tf.Operation``, the parts that tell a variable.

    Attributes:
      name: the variable's key.
      device: the canonical string that the blocks further inside gave it, "" if none did.
      shape: its shape.
      dtype: its dtype.
      graph: the frame's names, another object in each frame.
      type: always ``"VariableV2"``: only variables have a device here.
      partitions: how many slices a partitioner cuts along each dimension, None without one.
    """

    name: str
    device: str
    shape: tuple[int, ...]
    dtype: Any
    graph: Any
    type: str = VARIABLE_OP
    partitions: tuple[int, ...] | None = None

    @property
    def node_def(self) -> VariableOp:
        """This object, whose `op` is its type, as in TF1's ``node_def``."""
        return self

    @property
    def op(self) -> str:
        """The type, as in TF1's ``node_def``."""
        return self.type


class Home(NamedTuple):
    """Where a new variable shall live.

    Attributes:
      device: the canonical string, "" where the sharding says it.
      sharding: a `jax.sharding.Sharding` as it is wanted, or None.
      soft: whether another device will do where this one does not exist.
    """

    device: str
    sharding: Any
    soft: bool

    @property
    def note(self) -> str:
        """What `VariableSpec.placement` keeps of a string: it, with " (soft)" where another device will do."""
        return f"{self.device}{SOFT}" if self.soft else self.device


class _Open:
    """One open block."""

    __slots__ = ("outer", "owner", "soft", "what")

    def __init__(self, what: Any, soft: bool, outer: _Open | None, owner: object) -> None:
        self.what = what
        self.soft = soft
        self.outer = outer
        self.owner = owner


open_devices: Final[ContextVar[_Open | None]] = ContextVar("jaxvars_devices", default=None)


class device(ScopeDecorator):
    """Context manager: the variables made inside live on this device (``tf.device``).

    Nested blocks merge field by field (job, replica, task, type, index), the inner one wins. ``None`` shuts out the
    blocks around it. A function is called for each new variable with an op-like object (``.name``, ``.type``,
    ``.device``, ``.shape``, ``.dtype``), whose ``.device`` is what the blocks inside gave; its result takes the
    place of that. A sharding sets all fields; a function may return one too, as `jv.placement.rule` does, and a device
    that a block inside says wins over it.

    A device is the home of a value: `init`, `checkpoint.restore` and the initializers put it there, and there the
    string becomes a device of JAX. `specs` only notes it: ``v.device``, ``variables.summary()``. Inside ``jax.jit``
    no device can be chosen. What is computed *from* the variable is not concerned.

    Args:
      device_name_or_function: such as ``"/gpu:1"``, ``"/job:ps/task:0"`` or ``"/device:CPU:*"``; a `jv.DeviceSpec`; a
        function such as `jv.train.replica_device_setter` or `jv.placement.rule` returns; None; a `jax.Device`; or a
        `jax.sharding.Sharding`.
      soft_placement: where the device does not exist, take one that does instead of raising: of the same type if there
        is one, with the index taken round. Holds for the blocks inside too.

    Raises:
      InvalidArgumentError: a malformed string; or, when a variable is made, one that a function returned.
      InvalidTypeError: none of these things.
      FailedPreconditionError: closed while a block inside is still open.

    Example:
      >>> import jaxvars as jv
      >>> def net():
      ...     with jv.device("/job:ps"), jv.device("/cpu:1"):
      ...         return jv.get_variable("w", [2]).device
      >>> jv.transform(net).specs().variable_specs["w"].placement
      '/job:ps/device:CPU:1'
    """

    __slots__ = ("_soft", "_what")

    def __init__(self, device_name_or_function: Any, soft_placement: bool = False) -> None:
        self._what = _checked(device_name_or_function)
        self._soft = soft_placement

    def __enter__(self) -> None:
        open_devices.set(_Open(self._what, self._soft, open_devices.get(), self))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block = open_devices.get()
        if block is None or block.owner is not self:
            site = user_site()
            raise FailedPreconditionError(
                f"Improper nesting of device: {self._what!r} is being closed{f' at {site}' if site else ''}, and it is "
                "not the innermost one open. Use `with` blocks or contextlib.ExitStack."
            )
        open_devices.set(block.outer)

    def _again(self) -> Self:
        return type(self)(self._what, self._soft)


def _checked(what: Any) -> Any:
    """The argument of `device` in the form that is kept: None, a spec, a function or a sharding."""
    if what is None or isinstance(what, DeviceSpec):
        return what
    if isinstance(what, str):
        return DeviceSpec.from_string(what)
    if _is_sharding(what) or callable(what):
        return what
    if hasattr(what, "platform") and hasattr(what, "process_index"):  # a jax.Device
        return _spec_of(what)
    site = user_site()
    raise InvalidTypeError(
        f"jv.device takes a string, a function, None, a jax.Device or a Sharding, got {what!r:.60} "
        f"({type(what).__name__}){f' at {site}' if site else ''}. Write for example: with jv.device('/gpu:1'): ..."
    )


def _is_sharding(what: Any) -> bool:
    """Whether this is a `jax.sharding.Sharding`, without importing JAX."""
    return hasattr(type(what), "device_set")


def device_text(jax_device: Any) -> str:
    """Return the string that resolves to this `jax.Device`."""
    return _spec_of(jax_device).to_string()


def _spec_of(jax_device: Any) -> DeviceSpec:
    siblings = jax_device.client.devices()
    several = len({other.process_index for other in siblings}) > 1
    same = [other for other in siblings if not several or other.process_index == jax_device.process_index]
    return DeviceSpec(
        task=jax_device.process_index if several else None,
        device_type=jax_device.platform.upper(),
        device_index=same.index(jax_device),
    )


def current_home(
    name: str, shape: tuple[int, ...], dtype: Any, graph: Any, whole: VariableOp | None = None
) -> Home | None:
    """Return the home of a variable that is made here and now; None where no block says one.

    From the innermost block outwards, as in TF1: a string adds the fields that are open still, a function's result
    takes the place of what there is, None ends it. A sharding is a home only where no block inside says a device.

    Args:
      name: its key.
      shape: its shape.
      dtype: its dtype.
      graph: the frame's names.
      whole: of a slice, the partitioned variable: what functions with a true ``takes_whole`` are asked about.

    Raises:
      InvalidArgumentError: a function returned a malformed string. Names the variable.
      InvalidTypeError: a function returned no string, `DeviceSpec` or sharding.
    """
    block = open_devices.get()
    if block is None:
        return None
    found = DeviceSpec()
    soft = False
    while block is not None and block.what is not None:
        soft = soft or block.soft
        if isinstance(block.what, DeviceSpec):
            found = block.what.make_merged_spec(found)
        else:
            chosen = block.what
            if not _is_sharding(chosen):
                op = VariableOp(name, "", shape, dtype, graph)
                if whole is not None and getattr(chosen, "takes_whole", False):
                    op = whole
                chosen = _chosen(chosen, op._replace(device=found.to_string()))
            if not isinstance(chosen, DeviceSpec):
                if found == DeviceSpec():
                    return Home("", chosen, soft)
                break
            found = chosen
        block = block.outer
    text = found.to_string()
    return Home(text, None, soft) if text else None


def _chosen(function: DeviceFunction, op: VariableOp) -> Any:
    """What a device function says: a `DeviceSpec`, or a sharding."""
    result = cast(object, function(op))
    if isinstance(result, DeviceSpec) or _is_sharding(result):
        return result
    called = getattr(function, "__qualname__", type(function).__name__)
    if not isinstance(result, str):
        raise InvalidTypeError(
            f"The device function {called} returned {result!r:.60} for variable {op.name}: it must return a device "
            "string or a jax.sharding.Sharding. To leave the device as it is: return op.device"
        )
    try:
        return DeviceSpec.from_string(result)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"From the device function {called}, for variable {op.name}: {error}") from None
