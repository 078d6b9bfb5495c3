"""Checkpoints that jaxvars saves through Orbax, and those of other Orbax users."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import assert_same, foreign_tree, holes, mesh, state, write_v1
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats import orbax_save
from jaxvars.checkpoint.formats.orbax import OrbaxSource
from jaxvars.checkpoint.formats.orbax_packing import LARGEST_PACKED
from jaxvars.errors import InvalidArgumentError
from jaxvars.spec import Hole


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


@pytest.mark.parametrize("listed", [True, False])
def test_plain_orbax_reads_the_arrays(tmp_path, monkeypatch, listed):
    """Also where the devices of all arrays together are too many to be listed."""
    from orbax.checkpoint import v1 as ocp

    spread = NamedSharding(mesh(), P("x"))
    variables = state().to({"z/w": spread})
    devices = sum(len(value.devices()) for value in variables.values() if value.nbytes > LARGEST_PACKED)
    monkeypatch.setattr(orbax_save, "_MOST_LISTED_DEVICES", devices if listed else devices - 1)
    path = checkpoint.save(variables, tmp_path / "m")
    assert os.path.exists(os.path.join(path, "state", "_sharding")) == listed
    assert_same(checkpoint.restore(path, variables), variables)
    target = jax.ShapeDtypeStruct((256, 128), jnp.float32, sharding=NamedSharding(mesh(), P(None, "x")))
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        loaded = ocp.load(path, {"z/w": target})
    assert loaded["z/w"].sharding == target.sharding
    np.testing.assert_array_equal(loaded["z/w"], np.arange(32768.0).reshape(256, 128))


def test_saving_leaves_nothing_but_the_checkpoint(tmp_path):
    checkpoint.save(state(), tmp_path / "m")
    checkpoint.save(state(), tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("spec", [P(), P("y"), P("y", "x"), P(("x", "y"))])
def test_values_land_on_the_targets_sharding(tmp_path, spec):
    path = checkpoint.save(state(), tmp_path / "m")
    sharding = NamedSharding(mesh(), spec)
    into = jv.Variables({"z/w": Hole((256, 128), jnp.float32, sharding=sharding)})
    assert checkpoint.restore(path, into)["z/w"].sharding == sharding
    direct = OrbaxSource(path).read_onto({"z/w": into["z/w"]})["z/w"]
    assert direct.sharding == sharding
    np.testing.assert_array_equal(direct, np.arange(32768.0).reshape(256, 128))


def test_a_value_is_replaced_where_it_lies(tmp_path):
    path = checkpoint.save(state(), tmp_path / "m")
    device = jax.devices()[3]
    into = jv.Variables({"step": jax.device_put(jnp.int32(0), device), "flags": jnp.zeros(2, bool)})
    restored = checkpoint.restore(path, into)
    assert restored["step"].devices() == {device} and restored["step"].committed
    assert not restored["flags"].committed


FOREIGN = {
    "opt/0": (2,),
    "opt/1/0": (),
    "opt/1/1": (),
    "params/dense/bias": (3,),
    "params/dense/kernel": (2, 3),
    "step": (),
}


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
    into = jv.Variables({"net/kernel": jax.ShapeDtypeStruct((2, 3), np.float32)})
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
