"""Values of several processes: each initializes, restores and saves its own share, and the launcher of such tests."""

import time

import jax
import pytest
from processes import ProcessesFailed, run_processes


def number_of(several):
    return [jax.process_index(), several * jax.process_count()]


def fail_alone():
    if jax.process_index():
        raise ValueError("on purpose")
    time.sleep(600)


def sleep():
    time.sleep(600)


@pytest.mark.slow
def test_the_launcher_collects_values_and_errors(monkeypatch):
    assert run_processes(number_of, 2, 10) == [[0, 20], [1, 20]]
    monkeypatch.setattr("processes._GRACE_SECONDS", 1)
    with pytest.raises(ProcessesFailed, match="others went on waiting") as caught:
        run_processes(fail_alone, 2)
    assert caught.value.codes == [-9, 1] and "ValueError: on purpose" in str(caught.value)
    with pytest.raises(ProcessesFailed, match="longer than 4 s") as caught:
        run_processes(sleep, 2, timeout=4)
    assert caught.value.codes == [-9, -9]
