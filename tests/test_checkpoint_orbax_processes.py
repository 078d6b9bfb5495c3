"""Checkpoints that two processes save together, of arrays that neither holds whole."""

import os

import jax
import numpy as np
import pytest
from checkpoint_states import mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from processes import run_processes

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats.orbax import OrbaxSource
from jaxvars.checkpoint.formats.orbax_pieces import bounds_of, pieces_match
from jaxvars.errors import DataLossError

VALUES = {
    "large": np.arange(80_000, dtype=np.float32).reshape(400, 200),
    "spread": np.arange(8, dtype=np.float32),
    "everywhere": np.arange(30_000, dtype=np.float32),
    "small": np.full(4, 3, np.float32),
}
SPECS = {"large": P("x"), "spread": P("x"), "everywhere": P(), "small": P()}


def test_pieces_are_checked_where_they_are_read_whole():
    value = np.arange(12.0).reshape(4, 3)
    pieces = [(((0, 2), (0, 3)), 1), (((2, 4), (0, 3)), 2)]
    assert not pieces_match(pieces, value, ((0, 4), (0, 3)))
    assert not pieces_match(pieces, value[2:], ((2, 4), (0, 3)))
    assert pieces_match(pieces, value[1:3], ((1, 3), (0, 3))) and pieces_match(pieces, value[:, :1], ((0, 4), (0, 1)))
    assert bounds_of((slice(2, 4), slice(None)), value.shape) == pieces[1][0]


def work(folder):
    """What each of the two processes does."""
    number = jax.process_index()
    devices = jax.sharding.Mesh(np.array(jax.devices()), ("x",))

    def placed(name, spec):
        value = VALUES[name]
        return jax.make_array_from_callback(value.shape, NamedSharding(devices, spec), value.__getitem__)

    variables = jv.Variables({name: placed(name, spec) for name, spec in SPECS.items()} | {"step": jax.numpy.int32(5)})
    path = checkpoint.save(variables, f"{folder}/m")
    assert checkpoint.save(variables, path) == path
    into = {"large": P(None, "x"), "spread": P(), "everywhere": P("x"), "small": P("x")}
    for specs in (into, SPECS):
        targets = {name: NamedSharding(devices, spec) for name, spec in specs.items()}
        holes = {name: jv.spec.Hole(VALUES[name].shape, "float32", sharding=targets[name]) for name in specs}
        restored = checkpoint.restore(path, jv.Variables(holes))
        for name, value in VALUES.items():
            assert restored[name].sharding == targets[name]
            for shard in restored[name].addressable_shards:
                np.testing.assert_array_equal(np.asarray(shard.data), value[shard.index])
    if not number:
        os.rename = refuse
    try:
        checkpoint.save(variables, path)
    except jv.errors.FailedPreconditionError as error:
        assert ("No space left" if not number else "another process failed") in str(error), error
    else:
        raise AssertionError("a failed save passes for a good one")


def refuse(source, target, real=os.rename):
    if "jaxvars-previous" in target:
        raise OSError(28, "No space left on device")
    real(source, target)


@pytest.mark.slow
def test_two_processes_save_and_restore_together(tmp_path, monkeypatch):
    run_processes(work, 2, str(tmp_path))
    assert os.listdir(tmp_path) == ["m"]
    path = str(tmp_path / "m")
    source = OrbaxSource(path)
    for name, value in source.read_many(VALUES):
        np.testing.assert_array_equal(value, VALUES[name])
    # One changed value: found when the array is read whole, and when its piece is.
    for file in (tmp_path / "m" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(np.float32(79_999).tobytes(), np.float32(1).tobytes()))
    with pytest.raises(DataLossError, match="values of 'large' do not match"):
        source.read("large")
    monkeypatch.setattr("jaxvars.checkpoint.shard_reading._WORTH_BYTES", 0)
    for rows in (P(("x", "y")), P("x")):
        hole = jv.spec.Hole((400, 200), "float32", sharding=NamedSharding(mesh(), rows))
        with pytest.raises(DataLossError, match="values of 'large' do not match"):
            checkpoint.restore(path, jv.Variables({"large": hole}))
