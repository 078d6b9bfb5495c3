"""Checksums, varints, snappy, and the table file that TensorFlow's checkpoints are made of."""

import contextlib

import bundle_writer as writer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvars.checkpoint.formats import crc32c as crc_module
from jaxvars.checkpoint.formats import protos
from jaxvars.checkpoint.formats.crc32c import crc32c, mask, unmask
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.snappy import decompress
from jaxvars.checkpoint.formats.table import Table
from jaxvars.checkpoint.formats.tensor_slice import TensorSlice, slice_key
from jaxvars.errors import DataLossError, JaxvarsError


def test_crc32c_of_the_published_vectors():
    # RFC 3720, appendix B.4.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4095, 4096, 5000, 70_001, (4 << 20) + 77])
def test_the_numpy_crc32c_gives_what_the_library_gives(size):
    octets = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    cut = size // 3
    whole = crc_module._with_numpy(octets, 0)
    assert crc_module._with_numpy(octets[cut:], crc_module._with_numpy(octets[:cut], 0)) == whole
    assert crc32c(octets) == whole
    if size < 6000:
        assert whole == writer.crc(octets.tobytes())


@given(st.integers(0, 2**32 - 1))
def test_mask_and_unmask_are_inverse(value):
    assert unmask(mask(value)) == value


def test_crc32c_takes_arrays_of_any_shape_and_type():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert crc32c(array) == crc32c(array.tobytes()) == crc32c(memoryview(array.tobytes()))
    assert crc32c(array.T) == crc32c(np.ascontiguousarray(array.T).tobytes())


@given(st.integers(0, 2**64 - 1))
def test_varints_round_trip(value):
    assert protos.read_varint(protos.write_varint(value), 0, "x") == (value, len(protos.write_varint(value)))


@pytest.mark.parametrize("data", [b"\x80", b"\xff" * 11, b"\xff" * 9 + b"\x02"])
def test_bad_varints_raise(data):
    with pytest.raises(DataLossError, match="thing"):
        protos.read_varint(data, 0, "thing")


@given(st.binary(max_size=60))
def test_any_bytes_as_a_message_give_fields_or_our_error(data):
    try:
        list(protos.fields(data, "thing"))
    except DataLossError as error:
        assert "thing is damaged" in str(error)


@given(st.binary(max_size=400), st.integers(1, 40))
def test_snappy_round_trips(data, repeats):
    data = data * repeats
    assert decompress(writer.snappy(data), "block") == data


def test_snappy_reads_every_kind_of_element():
    long_literal = bytes([60 << 2, 99]) + bytes(100)
    copies = bytes([(4 - 4) << 2 | 1, 3]) + bytes([(5 - 1) << 2 | 3, 7, 0, 0, 0])
    data = b"abcdefg"
    packed = protos.write_varint(7 + 100 + 4 + 5) + bytes([(7 - 1) << 2]) + data + long_literal + copies
    assert decompress(packed, "block") == data + bytes(100) + bytes(4) + bytes(5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05",
        b"\x05\x10ab",  # a literal that runs past the end
        b"\x04\x01\x09",  # a copy from before the start
        b"\x04\x02\x01",  # a copy whose distance is cut
        b"\x02\x08abc",  # more than it claims
        b"\xff\xff\xff\xff\x0f\x00a",  # a length bomb
        b"\x04\xfc\xff\xff\xff\xff",  # a literal of 4 GB
    ],
)
def test_bad_snappy_raises(data):
    with pytest.raises(DataLossError, match="block"):
        decompress(data, "block")


@given(st.binary(max_size=80))
def test_any_bytes_as_snappy_give_bytes_or_our_error(data):
    with contextlib.suppress(DataLossError):
        decompress(data, "block")


ENTRIES = [(f"scope/name_{i:03d}".encode(), bytes([i]) * (i % 7)) for i in range(50)]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("per_block", [1, 4, 100])
def test_a_table_gives_back_its_entries(tmp_path, compress, per_block):
    path = tmp_path / "t"
    path.write_bytes(writer.table(ENTRIES, per_block, compress))
    with RangedFile(str(path)) as file:
        table = Table(file)
        assert list(table.entries()) == ENTRIES
        assert table.get(b"scope/name_007") == bytes([7]) * 0
        assert table.get(b"scope/name_013") == bytes([13]) * 6
        assert table.get(b"scope/name_0131") is None
        assert table.get(b"zzz") is None


def read_all(path):
    with RangedFile(str(path)) as file:
        return list(Table(file).entries())


@pytest.mark.parametrize("compress", [False, True])
def test_every_flipped_bit_of_a_table_is_detected_or_harmless(tmp_path, compress):
    data = writer.table(ENTRIES[:9], 4, compress)
    path = tmp_path / "t"
    harmless = 0
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            try:
                assert read_all(path) == ENTRIES[:9]
                harmless += 1
            except DataLossError as error:
                assert str(path) in str(error)
    # Only the unused metaindex block and the padding of the footer may change unseen.
    assert harmless < 8 * 60


def test_every_truncation_of_a_table_raises(tmp_path):
    data = writer.table(ENTRIES[:9])
    path = tmp_path / "t"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(DataLossError, match=r"cut short|not a TensorFlow table|damaged"):
            read_all(path)


def framed(index):
    """A table that is only an index block, rightly checksummed."""
    raw = index + b"\0" + writer.masked(index + b"\0").to_bytes(4, "little")
    return raw + (b"\0\0" + writer.varint(0) + writer.varint(len(index))).ljust(40, b"\0") + writer.MAGIC


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"\xff\xff\xff\xff",  # four billion restart points
        writer.block([(b"a", writer.varint(1 << 60) + writer.varint(1 << 60))]),
        writer.block([(b"a", writer.varint(0) + writer.varint(4)), (b"b", writer.varint(0) + writer.varint(4))]),
        b"\x00\x05\xff\xff\xff\xff\x0fabc" + bytes(8),  # a value of 4 GB
        b"\x09\x01\x01ab" + bytes(8),  # shares more than there is
    ],
)
def test_hostile_tables_raise_before_memory_is_taken(tmp_path, index):
    path = tmp_path / "t"
    path.write_bytes(framed(index))
    with pytest.raises(DataLossError):
        read_all(path)


def test_keys_that_expand_without_end_raise(tmp_path):
    # Each entry takes four bytes and shares a key of 60 KB.
    first = b"\x00" + writer.varint(60_000) + b"\x00" + b"k" * 60_000
    more = b"".join(writer.varint(60_000) + b"\x01\x00" + bytes([i % 251]) for i in range(20_000))
    path = tmp_path / "t"
    body = first + more + bytes(4) + b"\x01\0\0\0"
    check = crc32c(body + b"\0")
    data = body + b"\0" + mask(check).to_bytes(4, "little")
    index = writer.block([(b"\xff", writer.varint(0) + writer.varint(len(body)))])
    place = len(data)
    data += index + b"\0" + writer.masked(index + b"\0").to_bytes(4, "little")
    footer = b"\0\0" + writer.varint(place) + writer.varint(len(index))
    path.write_bytes(data + footer.ljust(40, b"\0") + writer.MAGIC)
    with pytest.raises(DataLossError):
        read_all(path)


def test_slice_keys_as_tensorflow_encodes_them():
    assert slice_key(b"emb", TensorSlice(((60, 8140), (0, -1)))).hex() == "00656d6200010102bcdfcc807f"
    assert slice_key(b"a\x00\xff", TensorSlice(())) == b"\x00a\x00\xff\xff\x00\x00\x01\x00"
    assert slice_key(b"n", TensorSlice(((63, 64),))) == writer.slice_key("n", [])[:-1] + b"\x01\x01\xbf\xc0\x40"


def test_a_file_that_is_replaced_by_a_shorter_one_raises(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    with RangedFile(str(path)) as file:
        with open(path, "r+b") as other:
            other.truncate(10)
        with pytest.raises(DataLossError, match="became shorter"):
            file.read(0, 100, "it")
    with pytest.raises(JaxvarsError, match="does not exist"):
        RangedFile(str(tmp_path / "none"))
