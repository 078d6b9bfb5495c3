"""Checkpoints that jaxvars saves through Orbax, and those of other Orbax users."""

import asyncio
import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats import orbax_layout, orbax_record
from jaxvars.checkpoint.formats.orbax import OrbaxSource
from jaxvars.errors import DataLossError, FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.spec import Hole, VariableSpec


def mesh():
    return Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))


def state():
    sharding = NamedSharding(mesh(), P("x", "y"))
    values = {
        "z/w": jax.device_put(jnp.arange(32.0).reshape(8, 4), sharding),
        "a": jnp.zeros((0, 3)),
        "a/b": jnp.array([1.5, -2], jnp.bfloat16),
        "a.b": jnp.array([[1, -2]]),
        "flags": jnp.array([True, False]),
        "rng": jax.random.split(jax.random.key(7), 3),
        "step": jnp.int32(5),
        "../é %2F:": jnp.float16(3),
    }
    notes = {
        "step": (False, ("variables", "global_step"), "/cpu:0"),
        "z/w": (True, ("variables", "trainable_variables"), P("x", ("y",), None)),
        "flags": (False, ("local_variables",), None),
    }
    plain = (True, ("variables", "trainable_variables"), None)
    return jv.Variables.from_specs(
        (VariableSpec(name, value.shape, value.dtype, *notes.get(name, plain)), value) for name, value in values.items()
    )


def holes(variables):
    return jv.Variables.from_specs((spec, Hole(spec.shape, spec.dtype)) for spec in variables.variable_specs.values())


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        if name == "rng":
            found_data, data = jax.random.key_data(found[name]), jax.random.key_data(value)
        else:
            found_data, data = found[name], value
        assert np.asarray(found_data).tobytes() == np.asarray(data).tobytes()


def test_variables_come_back_whole(tmp_path):
    variables = state()
    path = checkpoint.save(variables, tmp_path / "run" / "model.ckpt")
    assert path == str(tmp_path / "run" / "model.ckpt")
    assert_same(checkpoint.restore(path, holes(variables)), variables)
    with checkpoint.open(path) as reader:
        assert reader.format == "orbax" and list(reader) == list(variables)
        for name, spec in variables.variable_specs.items():
            assert reader.variable_specs[name] == spec
            assert reader.variable_specs[name].placement == spec.placement
        assert np.asarray(reader["a/b"]).dtype == jnp.bfloat16
        assert reader["rng"].shape == (3, 2) and np.asarray(reader["a"]).shape == (0, 3)
        assert reader.tensors["rng"].type_name == "key<fry>"


def test_plain_orbax_reads_the_arrays(tmp_path):
    from orbax.checkpoint import v1 as ocp

    path = checkpoint.save(state(), tmp_path / "m")
    target = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=NamedSharding(mesh(), P(None, "x")))
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        loaded = ocp.load(path, {"z/w": target, "step": np.zeros((), np.int32)})
    assert loaded["z/w"].sharding == target.sharding and loaded["step"] == 5
    np.testing.assert_array_equal(loaded["z/w"], np.arange(32.0).reshape(8, 4))


def test_saving_leaves_nothing_but_the_checkpoint(tmp_path):
    checkpoint.save(state(), tmp_path / "m")
    checkpoint.save(state(), tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("spec", [P(), P("y"), P("y", "x"), P(("x", "y"))])
def test_values_land_on_the_targets_sharding(tmp_path, spec):
    path = checkpoint.save(state(), tmp_path / "m")
    sharding = NamedSharding(mesh(), spec)
    into = jv.Variables({"z/w": Hole((8, 4), jnp.float32, sharding=sharding)})
    assert checkpoint.restore(path, into)["z/w"].sharding == sharding
    direct = OrbaxSource(path).read_onto({"z/w": into["z/w"]})["z/w"]
    assert direct.sharding == sharding
    np.testing.assert_array_equal(direct, np.arange(32.0).reshape(8, 4))


def test_a_value_is_replaced_where_it_lies(tmp_path):
    path = checkpoint.save(state(), tmp_path / "m")
    device = jax.devices()[3]
    into = jv.Variables({"step": jax.device_put(jnp.int32(0), device), "flags": jnp.zeros(2, bool)})
    restored = checkpoint.restore(path, into)
    assert restored["step"].devices() == {device} and restored["step"].committed
    assert not restored["flags"].committed


def foreign_tree():
    return {
        "params": {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}},
        "opt": [jnp.ones(2), (jnp.zeros(()), 3)],
        "step": 5,
    }


FOREIGN = {
    "opt/0": (2,),
    "opt/1/0": (),
    "opt/1/1": (),
    "params/dense/bias": (3,),
    "params/dense/kernel": (2, 3),
    "step": (),
}


def write_v1(path):
    from orbax.checkpoint import v1 as ocp

    ocp.save(path, foreign_tree())
    return path


def write_standard(path):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, foreign_tree())
    return path


def write_step(path):
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(path) as manager:
        manager.save(3, args=ocp.args.StandardSave(foreign_tree()))
        manager.wait_until_finished()
    return os.path.join(path, "3")


def write_item(path):
    return os.path.join(write_step(path), "default")


@pytest.mark.parametrize("write", [write_v1, write_standard, write_step, write_item])
def test_trees_of_other_programs_are_read_as_flat_names(tmp_path, write):
    path = write(str(tmp_path / "other"))
    with checkpoint.open(path) as reader:
        assert {name: reader[name].shape for name in reader} == FOREIGN
        assert np.asarray(reader["step"]) == 5 and np.asarray(reader["opt/1/1"]) == 3
        np.testing.assert_array_equal(reader["params/dense/kernel"], np.ones((2, 3)))
    into = jv.Variables({"net/kernel": jax.ShapeDtypeStruct((2, 3), "float32")})
    restored = checkpoint.restore(path, into, rules=[(r"net/(.*)", r"params/dense/\1")])
    np.testing.assert_array_equal(restored["net/kernel"], np.ones((2, 3)))


def test_several_trees_in_one_checkpoint_keep_their_names_in_front(tmp_path):
    from orbax.checkpoint import v1 as ocp

    ocp.save_checkpointables(tmp_path / "c", {"net": {"w": jnp.ones(2)}, "opt": {"w": jnp.zeros(3)}})
    with checkpoint.open(tmp_path / "c") as reader:
        assert {name: reader[name].shape for name in reader} == {"net/w": (2,), "opt/w": (3,)}
        assert dict(reader.source.read_many(reader))["net/w"].tolist() == [1, 1]


def test_values_that_are_no_arrays_are_listed_as_unreadable(tmp_path):
    from orbax.checkpoint import v1 as ocp

    ocp.save(tmp_path / "m", {"text": "hello", "w": jnp.ones(2)})
    with checkpoint.open(tmp_path / "m") as reader:
        assert list(reader) == ["text", "w"] and list(reader.variable_specs) == ["w"]
        with pytest.raises(InvalidArgumentError, match=r"'text'.*str"):
            reader.get_tensor("text")


def test_two_values_of_one_flat_name_are_refused(tmp_path):
    from orbax.checkpoint import v1 as ocp

    ocp.save(tmp_path / "m", {"a/b": jnp.ones(2), "a": {"b": jnp.zeros(2)}})
    with pytest.raises(InvalidArgumentError, match="both called 'a/b'"):
        checkpoint.open(tmp_path / "m")


def test_a_folder_of_steps_names_the_latest(tmp_path):
    write_step(str(tmp_path / "run"))
    with pytest.raises(InvalidArgumentError, match=r"folder of Orbax checkpoints: 3\. Open one: '.*run/3'"):
        checkpoint.open(tmp_path / "run")


# Damage


def all_files(path):
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def test_flipped_bits_are_detected_or_harmless(tmp_path):
    variables = jv.Variables({"w": jnp.arange(300.0), "b": jnp.ones(3, jnp.bfloat16)})
    path = checkpoint.save(variables, tmp_path / "m")
    random = np.random.default_rng(0)
    files = [file for file in all_files(path) if os.path.getsize(file)]
    detected = 0
    for trial in range(60):
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
    assert detected > 10
    assert_same(checkpoint.restore(path, holes(variables)), variables)


def test_a_changed_value_is_named(tmp_path):
    variables = jv.Variables({"w": jnp.full(5000, 1.25)})
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
