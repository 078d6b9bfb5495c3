"""Saves in the background: what is written, when it is complete, and where failures come out."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.checkpoint.formats import registry
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, UnavailableError

LARGE = 1 << 15  # float32 values: more than are copied on the host


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds every write of a .npz file back until it is set."""
    event = threading.Event()
    write = registry.WRITERS["npz"]

    def held(items, path):
        assert event.wait(60)
        write(items, path)

    monkeypatch.setitem(registry.WRITERS, "npz", held)
    yield event
    event.set()


@pytest.fixture
def variables() -> jv.Variables:
    return jv.Variables(
        {
            "large": jnp.arange(LARGE, dtype=jnp.float32),
            "small": jnp.ones(3),
            "key": jax.random.key(7),
            "none": jnp.ones(0),
        }
    )


def test_it_returns_at_once_and_is_complete_when_asked(tmp_path, gate, variables) -> None:
    pending = jv.checkpoint.save_async(variables, tmp_path / "m.npz")
    assert not pending.done() and not (tmp_path / "m.npz").exists() and "under way" in repr(pending)
    with pytest.raises(UnavailableError, match="is not over after"):
        pending.result(timeout=0.01)
    gate.set()
    assert pending.result() == str(tmp_path / "m.npz") == pending.path
    assert pending.done() and "complete" in repr(pending)
    restored = jv.checkpoint.restore(pending.result(), variables)
    np.testing.assert_array_equal(restored["large"], np.arange(LARGE))
    assert bool(restored["key"] == variables["key"])


@pytest.mark.parametrize("form", ["npz", "orbax"])
def test_the_values_are_those_of_the_moment_of_the_call(tmp_path, gate, variables, form) -> None:
    pending = jv.checkpoint.save_async(variables, tmp_path / "m", form)
    zeros = jax.jit(lambda v: jax.tree.map(lambda x: x * 0, v), donate_argnums=0)(variables.scope("large"))
    small = jv.assign(variables, "small", jnp.zeros(3), donate=True)
    assert variables._leaf(variables._layout.index["large"]).is_deleted()
    gate.set()
    restored = jv.checkpoint.restore(pending.result(), zeros | small.scope("small"))
    np.testing.assert_array_equal(restored["large"], np.arange(LARGE))
    np.testing.assert_array_equal(restored["small"], np.ones(3))


def test_sharded_values_are_copied_where_they_are(tmp_path, gate) -> None:
    mesh = jax.make_mesh((4,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    variables = jv.Variables({"w": jax.device_put(jnp.arange(16.0), sharding)})
    pending = jv.checkpoint.save_async(variables, tmp_path / "m.npz")
    jv.assign_add(variables, "w", jax.device_put(jnp.ones(16), sharding), donate=True)
    gate.set()
    with jv.checkpoint.open(pending.result()) as reader:
        np.testing.assert_array_equal(reader["w"], np.arange(16))


def test_saves_are_written_in_the_order_of_the_calls(tmp_path, gate) -> None:
    calls = [jv.checkpoint.save_async(jv.Variables({"w": float(i)}), tmp_path / "m.npz") for i in range(3)]
    gate.set()
    for pending in calls:
        pending.result()
    with jv.checkpoint.open(tmp_path / "m.npz") as reader:
        assert float(np.asarray(reader["w"])) == 2.0


def test_what_can_be_checked_is_checked_at_the_call(tmp_path, variables) -> None:
    with pytest.raises(InvalidTypeError, match="variables come first"):
        jv.checkpoint.save_async(str(tmp_path), variables)  # pyright: ignore
    with pytest.raises(InvalidArgumentError, match="no checkpoint format"):
        jv.checkpoint.save_async(variables, tmp_path / "m", "zip")
    with pytest.raises(FailedPreconditionError, match="uninitialized"):
        jv.checkpoint.save_async(jv.Variables({"w": jax.ShapeDtypeStruct((2,), "float32")}), tmp_path / "m")
    (tmp_path / "notes.npz").write_text("my notes")
    with pytest.raises(InvalidArgumentError, match="unknown file is there"):
        jv.checkpoint.save_async(variables, tmp_path / "notes.npz")


def test_a_failure_is_logged_and_raised_by_result(tmp_path, variables, caplog) -> None:
    (tmp_path / "file").write_text("x")
    with caplog.at_level(logging.ERROR, "jaxvars.checkpoint"):
        pending = jv.checkpoint.save_async(variables, tmp_path / "file" / "m.npz")
        with pytest.raises(FailedPreconditionError, match="Cannot write"):
            pending.result()
    assert "failed" in repr(pending)
    assert "Saving" in caplog.text and "in the background failed" in caplog.text


# -- Saver ---------------------------------------------------------------------------------------------------


def test_a_saver_notes_a_checkpoint_when_it_is_complete(tmp_path, gate) -> None:
    saver = jv.train.Saver(max_to_keep=2, format="npz", background=True)
    path = saver.save(jv.Variables({"w": 1.0}), tmp_path / "m", global_step=1)
    assert jv.train.latest_checkpoint(tmp_path) is None
    gate.set()
    saver.wait()
    saver.wait()
    assert jv.train.latest_checkpoint(tmp_path) == path == str(tmp_path / "m-1")
    for step in (2, 3):
        saver.save(jv.Variables({"w": float(step)}), tmp_path / "m", global_step=step)
    assert float(saver.restore(jv.Variables({"w": 0.0}), str(tmp_path / "m-3"))["w"]) == 3.0  # waits
    assert saver.last_checkpoints == [str(tmp_path / "m-2"), str(tmp_path / "m-3")]
    assert not (tmp_path / "m-1").exists()


def test_a_saver_raises_a_failure_at_its_next_call_once(tmp_path, monkeypatch, caplog) -> None:
    saver = jv.train.Saver(format="npz", background=True)
    variables = jv.Variables({"w": 1.0})

    def full(items, path):
        raise FailedPreconditionError(f"Cannot write {path}: no space left on the device")

    with monkeypatch.context() as patched:
        patched.setitem(registry.WRITERS, "npz", full)
        saver.save(variables, tmp_path / "m", global_step=1)
        with pytest.raises(FailedPreconditionError, match=r"m-1: no space"):
            saver.save(variables, tmp_path / "m", global_step=2)
    assert jv.train.latest_checkpoint(tmp_path) is None
    path = saver.save(variables, tmp_path / "m", global_step=3)
    saver.wait()
    assert jv.train.latest_checkpoint(tmp_path) == path
    assert saver.last_checkpoints == [path]


@pytest.mark.parametrize("form", ["npz", "orbax"])
def test_a_program_that_ends_waits_for_its_saves(tmp_path: Path, form: str) -> None:
    code = """
import sys, time, jax.numpy as jnp, jaxvars as jv
from jaxvars.checkpoint.formats import registry
folder, form = sys.argv[1:]
write = registry.WRITERS[form]
def slow(items, path):
    time.sleep(0.5)
    write(items, path)
registry.WRITERS[form] = slow
jv.train.Saver(format=form, background=True).save(jv.Variables({"w": jnp.ones(30000)}), folder + "/m", global_step=5)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), form], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert jv.train.latest_checkpoint(tmp_path) == str(tmp_path / "m-5")
