"""What the tests of single-file formats share: variables to write, arrays of any kind, damage done to files."""

import os
import tempfile
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.errors import JaxvarsError
from jaxvars.spec import VariableSpec

NATIVE = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
          "float16", "float32", "float64", "complex64", "complex128")  # fmt: skip
NAMES = ("", "a", "a.npy", "a/b", "a//b", "../up", "/absolute", "dir/", "é 漢\n", "nul\0inside", "c:\\x", '"\\u0041"')


# In a quick run every 7th bit is flipped, so that all bytes are, and each of their bits somewhere.
STEPS = [7, pytest.param(1, marks=pytest.mark.slow)]


def variable(name, value, *notes, **more):
    return Outgoing(VariableSpec(name, value.shape, value.dtype, *notes, **more), value)


def same(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes() and found.flags.c_contiguous and found.flags.writeable


def filled(dtype, shape, seed=0):
    """An array of arbitrary bits."""
    dtype = np.dtype(dtype)
    octets = np.random.default_rng(seed).bytes(int(np.prod(shape)) * dtype.itemsize)
    if dtype == np.bool_:
        return (np.frombuffer(octets, np.uint8) & 1).astype(bool).reshape(shape)
    return np.frombuffer(octets, dtype).reshape(shape).copy()


def states(dtypes, without=()):
    """Strategy: {name: array}."""
    names = st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)
    arrays = st.builds(filled, st.sampled_from(dtypes), shapes, st.integers(0, 1000))
    return st.dictionaries(names.filter(lambda name: name not in without), arrays, max_size=6)


def check_round_trip(save, source, values):
    """Write arrays, read them in both ways."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        save([variable(name, value) for name, value in values.items()], path)
        opened = source(path)
        assert opened.tensors.keys() == values.keys() and list(opened.specs) == list(values)
        for name, value in values.items():
            info = opened.tensors[name]
            assert (info.name, info.shape, info.dtype, info.problem) == (name, value.shape, value.dtype, "")
            same(opened.read(name), value)
        for name, found in opened.read_many(values):
            same(found, values[name])
        opened.close()


def noted():
    """Variables with flags, collections, placement, random keys, a dtype that was narrowed, and none at all."""
    keys = jax.random.split(jax.random.key(7), 3)
    return [
        variable("w", np.arange(4, dtype=np.float32).reshape(2, 2)),
        variable("h", np.array([1.5, -2], ml_dtypes.bfloat16), False, ("local_variables",), "/cpu:0"),
        variable("rng", keys, False),
        variable(
            "step", np.array(5, np.int32), False, ("variables", "global_step"), file_dtype="int64", partition=(0, 2)
        ),
        variable("none", np.zeros((0, 3), np.float32)),
    ]


def everything(source, path):
    """All that a file says, as plain values that can be compared."""
    opened = source(path)
    try:
        tensors = {
            name: (info.shape, info.dtype, info.problem, opened.read(name).tobytes())
            for name, info in opened.tensors.items()
        }
        specs = opened.specs
        return tensors, None if specs is None else [(spec, spec.placement) for spec in specs.values()]
    finally:
        opened.close()


def damage(source, path, step):
    """Flip every `step`-th bit: our error, which names the file, or no effect at all. Returns the part without."""
    expected = everything(source, path)
    harmless = 0
    places = range(0, 8 * os.path.getsize(path), step)
    for place in places:
        _flip(path, place)
        try:
            found = everything(source, path)
            assert found == expected, f"bit {place % 8} of byte {place // 8}"
            harmless += 1
        except JaxvarsError as error:
            assert str(path) in str(error)
        _flip(path, place)
    return harmless / len(places)


def _flip(path, place):
    with open(path, "r+b", buffering=0) as file:
        file.seek(place // 8)
        octet = file.read(1)[0] ^ 1 << place % 8
        file.seek(place // 8)
        file.write(bytes([octet]))


def in_little_memory(work, most=4_000_000):
    """Return what `work` raises, having allocated little."""
    tracemalloc.start()
    try:
        work()
    except JaxvarsError as error:
        assert tracemalloc.get_traced_memory()[1] < most
        return error
    finally:
        tracemalloc.stop()
    raise AssertionError("nothing was raised")


def check_replacement(save, source, folder):
    """A save that fails in the middle leaves the old file, and nothing else."""
    path = str(folder / "file")
    save([variable("w", np.zeros(3))], path)
    with open(path, "rb") as file:
        before = file.read()

    def broken():
        raise ZeroDivisionError

    spec = VariableSpec("x", (3,), "float64")
    for item, error in ((Outgoing(spec, broken), ZeroDivisionError), (Outgoing(spec, np.zeros(4)), JaxvarsError)):
        try:
            save([variable("w", np.ones(3)), item], path)
        except error:
            pass
        else:
            raise AssertionError("nothing was raised")
        with open(path, "rb") as file:
            assert file.read() == before
        assert os.listdir(folder) == ["file"]
    save([variable("w", np.ones(3))], path)
    same(source(path).read("w"), np.ones(3))
    assert os.listdir(folder) == ["file"]
