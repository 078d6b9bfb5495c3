"""The formats there are: who reads one, who writes one."""

from __future__ import annotations

from collections.abc import Callable

from jaxvars.checkpoint.formats.base import Source
from jaxvars.checkpoint.paths import Location
from jaxvars.errors import InvalidArgumentError, nearest_names
from jaxvars.variables import Variables

__all__ = ["WRITERS", "open_source", "writer"]

Writer = Callable[[Variables, str], None]


def _open_bundle(path: str) -> Source:
    from jaxvars.checkpoint.formats.tensor_bundle import TensorBundle

    return TensorBundle(path)


def _open_v1(path: str) -> Source:
    from jaxvars.checkpoint.formats.tf_v1 import TableCheckpoint

    return TableCheckpoint(path)


def _open_orbax(path: str) -> Source:
    from jaxvars.checkpoint.formats.orbax import OrbaxSource

    return OrbaxSource(path)


def _save_orbax(variables: Variables, path: str) -> None:
    from jaxvars.checkpoint.formats.orbax_save import save_orbax

    save_orbax(variables, path)


_READERS: dict[str, Callable[[str], Source]] = {"tf": _open_bundle, "tf_v1": _open_v1, "orbax": _open_orbax}
WRITERS: dict[str, Writer] = {"orbax": _save_orbax}


def open_source(location: Location) -> Source:
    """Open the checkpoint at a location with the reader of its format."""
    return _READERS[location.format](location.path)


def writer(format: str | None) -> Writer:
    """Return the function that writes the format; None means Orbax.

    Raises:
      InvalidArgumentError: there is no writer for it; the text lists those there are.
    """
    if format is None:
        format = "orbax"
    if format not in WRITERS:
        near = nearest_names(str(format), WRITERS)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidArgumentError(
            f"There is no checkpoint format {format!r} to save in. "
            f"Formats: {', '.join(map(repr, sorted(WRITERS)))}.{hint}"
        )
    return WRITERS[format]
