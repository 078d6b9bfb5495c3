"""`exchange`: what processes tell each other, through the key-value store that `jax.distributed` keeps.

It takes no device and no computation, so it works while JAX traces, and when the devices wait for a process that does
something else. No wait in it is for ever.
"""

from __future__ import annotations

import contextlib
from typing import Any

import jax

from jaxvars import _compat

__all__ = ["Absent", "exchange", "is_alone"]

_turns: dict[str, int] = {}  # the n-th exchange of each process is answered by the n-th of the others


class Absent(Exception):
    """Processes did not come in time, or have ended. Whoever asked says what they were wanted for.

    Attributes:
      processes: their numbers; empty where this process itself came when another one had given up.
    """

    def __init__(self, processes: list[int]) -> None:
        super().__init__(processes)
        self.processes = processes


def is_alone() -> bool:
    """Whether there is nobody to tell anything."""
    return jax.process_count() == 1 or _compat.distributed_client() is None


def exchange(subject: str, said: bytes, seconds: float) -> dict[int, bytes]:
    """Tell something to all processes; all must call it, and none that is alone.

    Args:
      subject: of this series of exchanges, which is the same in all processes.
      said: what the others shall know.
      seconds: how long to wait for them.

    Returns:
      Process -> what it said.

    Raises:
      Absent: some did not come.
    """
    client = _compat.distributed_client()
    turn = _turns.get(subject, 0)
    _turns[subject] = turn + 1
    place = f"jaxvars/{subject}/{turn}"
    client.key_value_set_bytes(f"{place}/{jax.process_index()}", said)
    try:
        client.wait_at_barrier(f"{place}/told", int(seconds * 1000))
    except jax.errors.JaxRuntimeError as error:
        came: dict[int, bytes] = {}
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0, which keeps what was told, may have ended
            came = _told(client, place)
        raise Absent([process for process in range(jax.process_count()) if process not in came]) from error
    if jax.process_index() == 0 and turn:
        client.key_value_delete(f"jaxvars/{subject}/{turn - 1}")  # all have read it, else they would not be here
    return _told(client, place)


def _told(client: Any, place: str) -> dict[int, bytes]:
    found = client.key_value_dir_get_bytes(f"{place}/")
    return dict(sorted((int(key.rsplit("/", 1)[1]), said) for key, said in found))
