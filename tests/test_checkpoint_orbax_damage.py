"""Orbax checkpoints that are damaged, cut short, replaced or removed: never a wrong value, always a clear error."""

import os
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import assert_same, holes, state

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats import orbax_calls, orbax_packing, orbax_record, orbax_save
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.errors import DataLossError, InvalidArgumentError, JaxvarsError, NotFoundError

PACKED = "variables.jaxvars"


def all_files(path):
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def everything(path):
    """All that a checkpoint says: names, shapes, dtypes, flags, notes, values."""
    with checkpoint.open(path) as reader:
        specs = reader.variable_specs
        values = dict(reader.source.read_many(list(reader)))
        return [
            (name, specs[name], specs[name].placement, values[name].shape, values[name].dtype, values[name].tobytes())
            for name in sorted(values)
        ]


@pytest.fixture
def hasty(monkeypatch):
    """Errors of Orbax without the pause in which the other reads end."""

    class NoCollection:
        @staticmethod
        def collect():
            pass

    monkeypatch.setattr(orbax_calls, "_SETTLE_SECONDS", 0)
    monkeypatch.setattr(orbax_calls, "gc", NoCollection)


def flip(file, place, path, expected):
    """Whether one flipped bit is noticed; it may not change anything unnoticed."""
    with open(file, "r+b") as stream:
        stream.seek(place // 8)
        before = stream.read(1)
        stream.seek(place // 8)
        stream.write(bytes([before[0] ^ 1 << place % 8]))
    try:
        try:
            found = everything(path)
        except JaxvarsError:
            return True
        assert found == expected, (file, place)
        return False
    finally:
        with open(file, "r+b") as stream:
            stream.seek(place // 8)
            stream.write(before)


def small_checkpoint(tmp_path, monkeypatch):
    """Packed, unpacked, empty, keys, bfloat16, in about 2,000 bytes."""
    monkeypatch.setattr(orbax_save, "LARGEST_PACKED", 24)
    variables = jv.Variables(
        {
            "w": jnp.arange(8.0).reshape(4, 2),
            "empty": jnp.zeros((0, 3)),
            "half": jnp.array([1.5, -2], jnp.bfloat16),
            "key": jax.random.key(7),
            "flags": jnp.array([True, False]),
            "step": jnp.int32(5),
        }
    )
    return checkpoint.save(variables, tmp_path / "m")


@pytest.mark.parametrize("step", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_flipped_bits_are_detected_or_harmless(tmp_path, monkeypatch, hasty, step):
    path = small_checkpoint(tmp_path, monkeypatch)
    expected = everything(path)
    random = np.random.default_rng(0)
    flips = detected = 0
    for file in all_files(path):
        size = 8 * os.path.getsize(file)
        if os.path.basename(file) == PACKED:
            places = range(0, size, step)
            assert all(flip(file, place, path, expected) for place in places)
        else:
            places = [8 * octet + int(random.integers(8)) for octet in range(0, size // 8, step)]
            detected += sum(flip(file, place, path, expected) for place in places)
        flips += len(places)
    assert flips > 100 and detected > 15
    assert everything(path) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what `hasty` does not wait for
def test_flipped_bits_of_a_larger_checkpoint(tmp_path, hasty):
    random = np.random.default_rng(1)
    variables = {f"large{number}": random.normal(size=20_000) for number in range(3)}
    variables |= {f"small/{number}": random.normal(size=number) for number in range(200)}
    path = checkpoint.save(
        jv.Variables({name: jnp.float32(value) for name, value in variables.items()}), tmp_path / "m"
    )
    expected = everything(path)
    files = [file for file in all_files(path) if os.path.getsize(file)]
    sizes = np.array([os.path.getsize(file) for file in files])
    detected = 0
    for trial in range(2000):
        # Half of them anywhere, half in each file alike: most bytes are values.
        number = random.choice(len(files), p=sizes / sizes.sum()) if trial % 2 else trial // 2 % len(files)
        detected += flip(files[number], int(random.integers(8 * sizes[number])), path, expected)
    assert detected > 1000


def test_a_changed_value_is_named(tmp_path):
    variables = jv.Variables({"large": jnp.full(50_000, 1.25, jnp.float32), "small": jnp.full(50, 2.25, jnp.float32)})
    path = checkpoint.save(variables, tmp_path / "m")
    for value in (1.25, 2.25):
        pattern = np.float32(value).tobytes() * 4
        for file in all_files(path):
            with open(file, "r+b") as stream:
                data = stream.read()
                if pattern in data:
                    stream.seek(data.index(pattern))
                    stream.write(np.float32(1.5).tobytes())
    for name in variables:
        with pytest.raises(DataLossError, match=f"values of '{name}' do not match their checksum"):
            checkpoint.restore(path, holes(variables.select(name)))


def test_a_file_of_small_variables_that_is_cut_short_or_gone(tmp_path):
    path = checkpoint.save(state(), tmp_path / "m")
    file = tmp_path / "m" / PACKED
    data = file.read_bytes()
    for size in (0, 1, 31, 32, 40, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(DataLossError, match=rf"{PACKED} is damaged"):
            checkpoint.open(path)
    file.write_bytes(data + b"\0")
    with pytest.raises(DataLossError, match="damaged"):
        checkpoint.open(path)
    file.unlink()
    with pytest.raises(DataLossError, match=rf"damaged: {PACKED} is missing"):
        checkpoint.open(path)
    checkpoint.save(state(), path)  # a damaged checkpoint of ours may be replaced
    assert_same(checkpoint.restore(path, holes(state())), state())


def write_packed(file, record, values=b"", length=None):
    numbers = struct.pack("<QQ", len(values), len(record) if length is None else length)
    checksum = struct.pack("<I", crc32c(record + numbers))
    file.write_bytes(values + record + numbers + checksum + b"jaxvars pack")


def test_records_that_make_no_sense(tmp_path):
    path = checkpoint.save(jv.Variables({"a": jnp.ones(3)}), tmp_path / "m")
    file = tmp_path / "m" / PACKED
    write_packed(file, b"{}", length=1 << 62)
    with pytest.raises(DataLossError, match="damaged"):
        checkpoint.open(path)
    for record in (b"", b"[]", b"\xff", b"{" * 99_999, b'{"version": 2}', b'{"version": "2", "variables": {}}'):
        write_packed(file, record)
        with pytest.raises(DataLossError, match="damaged: its record of variables"):
            checkpoint.open(path)
    write_packed(file, b'{"version": 99, "variables": 0}')
    with pytest.raises(InvalidArgumentError, match=r"newer jaxvars \(record version 99\)"):
        checkpoint.open(path)
    beginning = b'{"version": 2, "variables": {"a": {"shape": [3], "dtype": "float32", "crc32c": 1, '
    for fields in (
        b'"at": -4}}}',
        b'"at": "there"}}}',
        b'"at": "empty"}}}',
        b'"partition": 3}}}',
        b'"placement": 3}}}',
    ):
        write_packed(file, beginning + fields)
        with pytest.raises(DataLossError, match="record of variable 'a' makes no sense"):
            checkpoint.open(path).get_tensor("a")
    for at, shape in (("0", "[3]"), ("999999999999", "[3]"), ("0", "[99999999999, 9999999]")):
        write_packed(file, (beginning.decode().replace("[3]", shape) + f'"at": {at}}}}}}}').encode(), b"12345678")
        with pytest.raises(DataLossError, match="'a' should lie beyond its values"):
            np.asarray(checkpoint.open(path)["a"])


def test_a_changed_record_in_metadata_is_detected():
    spec = jv.Variables({"a": jnp.ones(3, jnp.float32)}).variable_specs["a"]
    entry = orbax_record.Entry(spec, (3,), np.dtype("f4"), 5)
    record = orbax_record.encode_record([entry])
    assert orbax_record.decode_record(record, "it") == {"a": entry}
    record["jaxvars"]["variables"]["a"]["trainable"] = False
    with pytest.raises(DataLossError, match="does not match its checksum"):
        orbax_record.decode_record(record, "it")
    record = orbax_record.encode_record([])
    record["jaxvars"]["version"] = 99
    with pytest.raises(InvalidArgumentError, match="newer jaxvars"):
        orbax_record.decode_record(record, "it")


def test_damaged_metadata_of_orbax_goes_unheard_where_it_does_no_harm(tmp_path, caplog):
    path = checkpoint.save(state(), tmp_path / "m")
    file = tmp_path / "m" / "_CHECKPOINT_METADATA"
    for text in (file.read_text()[:-4], "[]"):
        file.write_text(text)
        assert_same(checkpoint.restore(path, holes(state())), state())
    assert not caplog.records


def test_a_missing_data_file_is_one_short_error(tmp_path):
    path = checkpoint.save(state(), tmp_path / "m")
    for file in all_files(path):
        if f"{os.sep}d{os.sep}" in file:
            os.unlink(file)
    with pytest.raises(DataLossError) as caught:
        checkpoint.restore(path, holes(state()))
    assert path in str(caught.value) and len(str(caught.value)) < 700 and caught.value.__cause__ is None


def test_a_checkpoint_that_is_replaced_or_removed_while_it_is_read(tmp_path):
    old = jv.Variables({"large": jnp.zeros(50_000), "small": jnp.zeros(3)})
    path = checkpoint.save(old, tmp_path / "m")
    with checkpoint.open(path) as reader:
        checkpoint.save(jv.Variables({"large": jnp.ones(50_000), "small": jnp.ones(3)}), path)
        assert reader.get_tensor("small").tolist() == [0, 0, 0]
        with pytest.raises(DataLossError, match=r"m was replaced or removed while it was being read. Read it again"):
            reader.get_tensor("large")
    with checkpoint.open(path) as reader:
        shutil.rmtree(path)
        assert reader.get_tensor("small").tolist() == [1, 1, 1]
        with pytest.raises(DataLossError, match="was replaced or removed"):
            reader.get_tensor("large")
    with pytest.raises(NotFoundError):
        orbax_packing.PackedFile(path)
    with pytest.raises(NotFoundError, match="does not exist"):
        jv.checkpoint.formats.orbax.OrbaxSource(path)
