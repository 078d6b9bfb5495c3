"""What jaxvars adds to Orbax checkpoints: the file of small variables, and the record of all."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from checkpoint_states import assert_same, holes, state
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats import files, orbax_packing, orbax_save
from jaxvars.checkpoint.formats.orbax import OrbaxSource
from jaxvars.checkpoint.formats.orbax_save import save_orbax
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.errors import InvalidArgumentError
from jaxvars.spec import VariableSpec

GOLDEN = Path(__file__).parent / "golden" / "orbax_v1" / "model.ckpt"
NAMES = ["../../x", "a.b", "a/b", "a", "%2F", "x/.ATTRIBUTES/VARIABLE_VALUE", ".", "..", "a//b", "_METADATA", "state"]
NAMES += ["manifest.ocdbt", "jaxvars", "variables.jaxvars", "日本/é", "n" * 300, "with space", "nul\0", "line\nbreak"]


def outgoing(values):
    return [Outgoing(VariableSpec(name, value.shape, value.dtype), value) for name, value in values.items()]


def read_all(path):
    with checkpoint.open(path) as reader:
        return dict(reader.source.read_many(list(reader)))


def test_checkpoints_of_record_version_1_are_read(without_x64):
    variables = state((8, 4))
    assert_same(checkpoint.restore(GOLDEN, holes(variables)), variables)
    with checkpoint.open(GOLDEN) as reader:
        assert {name: (spec, spec.placement) for name, spec in reader.variable_specs.items()} == {
            name: (spec, spec.placement) for name, spec in variables.variable_specs.items()
        }


@pytest.mark.parametrize("largest", [orbax_packing.LARGEST_PACKED, 0])
def test_odd_names_stay_in_the_folder(tmp_path, monkeypatch, largest):
    monkeypatch.setattr(orbax_save, "LARGEST_PACKED", largest)
    variables = jv.Variables({name: jnp.full(3, float(number)) for number, name in enumerate(NAMES)})
    path = checkpoint.save(variables, tmp_path / "in" / "ner" / "m")
    assert os.listdir(tmp_path) == ["in"] and os.listdir(tmp_path / "in") == ["ner"]
    assert os.listdir(tmp_path / "in" / "ner") == ["m"]
    assert_same(checkpoint.restore(path, holes(variables)), variables)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"cannot hold the name '\\ud800'"):
        checkpoint.save(jv.Variables({"\ud800": jnp.ones(3)}), tmp_path / "m")
    assert not os.listdir(tmp_path)


def test_values_of_every_dtype_and_size_come_back(tmp_path):
    dtypes = ["bool", "int8", "uint64", "int64", "float16", "float64", "complex128"]
    dtypes += [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]
    bound = orbax_packing.LARGEST_PACKED
    values = {
        f"{np.dtype(dtype).name}/{size}": (np.arange(size) % 7 - 3).astype(dtype)
        for dtype in dtypes
        for size in (0, 1, 3, bound // np.dtype(dtype).itemsize, bound // np.dtype(dtype).itemsize + 1)
    }
    values |= {"scalar": np.float64(0.1).reshape(()), "nothing": np.zeros((2, 0, 3), "int16")}
    values["turned"] = np.arange(12.0).reshape(3, 4).T
    items = outgoing(values)
    items[0] = Outgoing(items[0].spec, lambda: next(iter(values.values())))
    save_orbax(items, str(tmp_path / "m"))
    found = read_all(tmp_path / "m")
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()
    entries = OrbaxSource(str(tmp_path / "m"))._entries
    assert entries is not None
    packed = {name for name, entry in entries.items() if entry.at != ""}
    assert packed == {name for name, value in values.items() if value.nbytes <= bound}


def test_a_value_that_is_not_what_its_spec_says_is_refused(tmp_path):
    for value in (np.ones(3, "f8"), np.ones(4, "f4"), jnp.ones(3, "int32")):
        with pytest.raises(InvalidArgumentError, match=r"Cannot save 'a': its value is .* but the variable is float32"):
            save_orbax([Outgoing(VariableSpec("a", (3,), "float32"), value)], str(tmp_path / "m"))
    with pytest.raises(InvalidArgumentError, match="An Orbax checkpoint cannot hold strings: s"):
        save_orbax(outgoing({"s": np.array([b"x"], object)}), str(tmp_path / "m"))
    assert not os.listdir(tmp_path)


def test_notes_come_back(tmp_path):
    specs = [
        VariableSpec("step", (), "int32", False, file_dtype="int64"),
        VariableSpec("table", (6, 2), "float32", partition=(0, 3), placement=P(None, ("x", "y"))),
        VariableSpec("plain", (2,), "float32"),
    ]
    variables = jv.Variables.from_specs((spec, jnp.zeros(spec.shape, spec.dtype)) for spec in specs)
    path = checkpoint.save(variables, tmp_path / "m")
    found = checkpoint.open(path).variable_specs
    for spec in specs:
        for note in ("file_dtype", "partition", "placement", "trainable", "collections"):
            assert getattr(found[spec.key], note) == getattr(spec, note)
    record = (tmp_path / "m" / "variables.jaxvars").read_bytes()
    assert record.count(b"file_dtype") == 1 and record.count(b"partition") == 1 and record.count(b'trainable":') == 1


def test_a_few_of_many_variables_read_little(tmp_path, monkeypatch):
    values = {f"model/layer_{number}/dense/kernel": np.full(250, number, "f4") for number in range(2000)}
    save_orbax(outgoing(values), str(tmp_path / "m"))
    assert os.path.getsize(tmp_path / "m" / "variables.jaxvars") < 2000 * (1000 + 150)
    reads = []
    real = files.RangedFile.read_array

    def read_array(self, offset, size, what):
        reads.append(size)
        return real(self, offset, size, what)

    monkeypatch.setattr(files.RangedFile, "read_array", read_array)
    with checkpoint.open(tmp_path / "m") as reader:
        reads.clear()
        names = [f"model/layer_{number}/dense/kernel" for number in (1999, 7, 8, 9, 0)]
        found = dict(reader.source.read_many(names))
        assert sorted(reads) == [1000, 1000, 3000]  # neighbors at once
        assert all((found[name] == values[name]).all() for name in names)


def test_listing_and_small_variables_need_no_orbax(tmp_path):
    path = checkpoint.save(jv.Variables({"b": jnp.arange(3.0), "a": jnp.zeros((0, 2))}), tmp_path / "m")
    code = """
import sys
import jaxvars as jv
with jv.checkpoint.open(sys.argv[1]) as reader:
    print(list(reader), reader["b"].shape, reader.get_tensor("b").tolist(), "orbax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "['a', 'b'] (3,) [0.0, 1.0, 2.0] False\n"


def test_names_are_listed_without_decoding_each(tmp_path):
    path = checkpoint.save(state(), tmp_path / "m")
    source = OrbaxSource(path)
    assert source._entries is not None
    assert "z/w" in source.tensors and len(source.tensors) == len(list(source.tensors)) == len(state())
    assert not source._entries._made  # type: ignore[attr-defined]
    assert source.tensors["rng"].type_name == "key<fry>" and "nothing" not in source.tensors
    assert not source._entries._made  # type: ignore[attr-defined]
    source.read("rng")
    assert list(source._entries._made) == ["rng"]  # type: ignore[attr-defined]


def test_plain_orbax_reads_the_large_variables(tmp_path):
    from orbax.checkpoint import v1 as ocp

    values = {"b/w": np.arange(50_000, dtype="f8"), "a.b": np.ones((300, 300), "i4"), "small": np.ones(3)}
    save_orbax(outgoing(values), str(tmp_path / "m"))
    loaded = ocp.load(tmp_path / "m", {"b/w": np.zeros(50_000), "a.b": np.zeros((300, 300), "i4")})
    assert loaded.keys() == {"b/w", "a.b"}
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, values[name])


def test_small_variables_that_are_sharded_land_on_their_sharding(tmp_path, monkeypatch):
    variables = state((8, 4))
    path = checkpoint.save(variables, tmp_path / "m")
    assert OrbaxSource(path).tensors["z/w"].shape == (8, 4)
    restored = checkpoint.restore(path, variables)
    assert restored["z/w"].sharding == variables["z/w"].sharding
    np.testing.assert_array_equal(restored["z/w"], np.arange(32.0).reshape(8, 4))
