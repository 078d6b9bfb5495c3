"""Orbax checkpoints that are damaged, half written or in the way."""

import asyncio
import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import assert_same, holes, state, write_v1

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats import orbax_layout, orbax_record
from jaxvars.errors import DataLossError, FailedPreconditionError, InvalidArgumentError, InvalidTypeError

# Damage


def all_files(path):
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


@pytest.mark.parametrize("trials", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_flipped_bits_are_detected_or_harmless(tmp_path, trials):
    variables = jv.Variables({"w": jnp.arange(300.0), "b": jnp.ones(3, jnp.bfloat16)})
    path = checkpoint.save(variables, tmp_path / "m")
    random = np.random.default_rng(0)
    files = [file for file in all_files(path) if os.path.getsize(file)]
    detected = 0
    for trial in range(trials):
        file = files[trial % len(files)]
        with open(file, "r+b") as stream:
            data = bytearray(stream.read())
            place = int(random.integers(8 * len(data)))
            changed = bytearray(data)
            changed[place // 8] ^= 1 << place % 8
            stream.seek(0)
            stream.write(changed)
        try:
            assert_same(checkpoint.restore(path, holes(variables)), variables)
        except (DataLossError, jv.errors.JaxvarsError):
            detected += 1
        with open(file, "wb") as stream:
            stream.write(data)
    assert detected > trials / 6
    assert_same(checkpoint.restore(path, holes(variables)), variables)


def test_a_changed_value_is_named(tmp_path):
    variables = jv.Variables({"w": jnp.full(5000, 1.25, jnp.float32)})
    path = checkpoint.save(variables, tmp_path / "m")
    pattern = np.float32(1.25).tobytes() * 4
    for file in all_files(path):
        with open(file, "r+b") as stream:
            data = stream.read()
            if pattern in data:
                stream.seek(data.index(pattern))
                stream.write(np.float32(1.5).tobytes())
    with pytest.raises(DataLossError, match=r"values of 'w' do not match their checksum"):
        checkpoint.restore(path, holes(variables))


def test_a_changed_record_is_detected(tmp_path):
    path = checkpoint.save(state(), tmp_path / "m")
    file = tmp_path / "m" / "_CHECKPOINT_METADATA"
    text = file.read_text()
    assert '"trainable": false' in text
    for changed in (
        text.replace('"trainable": false', '"trainable": true', 1),
        text[:-40],
        "[]",
        '{"a":' * 9999,
    ):
        file.write_text(changed)
        with pytest.raises(DataLossError, match="damaged"):
            checkpoint.open(path)
    record = orbax_record.encode_record([])
    record["jaxvars"]["version"] = 99
    with pytest.raises(InvalidArgumentError, match="newer jaxvars"):
        orbax_record.decode_record(record, "it")


def test_a_missing_data_file_is_one_short_error(tmp_path):
    path = checkpoint.save(state(), tmp_path / "m")
    for file in all_files(path):
        if f"{os.sep}d{os.sep}" in file:
            os.unlink(file)
    with pytest.raises(DataLossError) as caught:
        checkpoint.restore(path, holes(state()))
    assert path in str(caught.value) and len(str(caught.value)) < 700 and caught.value.__cause__ is None


# Atomicity


class Killed(BaseException):
    """Stands for the process being killed at this point."""


@pytest.mark.parametrize("number", range(1, 4))
def test_a_save_killed_while_moving_leaves_a_whole_checkpoint(tmp_path, monkeypatch, number):
    old, new = jv.Variables({"w": jnp.zeros(3)}), jv.Variables({"w": jnp.ones(3)})
    path = checkpoint.save(old, tmp_path / "m")
    moves = []

    def rename(source, target, real=os.rename):
        if "jaxvars" in source + target and "orbax-checkpoint-tmp" not in source:
            moves.append(target)
            if len(moves) >= number:
                raise Killed
        real(source, target)

    monkeypatch.setattr(orbax_layout.os, "rename", rename)
    if number < 3:
        with pytest.raises(Killed):
            checkpoint.save(new, path)
    else:
        checkpoint.save(new, path)
    monkeypatch.undo()
    found = float(checkpoint.restore(path, old)["w"][0])
    assert found == (1 if number == 3 else 0)
    checkpoint.save(new, path)
    assert os.listdir(tmp_path) == ["m"]
    assert float(checkpoint.restore(path, old)["w"][0]) == 1


def test_a_save_that_fails_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    variables = jv.Variables({"w": jnp.zeros(3)})
    path = checkpoint.save(variables, tmp_path / "m")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(FailedPreconditionError, match=r"No space left.*unchanged"):
        checkpoint.save(jv.Variables({"w": jnp.ones(3)}), path)
    assert float(checkpoint.restore(path, variables)["w"][0]) == 0
    assert os.listdir(tmp_path) == ["m"]


def test_leftovers_of_dead_processes_are_cleaned_and_others_kept(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = orbax_layout.new_path(str(tmp_path / "m")).replace(str(os.getpid()), str(child.pid))
    alive = orbax_layout.new_path(str(tmp_path / "m")).replace(str(os.getpid()), str(os.getppid()))
    for folder in (dead, f"{dead}.orbax-checkpoint-tmp", alive):
        os.makedirs(folder)
    checkpoint.save(jv.Variables({"w": jnp.ones(3)}), tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == ["m", os.path.basename(alive)]


@pytest.mark.slow
def test_a_killed_process_leaves_the_previous_checkpoint(tmp_path):
    code = """
import sys, jax.numpy as jnp, jaxvars as jv
print("ready", flush=True)
for number in range(2, 10_000):
    jv.checkpoint.save(jv.Variables({"w": jnp.full(50_000, float(number))}), sys.argv[1])
"""
    path = checkpoint.save(jv.Variables({"w": jnp.full(50_000, 1.0)}), tmp_path / "m")
    for moment in range(4):
        child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        threading.Event().wait(0.3 + 0.037 * moment)
        child.kill()
        child.wait()
        child.stdout.close()
        values = checkpoint.restore(path, jv.Variables({"w": jnp.zeros(50_000)}))["w"]
        assert float(values[0]) >= 1 and bool((values == values[0]).all())
    checkpoint.save(jv.Variables({"w": jnp.zeros(3)}), path)
    assert os.listdir(tmp_path) == ["m"]


# What is refused


def test_places_that_hold_something_else_are_refused(tmp_path):
    variables = jv.Variables({"w": jnp.ones(3)})
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("")
    (tmp_path / "model.ckpt.index").write_text("")
    (tmp_path / "empty").mkdir()
    write_v1(tmp_path / "other")
    for name, text in (
        ("file", "not a checkpoint that jaxvars wrote"),
        ("folder", "not a checkpoint that jaxvars wrote"),
        ("other", "not a checkpoint that jaxvars wrote"),
        ("model.ckpt", "TensorFlow checkpoint of that name"),
        ("checkpoint", "Choose another name"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            checkpoint.save(variables, tmp_path / name)
    with pytest.raises(FailedPreconditionError, match="Cannot save to"):
        checkpoint.save(variables, tmp_path / "file" / "m")
    assert (tmp_path / "file").read_text() == "precious" and (tmp_path / "folder" / "precious").exists()
    checkpoint.save(variables, tmp_path / "empty")


def test_values_that_cannot_be_saved_are_refused(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(FailedPreconditionError, match=r"uninitialized values: b/w\. Write: .*initializer"):
        checkpoint.save(jv.Variables({"b/w": jax.ShapeDtypeStruct((2,), "float32"), "a": jnp.ones(2)}), path)
    with pytest.raises(FailedPreconditionError, match="inside jit"):
        jax.jit(lambda v: checkpoint.save(v, path))(jv.Variables({"w": jnp.ones(2)}))
    gone = jv.Variables({"w": jnp.ones(2)})
    gone["w"].delete()
    with pytest.raises(FailedPreconditionError, match='"w" is gone'):
        checkpoint.save(gone, path)
    with pytest.raises(InvalidTypeError, match="variables come first"):
        checkpoint.save(path, gone)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"no checkpoint format 'orbx'.*'orbax'"):
        checkpoint.save(jv.Variables({}), path, format="orbx")
    assert not path.exists()


def test_saving_and_restoring_work_in_a_running_event_loop_and_in_threads(tmp_path):
    variables = jv.Variables({"w": jnp.ones(3)})

    async def cell():
        return checkpoint.restore(checkpoint.save(variables, tmp_path / "loop"), variables)

    assert_same(asyncio.run(cell()), variables)
    failures = []

    def work(number):
        try:
            path = checkpoint.save(variables, tmp_path / f"thread{number}")
            assert_same(checkpoint.restore(path, variables), variables)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_empty_state_is_a_checkpoint_too(tmp_path):
    path = checkpoint.save(jv.Variables({}), tmp_path / "m")
    assert list(checkpoint.open(path)) == [] and len(checkpoint.restore(path, jv.Variables({}))) == 0
    path = checkpoint.save(jv.Variables({"e": jnp.zeros((0, 2))}), tmp_path / "n")
    assert checkpoint.restore(path, jv.Variables({"e": jnp.zeros((0, 2))}))["e"].shape == (0, 2)
