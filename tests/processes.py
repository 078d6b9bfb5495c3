"""Runs a function of a test module in several processes that JAX joins, and never waits for them for ever.

def work(folder):                       # at the top of a test module
    ...                                 # `jax.distributed` is initialized; jax.process_index() says which one this is
    return jax.process_index()          # anything that JSON can hold

@pytest.mark.slow
def test_together(tmp_path):
    assert run_processes(work, 2, str(tmp_path)) == [0, 1]
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_GRACE_SECONDS = 20  # what the others get to notice that one has failed
_LONGEST_TEXT = 3000


class ProcessesFailed(AssertionError):
    """Some processes failed or did not end.

    Attributes:
      codes: the exit code of each process; negative for one that a signal killed.
      texts: what each wrote, errors included.
    """

    def __init__(self, why, codes, texts):
        self.codes, self.texts = codes, texts
        bad = [number for number, code in enumerate(codes) if code]
        shown = [f"--- process {n}, exit code {codes[n]}:\n{texts[n][-_LONGEST_TEXT:]}" for n in bad]
        super().__init__("\n".join([why, *shown]))


def run_processes(function, count, *arguments, devices=2, timeout=240, environment=None):
    """Call a function in several processes at once, each with CPU devices of its own, and return what it returned.

    Args:
      function: of the top of a module that lies beside this file, or that can be imported.
      count: how many processes; each calls ``function(*arguments)``.
      arguments: what JSON can hold.
      devices: how many devices each process has.
      timeout: seconds after which those that still run are killed.
      environment: more environment variables.

    Returns:
      One value per process, as JSON hands it back.

    Raises:
      ProcessesFailed: a process raised, was killed, or ran too long. None is left running.
    """
    with tempfile.TemporaryDirectory() as folder:
        address = f"localhost:{free_port()}"
        children = [
            _start(function, arguments, address, count, number, folder, devices, environment or {})
            for number in range(count)
        ]
        try:
            why = _wait(children, timeout)
        finally:
            for child in children:
                _kill(child)
        texts = [Path(folder, f"{number}.text").read_text(errors="replace") for number in range(count)]
        codes = [child.returncode for child in children]
        if why or any(codes):
            raise ProcessesFailed(why or "A process failed.", codes, texts)
        return [json.loads(Path(folder, f"{number}.json").read_text()) for number in range(count)]


def free_port():
    """Return the number of a port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _start(function, arguments, address, count, number, folder, devices, environment):
    call = [function.__module__, function.__qualname__, json.dumps(arguments), address, count, number, folder]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(_HERE.parent), os.environ.get("PYTHONPATH", "")]),
        **environment,
    }
    with Path(folder, f"{number}.text").open("wb") as text:
        # A session of its own, so that what a process starts is killed with it.
        return subprocess.Popen(
            [sys.executable, __file__, *map(str, call)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=text,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(children, timeout):
    """Wait until all have ended; says why not, "" if they have."""
    end, why = time.monotonic() + timeout, f"Processes ran longer than {timeout} s and were killed."
    while None in [child.poll() for child in children]:
        if time.monotonic() > end:
            return why
        if any(child.returncode for child in children) and time.monotonic() + _GRACE_SECONDS < end:
            end, why = time.monotonic() + _GRACE_SECONDS, "A process failed, and others went on waiting for it."
        time.sleep(0.02)
    return ""


def _kill(child):
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _work(module, name, arguments, address, count, number, folder):
    """What each process does."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, int(count), int(number))
    value = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    Path(folder, f"{number}.json").write_text(json.dumps(value))
    jax.distributed.shutdown()


if __name__ == "__main__":
    try:
        _work(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # at the usual end JAX would wait for the others
