"""Restoring sharded variables: of each tensor only the rows that a shard needs are read, and all of it is checked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import mesh
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from placements import skip_without_results_on_the_host

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.stored_parts import Checksum, Span
from jaxvars.checkpoint.shares import Evidence, check_evidence, row_ranges
from jaxvars.errors import DataLossError, InvalidArgumentError
from jaxvars.spec import Hole, VariableSpec

FORMATS = ["orbax", "tf", "safetensors", "npz"]
SPECS = [P("x"), P(("x", "y")), P("y", "x"), P(None, "x"), P(None, None, "y"), P(), P("x", None, "y")]


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr("jaxvars.checkpoint.shard_reading._WORTH_BYTES", 0)


def state():
    return jv.Variables(
        {
            "f": jnp.arange(16 * 4 * 6, dtype=jnp.float32).reshape(16, 4, 6),
            "b": (jnp.arange(16 * 4 * 6) % 7).astype(jnp.bfloat16).reshape(16, 4, 6),
            "flag": (jnp.arange(16 * 4 * 6) % 3 == 0).reshape(16, 4, 6),
            "vector": jnp.arange(20_000, dtype=jnp.int32),
            "scalar": jnp.float32(3),
            "empty": jnp.zeros((0, 4, 4)),
        }
    )


def saved(path, format, partition=None):
    variables = state()
    if partition:
        specs = [
            VariableSpec(
                s.key, s.shape, s.dtype, s.trainable, s.collections, partition=partition if s.key == "f" else None
            )
            for s in variables.variable_specs.values()
        ]
        variables = jv.Variables.from_specs((spec, variables[spec.key]) for spec in specs)
    return variables, checkpoint.save(variables, f"{path}/m.{format}", format=format)


def into(variables, spec, dtypes={}, **options):  # noqa: B006
    def sharding(value):
        fits = len(spec) <= value.ndim and value.size
        return NamedSharding(mesh(), P("x") if value.ndim == 1 else spec if fits else P(), **options)

    return jv.Variables({n: Hole(v.shape, dtypes.get(n, v.dtype), sharding=sharding(v)) for n, v in variables.items()})


def same(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(value), err_msg=name)
        assert found[name].dtype == value.dtype


@pytest.mark.parametrize("format", FORMATS)
def test_shards_are_the_values_whatever_the_layout(tmp_path, format):
    variables, path = saved(tmp_path, format)
    for spec in SPECS:
        holes = into(variables, spec)
        found = checkpoint.restore(path, holes)
        same(found, variables)
        assert all(found[name].sharding == hole.sharding for name, hole in holes.items())


@pytest.mark.parametrize("partition", [(0, 3), (1, 2), (2, 4)])
def test_slices_of_partitioned_variables(tmp_path, partition):
    variables, path = saved(tmp_path, "tf", partition)
    for spec in SPECS:
        same(checkpoint.restore(path, into(variables, spec)), variables)


@pytest.fixture
def reads(monkeypatch):
    sizes = []

    def read_into(self, octets, offset, what, real=RangedFile.read_into):
        sizes.append(octets.size)
        real(self, octets, offset, what)

    monkeypatch.setattr(RangedFile, "read_into", read_into)
    return sizes


@pytest.mark.parametrize("format", ["tf", "safetensors", "npz"])
def test_no_more_is_read_at_once_than_a_shard_and_all_of_it_once(tmp_path, reads, format):
    values = jv.Variables({"w": jnp.arange(1 << 20, dtype=jnp.float32).reshape(1024, 1024)})
    path = checkpoint.save(values, f"{tmp_path}/m.{format}", format=format)
    hole = Hole((1024, 1024), "float32", sharding=NamedSharding(mesh(), P(("x", "y"))))
    reads.clear()
    same(checkpoint.restore(path, jv.Variables({"w": hole})), values)
    assert [size for size in reads if size > 100_000] == [1 << 20] * 4


@pytest.mark.parametrize("format", ["tf", "safetensors", "npz"])
def test_a_process_reads_its_own_rows_only(tmp_path, reads, monkeypatch, format):
    # The first of two processes, which has the first half of the devices.
    values = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)
    path = checkpoint.save(jv.Variables({"w": jnp.asarray(values)}), f"{tmp_path}/m.{format}", format=format)
    sharding = NamedSharding(mesh(), P(("x", "y")))
    mine = dict(list(sharding.addressable_devices_indices_map(values.shape).items())[:2])
    monkeypatch.setattr(NamedSharding, "addressable_devices_indices_map", lambda self, shape: mine)
    monkeypatch.setattr(NamedSharding, "is_fully_addressable", False)
    made = []
    monkeypatch.setattr(jax, "make_array_from_single_device_arrays", lambda *a, dtype: made.append(a[2]) or a[2])
    other = {}

    def told(said, what):
        """What the second process has seen: the other half."""
        with checkpoint.open(path) as reader:
            [part] = reader.source.stored_parts("w")
            theirs = [part.checksum.of(values[row : row + 256].tobytes()) for row in (512, 768)]
        seen = enumerate(other.get("lie", theirs), 2)
        return [said, [[], [(0, 0, number, value) for number, value in seen if value is not None]]]

    monkeypatch.setattr("jaxvars.checkpoint.shares.told_by_all", told)
    reads.clear()
    hole = jv.Variables({"w": Hole(values.shape, "float32", sharding=sharding)})
    checkpoint.restore(path, hole)
    assert [size for size in reads if size > 100_000] == [1 << 20] * 2
    np.testing.assert_array_equal(np.concatenate([np.asarray(shard) for shard in made[0]]), values[:512])
    for lie in ([1, 2], [None, None]):
        other["lie"] = lie
        with pytest.raises(DataLossError, match="values of 'w' do not match"):
            checkpoint.restore(path, hole)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("spec", [P("x"), P(None, "x"), P("y", None, "x")])
def test_damage_is_found(tmp_path, format, spec):
    variables, path = saved(tmp_path, format)
    wanted = np.arange(10_000, 10_004, dtype=np.int32).tobytes()
    touched = 0
    for file in tmp_path.rglob("*"):
        if file.is_file() and wanted in (data := file.read_bytes()):
            file.write_bytes(data.replace(wanted, b"\1" * len(wanted)))
            touched += 1
    assert touched == 1
    with pytest.raises(DataLossError, match=r"do(es)? not match"):
        checkpoint.restore(path, into(variables, spec))


@pytest.mark.parametrize("format", ["tf", "npz"])
def test_conversion_shard_by_shard(tmp_path, format):
    wide = jv.Variables({"w": jnp.arange(32, dtype=jnp.float32).reshape(8, 4) * 1e30})
    path = checkpoint.save(wide, f"{tmp_path}/m.{format}", format=format)
    sharding = NamedSharding(mesh(), P("x"))
    narrow = jv.Variables({"w": Hole((8, 4), "bfloat16", sharding=sharding)})
    found = checkpoint.restore(path, narrow, cast=True)["w"]
    np.testing.assert_array_equal(found, wide["w"].astype(jnp.bfloat16))
    with pytest.raises(InvalidArgumentError, match="do not fit float16"):
        checkpoint.restore(path, jv.Variables({"w": Hole((8, 4), "float16", sharding=sharding)}), cast=True)


@pytest.mark.parametrize("format", FORMATS)
def test_host_memory(tmp_path, format):
    variables, path = saved(tmp_path, format)
    holes = into(variables, P("x"), memory_kind="pinned_host")
    found = checkpoint.restore(path, holes)
    same(found, variables)
    assert {value.sharding.memory_kind for value in found.values()} == {"pinned_host"}
    again = checkpoint.save(found, f"{tmp_path}/again.{format}", format=format)
    same(checkpoint.restore(again, into(variables, P())), variables)


def test_initial_values_in_host_memory():
    skip_without_results_on_the_host()

    def net():
        with jv.device(NamedSharding(mesh(), P("x"), memory_kind="pinned_host")):
            table = jv.get_variable("table", [16, 8], initializer=jv.random_normal_initializer())
            jv.get_variable("zeros", [16, 8], initializer=jv.zeros_initializer())
            jv.get_variable("orthogonal", [16, 8], initializer=jv.orthogonal_initializer())
        return table * 1.0

    def plainly():
        jv.get_variable("table", [16, 8], initializer=jv.random_normal_initializer())
        jv.get_variable("zeros", [16, 8], initializer=jv.zeros_initializer())
        jv.get_variable("orthogonal", [16, 8], initializer=jv.orthogonal_initializer())

    variables = jv.transform(net).init(0)
    same(variables, jv.transform(plainly).init(0))
    assert {value.sharding.memory_kind for value in variables.values()} == {"pinned_host"}
    assert "pinned_host" in str(variables.summary())
    there = variables["table"].sharding
    assigned = jv.assign(variables, "table", jnp.ones((16, 8)))
    assert assigned["table"].sharding == there
    moved = variables.to(NamedSharding(mesh(), P("y")))
    assert moved["table"].sharding.memory_kind == "device"
    assert moved.to(there)["table"].sharding == there


def test_rows_of_devices():
    two = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    rows = functools.partial(lambda spec, shape: row_ranges(NamedSharding(two, spec), shape))
    assert sorted(set(rows(P("a"), (8, 2)).values())) == [(0, 4), (4, 8)]
    assert set(rows(P(None, "b"), (8, 4)).values()) == {(0, 8)}
    assert rows(P(), ()) is None and rows(P("a"), (0, 3)) is None
    with pytest.raises(ValueError, match="evenly divide"):
        rows(P("b"), (6, 2))
    check_evidence([], "nothing")


def test_what_one_process_has_read_whole_is_not_told(monkeypatch):
    told = []
    monkeypatch.setattr("jaxvars.checkpoint.shares.told_by_all", lambda said, what: told.append(said) or [said])
    octets = np.arange(8, dtype=np.uint8).tobytes()

    def span(first, last):
        return Span((first, last), 1, Checksum("crc32c", crc32c(octets[first:last])))

    def evidence(spans, found):
        ranges = [(0, 4), (4, 8)]
        return Evidence("w", "p", spans, ranges, found, True)

    halves, whole = [span(0, 4), span(4, 8)], [span(0, 8)]
    assert evidence(halves, {}).overlaps() == [range(1), range(1, 2)]
    assert evidence([span(3, 5), span(2, 2)], {}).overlaps() == [range(2), range(0)]
    left, right = crc32c(octets[:4]), crc32c(octets[4:])
    check_evidence([evidence(halves, {(0, 0): left})], "restore")
    check_evidence([evidence(whole, {(0, 0): left, (0, 1): right})], "restore")
    assert told == [[[], []], [[], [(0, 0, 0, left), (0, 0, 1, right)]]]
    for wrong in (
        evidence(halves, {(1, 1): 5}),
        evidence(whole, {(0, 0): left}),
        evidence(whole, {(0, 0): left, (0, 1): 5}),
    ):
        with pytest.raises(DataLossError, match="'w' do not match"):
            check_evidence([wrong], "restore")
    assert told[2] == [[0], []]  # the others raise, too
