"""TensorFlow V2 checkpoints as jaxvars writes them: the bytes, what is refused, and what a killed process leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref

import bundle_writer as independent
import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvars.checkpoint.formats import atomic
from jaxvars.checkpoint.formats.bundle_writer import save_bundle
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.outgoing import Outgoing, outgoing
from jaxvars.checkpoint.formats.table import Table
from jaxvars.checkpoint.formats.table_writer import write_table
from jaxvars.checkpoint.formats.tensor_bundle import TensorBundle
from jaxvars.checkpoint.formats.tensor_slice import even_slices
from jaxvars.errors import DataLossError, FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.spec import VariableSpec
from jaxvars.variables import Variables

RNG = np.random.default_rng(0)
FLOAT8 = ("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz")
TENSORS = {
    "a/bool": np.array([True, False, True]),
    "a/bytes": independent.strings([[b"", b"x"], [b"\x00\xff", b"long" * 50]]),
    "a.b-c/d_1": np.float32(1.5).reshape(()),
    "bfloat16": RNG.normal(size=(3, 2)).astype(ml_dtypes.bfloat16),
    "complex128": RNG.normal(size=3) + 1j,
    "complex64": (RNG.normal(size=4) + 1j).astype(np.complex64),
    "empty": np.zeros((0, 3), np.float32),
    "no strings": independent.strings([]),
    "é/漢": np.array(1.0, np.float32),
    **{name: np.array([1, 0.5]).astype(getattr(ml_dtypes, name)) for name in FLOAT8},
    **{f"f{bits}": RNG.normal(size=(2, 3)).astype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{f"{kind}{bits}": np.arange(5).astype(f"{kind}{bits // 8}") for kind in "iu" for bits in (8, 16, 32, 64)},
}

RECORDED_INDEX = (
    "00000608011a020801000b0b676c6f62616c5f7374657008091200280835eab2043e00011174080712041202080220082808"
    "359188b04d000115770801120812020802120208032010281835c0db3d17000000000100000000739847e800000000010000"
    "0000c0f2a1b00001027800580000000001000000009fbdf3355d086a0e000000000000000000000000000000000000000000"
    "00000000000000000000000000000057fb808b247547db"
)
RECORDED_DATA = "0500000000000000020078270b346162000000000000803f0000004000004040000080400000a040"


def items_of(tensors, partition=None, collections=None):
    return [
        Outgoing(
            VariableSpec(
                name,
                value.shape,
                value.dtype,
                partition=(partition or {}).get(name),
                collections=(collections or {}).get(name, ()),
            ),
            value,
        )
        for name, value in tensors.items()
    ]


def same(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tolist() == expected.tolist() if expected.dtype == object else found.tobytes() == expected.tobytes()


def check(prefix, tensors):
    bundle = TensorBundle(str(prefix))
    assert set(bundle.tensors) == set(tensors)
    for name, expected in tensors.items():
        assert bundle.tensors[name].problem == ""
        same(bundle.read(name), expected)
    bundle.close()


def entries(prefix):
    with RangedFile(f"{prefix}.index") as file:
        return list(Table(file).entries())


def files(folder):
    return sorted(os.listdir(folder))


def test_every_dtype_comes_back(tmp_path):
    save_bundle(items_of(TENSORS), str(tmp_path / "new/folder/m"))
    check(tmp_path / "new/folder/m", TENSORS)
    assert files(tmp_path / "new/folder") == ["m.data-00000-of-00001", "m.index"]


def test_the_index_is_byte_for_byte_tensorflows(tmp_path):
    # Recorded from TensorFlow 2.21 (SaveV2).
    step, w = np.array(5, np.int64), np.arange(6, dtype=np.float32).reshape(2, 3)
    text = independent.strings([b"ab", b""])
    save_bundle(items_of({"w": w, "t": text, "global_step": step}), str(tmp_path / "m"))
    assert (tmp_path / "m.index").read_bytes().hex() == RECORDED_INDEX
    assert (tmp_path / "m.data-00000-of-00001").read_bytes().hex() == RECORDED_DATA


def test_the_files_are_those_of_an_independent_writer(tmp_path):
    tensors = {name: value for name, value in TENSORS.items() if value.dtype in independent.DTYPES}
    save_bundle(items_of(tensors), str(tmp_path / "m"))
    independent.write_bundle(tmp_path / "n", tensors, per_block=1000)
    assert (tmp_path / "m.data-00000-of-00001").read_bytes() == (tmp_path / "n.data-00000-of-00001").read_bytes()
    assert [key for key, _ in entries(tmp_path / "m")] == [key for key, _ in entries(tmp_path / "n")]


def test_the_order_of_the_items_does_not_matter(tmp_path):
    save_bundle(items_of(TENSORS), str(tmp_path / "m"))
    save_bundle(items_of(dict(reversed(TENSORS.items()))), str(tmp_path / "n"))
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"m{suffix}").read_bytes() == (tmp_path / f"n{suffix}").read_bytes()


def test_no_variables_make_an_empty_checkpoint(tmp_path):
    save_bundle([], str(tmp_path / "m"))
    check(tmp_path / "m", {})


def test_variables_are_written_as_they_are(tmp_path):
    state = Variables({"w": jax.numpy.ones((2, 3)), "half": jax.numpy.zeros(2, "bfloat16")})
    save_bundle(outgoing(state), str(tmp_path / "m"))
    check(tmp_path / "m", {name: np.asarray(value) for name, value in state.items()})


def test_arrays_of_another_layout_are_written_in_c_order(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_bundle(items_of({"t": turned, "every other": np.arange(6)[::2]}, {"t": (1, 2)}), str(tmp_path / "m"))
    check(tmp_path / "m", {"t": np.ascontiguousarray(turned), "every other": np.arange(0, 6, 2)})


def test_text_is_stored_as_utf8(tmp_path):
    text = np.array(["é", "b"], object)
    save_bundle(items_of({"t": text}), str(tmp_path / "m"))
    check(tmp_path / "m", {"t": independent.strings(["é".encode(), b"b"])})


def test_the_global_step_is_int64_as_tensorflows(tmp_path):
    numbers = {name: np.array(7, np.int32) for name in ("global_step", "other", "my/step")}
    save_bundle(items_of(numbers, collections={"my/step": ("global_step",)}), str(tmp_path / "m"))
    check(tmp_path / "m", {name: value.astype("i4" if name == "other" else "i8") for name, value in numbers.items()})


def test_a_narrowed_value_gets_the_files_dtype_again(tmp_path):
    spec = VariableSpec("n", (2,), np.int32, file_dtype="int64")
    save_bundle([Outgoing(spec, np.arange(2, dtype=np.int32))], str(tmp_path / "m"))
    check(tmp_path / "m", {"n": np.arange(2)})


@pytest.mark.parametrize(
    ("shape", "partition", "lengths"),
    [
        ((8, 3), (0, 3), [3, 3, 2]),
        ((2, 7), (1, 2), [4, 3]),
        ((3,), (0, 5), [1, 1, 1]),
        ((3, 1), (1, 2), []),
        ((3,), (0, 1), []),
        ((0, 3), (0, 2), []),
        ((), (0, 2), []),
        ((3,), (1, 2), []),
        ((2, 3), (-1, 2), [2, 1]),
    ],
)
def test_partitioned_variables_are_stored_in_slices(tmp_path, shape, partition, lengths):
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    parts = even_slices(shape, partition)
    assert [part.shape(shape)[partition[0]] for part in parts] == lengths
    save_bundle(items_of({"emb": value, "z": value}, {"emb": partition}), str(tmp_path / "m"))
    check(tmp_path / "m", {"emb": value, "z": value})
    keys = [key for key, _ in entries(tmp_path / "m")]
    extents = [tuple(zip([start for start, _ in part.extents], part.shape(shape), strict=True)) for part in parts]
    assert keys == sorted([b"", b"emb", b"z", *(independent.slice_key("emb", extent) for extent in extents)])


@given(st.integers(1, 60), st.integers(1, 60))
def test_slices_cover_an_axis_the_longer_ones_first(rows, count):
    parts = even_slices((rows, 2), (0, count))
    if count == 1 or rows == 1:
        assert not parts
        return
    lengths = [part.extents[0][1] for part in parts]
    assert sum(lengths) == rows and len(lengths) == min(rows, count)
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1


def test_many_names_take_several_blocks(tmp_path):
    tensors = {f"{'scope/' * (i % 9)}weights_{i:05d}": np.int32(i).reshape(()) for i in range(15_000)}
    save_bundle(items_of(tensors), str(tmp_path / "m"))
    check(tmp_path / "m", tensors)
    with RangedFile(str(tmp_path / "m.index")) as file:
        table = Table(file)
        assert len(table._handles) > 1
        for key, value in list(table.entries())[::997]:
            assert table.get(key) == value


@given(st.dictionaries(st.binary(max_size=12), st.binary(max_size=30), max_size=60), st.integers(1, 200))
def test_tables_give_back_their_entries(tmp_path_factory, content, block_size):
    path = tmp_path_factory.mktemp("t") / "t"
    with pytest.MonkeyPatch.context() as patch, open(path, "wb") as file:
        patch.setattr("jaxvars.checkpoint.formats.table_writer._BLOCK_SIZE", block_size)
        write_table(file, sorted(content.items()))
    with RangedFile(str(path)) as opened:
        table = Table(opened)
        assert list(table.entries()) == sorted(content.items())
        assert all(table.get(key) == value for key, value in content.items())
        assert table.get(b"\xff" * 13) is None


@pytest.mark.parametrize(
    ("names", "dtype", "text"),
    [
        (["ok", "", "\0x", "\udc80"], np.float32, r"cannot have the names '', '\\x00x', '\\udc80'"),
        (["twice", "twice"], np.float32, "given twice: 'twice'"),
        (["a", "b"], ml_dtypes.int4, r"no such dtype: 'a \(int4\)', 'b \(int4\)'"),
        (list("abcdefg"), "M8[s]", "and 2 more"),
    ],
)
def test_what_tensorflow_has_no_form_for_is_refused_before_anything_is_written(tmp_path, names, dtype, text):
    def value():
        raise AssertionError("asked for too early")

    items = [Outgoing(VariableSpec(name, (), dtype), value) for name in names]
    with pytest.raises(InvalidArgumentError, match=text):
        save_bundle(items, str(tmp_path / "m"))
    assert files(tmp_path) == []


def test_values_that_are_not_what_they_say_leave_everything_as_it_was(tmp_path):
    save_bundle(items_of({"w": np.ones(2)}), str(tmp_path / "m"))
    with pytest.raises(InvalidTypeError, match="'x': its elements are int"):
        save_bundle(items_of({"w": np.zeros(2), "x": np.array([b"a", 1], object)}), str(tmp_path / "m"))
    with pytest.raises(InvalidArgumentError, match=r"x: its value has shape \(3,\), not \(2,\)"):
        save_bundle([Outgoing(VariableSpec("x", (2,), np.float32), np.zeros(3, np.float32))], str(tmp_path / "m"))
    check(tmp_path / "m", {"w": np.ones(2)})
    assert files(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def test_values_are_fetched_one_after_the_other(tmp_path):
    alive = []

    def value():
        assert not any(ref() is not None for ref in alive)
        array = np.zeros(1000, np.float32)
        alive.append(weakref.ref(array))
        return array

    items = [Outgoing(VariableSpec(f"v{i}", (1000,), np.float32, partition=(0, 2)), value) for i in range(4)]
    save_bundle(items, str(tmp_path / "m"))
    assert len(alive) == 4


def test_an_orbax_checkpoint_in_the_way_is_refused(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(InvalidArgumentError, match="Orbax checkpoint of that name"):
        save_bundle(items_of({"w": np.ones(2)}), str(tmp_path / "m"))


# Saving over a checkpoint.

OLD = {"w": np.zeros(50, np.float32), "old": np.arange(3)}
NEW = {"w": np.ones(70, np.float32), "new": independent.strings([b"x"])}


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_checkpoint_is_replaced_and_its_files_go(tmp_path, shards):
    independent.write_bundle(tmp_path / "m", OLD, shards=shards)
    save_bundle(items_of(OLD), str(tmp_path / "m.data"))
    for tensors in (NEW, OLD, NEW):
        save_bundle(items_of(tensors), str(tmp_path / "m"))
        check(tmp_path / "m", tensors)
        assert files(tmp_path) == ["m.data-00000-of-00001", "m.data.data-00000-of-00001", "m.data.index", "m.index"]
    check(tmp_path / "m.data", OLD)


def test_a_damaged_checkpoint_is_replaced(tmp_path):
    save_bundle(items_of(OLD), str(tmp_path / "m"))
    (tmp_path / "m.index").write_bytes(b"junk")
    save_bundle(items_of(NEW), str(tmp_path / "m"))
    check(tmp_path / "m", NEW)
    assert files(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def test_without_hard_links_the_data_stays_under_the_other_name(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    for tensors, number in ((OLD, 1), (NEW, 2), (OLD, 1)):
        save_bundle(items_of(tensors), str(tmp_path / "m"))
        check(tmp_path / "m", tensors)
        assert files(tmp_path) == [f"m.data-00000-of-0000{number}", "m.index"]


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_disk_that_refuses_leaves_the_old_checkpoint(tmp_path, monkeypatch, step):
    save_bundle(items_of(OLD), str(tmp_path / "m"))

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step != "open" else atomic, step, refuse, raising=False)
    with pytest.raises(FailedPreconditionError, match=r"No space left.*What was there before is unchanged"):
        save_bundle(items_of(NEW), str(tmp_path / "m"))
    monkeypatch.undo()
    check(tmp_path / "m", OLD)
    assert files(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def test_two_threads_that_save_to_one_path_never_mix(tmp_path):
    failures = []

    def save(tensors):
        try:
            for _ in range(15):
                save_bundle(items_of(tensors), str(tmp_path / "m"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=save, args=[tensors]) for tensors in (OLD, NEW)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    check(tmp_path / "m", NEW if "new" in TensorBundle(str(tmp_path / "m")).tensors else OLD)
    assert files(tmp_path) == ["m.data-00000-of-00001", "m.index"]


# The child saves NEW over OLD in forks of its own, each of which dies at the n-th change of the disk, before it or
# after it. It prints the names of those steps.
_DYING = """
import os, sys
sys.path.insert(0, sys.argv[2])
import test_checkpoint_bundle_writer as t
from jaxvars.checkpoint.formats.bundle_writer import save_bundle

def run(folder, death):
    done = 0
    def dying(name, function):
        def call(*args, **kwargs):
            nonlocal done
            if 2 * done == death:
                os._exit(1)
            try:
                return function(*args, **kwargs)
            finally:
                if 2 * done + 1 == death:
                    os._exit(1)
                done += 1
                steps.append(name)
        return call
    steps = []
    for name in ("replace", "link", "unlink", "fsync", "chmod", "makedirs"):
        setattr(os, name, dying(name, getattr(os, name)))
    save_bundle(t.items_of(t.NEW), folder + "/m")
    print(*steps, flush=True)
    os._exit(0)

death = 0
while True:
    folder = f"{sys.argv[1]}/{death}"
    os.mkdir(folder)
    save_bundle(t.items_of(t.OLD), folder + "/m")
    if not os.fork():
        run(folder, death)
    if os.waitstatus_to_exitcode(os.wait()[1]) == 0:
        break
    death += 1
"""


def run_python(code, *arguments):
    here = os.path.dirname(__file__)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments), here],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
def test_a_process_killed_at_any_step_leaves_the_old_or_the_new_checkpoint(tmp_path):
    steps = run_python(_DYING, tmp_path).stdout.split()
    assert {"fsync", "replace", "link", "unlink"} <= set(steps)
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    assert len(folders) == 2 * len(steps) + 1
    found = []
    for folder in folders:
        is_new = "new" in TensorBundle(str(folder / "m")).tensors
        check(folder / "m", NEW if is_new else OLD)
        found.append(is_new)
        save_bundle(items_of(OLD), str(folder / "m"))  # and the next save clears up
        check(folder / "m", OLD)
        assert files(folder) == ["m.data-00000-of-00001", "m.index"]
    assert found == sorted(found) and found[0] is False and found[-1] is True


# Reading many, the next one ahead.

LARGE = {f"v{i}": np.full(100_000, i, np.float32) for i in range(5)} | {"small": np.arange(3), "t": TENSORS["a/bytes"]}


def test_many_are_read_in_the_order_of_the_file(tmp_path):
    save_bundle(items_of(LARGE, {"v3": (0, 2)}), str(tmp_path / "m"))
    bundle = TensorBundle(str(tmp_path / "m"))
    found = dict(bundle.read_many(reversed(LARGE)))
    assert list(found) == sorted(LARGE)
    for name, value in found.items():
        same(value, LARGE[name])
    arrays = list(found.values())
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i] if a.dtype != object)
    assert found["v0"].ctypes.data % 64 == 0 and found["v0"].flags.writeable
    assert list(bundle.read_many([])) == []


def test_a_damaged_tensor_raises_at_its_turn(tmp_path):
    save_bundle(items_of(LARGE), str(tmp_path / "m"))
    bundle = TensorBundle(str(tmp_path / "m"))
    with open(tmp_path / "m.data-00000-of-00001", "r+b") as file:
        file.seek(bundle._entries["v2"].offset)
        file.write(b"\xff")
    reading = bundle.read_many(["v0", "v1", "v2", "v3"])
    assert [next(reading)[0], next(reading)[0]] == ["v0", "v1"]
    with pytest.raises(DataLossError, match="'v2' do not match their checksum"):
        next(reading)


def test_a_file_that_shrinks_meanwhile_raises_and_reading_may_stop_anywhere(tmp_path):
    save_bundle(items_of(LARGE), str(tmp_path / "m"))
    bundle = TensorBundle(str(tmp_path / "m"))
    for count in range(3):
        reading = bundle.read_many(LARGE)
        for _ in range(count):
            next(reading)
        reading.close()
    os.truncate(tmp_path / "m.data-00000-of-00001", 500_000)
    with pytest.raises(DataLossError, match="became shorter while tensor 'v1'"):
        list(bundle.read_many(["v0", "v1"]))
