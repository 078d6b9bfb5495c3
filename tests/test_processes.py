"""Values of several processes: each initializes, restores and saves its own share, and the launcher of such tests."""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from processes import ProcessesFailed, run_processes

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.errors import DataLossError, FailedPreconditionError, NotFoundError
from jaxvars.spec import Hole, is_hole

FORMATS = ("orbax", "tf", "safetensors", "npz")
SHAPE = (16, 256, 12)  # large enough to be no packed variable


def number_of(several):
    return [jax.process_index(), several * jax.process_count()]


def fail_alone():
    if jax.process_index():
        raise ValueError("on purpose")
    time.sleep(600)


def sleep():
    time.sleep(600)


@pytest.mark.slow
def test_the_launcher_collects_values_and_errors(monkeypatch):
    assert run_processes(number_of, 2, 10) == [[0, 20], [1, 20]]
    monkeypatch.setattr("processes._GRACE_SECONDS", 1)
    with pytest.raises(ProcessesFailed, match="others went on waiting") as caught:
        run_processes(fail_alone, 2)
    assert caught.value.codes == [-9, 1] and "ValueError: on purpose" in str(caught.value)
    with pytest.raises(ProcessesFailed, match="longer than 4 s") as caught:
        run_processes(sleep, 2, timeout=4)
    assert caught.value.codes == [-9, -9]


def net(width=256):
    """Initializers of every kind, and layers that are stacked."""
    for name, initializer in INITIALIZERS.items():
        jv.get_variable(name, None if name == "value" else SHAPE, initializer=initializer)
    jv.get_variable("vector", [48], initializer=jv.random_uniform_initializer())
    jv.get_variable("step", [], jnp.int32, initializer=jv.zeros_initializer(), trainable=False)

    def layer(x):
        return x * jv.get_variable("kernel", [width, 12], initializer=jv.orthogonal_initializer())

    return jv.scan_layers("layer_{}", 4, stacked="layers")(layer)(jnp.ones((width, 12)))


INITIALIZERS = {
    "normal": jv.random_normal_initializer(),
    "glorot": jv.glorot_uniform_initializer(),
    "orthogonal": jv.orthogonal_initializer(),
    "constant": jv.constant_initializer(2.5),
    "elements": jv.constant_initializer(np.arange(16 * 256 * 12).reshape(SHAPE)),
    "value": np.arange(16 * 256 * 12, dtype=np.float32).reshape(SHAPE),
    "function": lambda key, shape, dtype: jax.random.key_data(key).sum() + jnp.ones(shape, dtype),
    "ready": lambda key, shape, dtype: np.ones(shape, dtype),
}


def layouts():
    """Two ways to spread the variables over all devices of all processes."""
    flat = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    grid = Mesh(np.array(jax.devices()).reshape(-1, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    return (flat, P("data"), P(None, "data")), (grid, P("model", "data"), P(None, "data", "model"))


def spread(layout, specs):
    mesh, spec, stacked = layout

    def sharding(name, hole):
        wanted = stacked if "kernel" in name else spec if hole.ndim == 3 else P(*spec[:1]) if hole.ndim else P()
        return NamedSharding(mesh, wanted)

    return jv.Variables(
        {
            name: Hole(
                hole.shape, hole.dtype, sharding=sharding(name, hole), initializer=getattr(hole, "initializer", None)
            )
            for name, hole in specs.items()
        }
    )


def formats(layout):
    """In which variables of a layout are saved."""
    return FORMATS if layout == 0 else FORMATS[:1]


def wrong(found, expected):
    """Names whose shards on this process are not the values that are expected."""
    return [
        name
        for name, value in found.items()
        for shard in value.addressable_shards
        if np.asarray(shard.data).tobytes() != np.ascontiguousarray(expected[name][shard.index]).tobytes()
    ]


def work(folder, written_by):
    """Initialize, save and restore; read what other numbers of processes have saved."""
    import jaxvars.checkpoint.shard_reading as shard_reading

    shard_reading._WORTH_BYTES = 0
    model = jv.transform(net)
    alone = {name: np.asarray(value) for name, value in model.init(0).items()}
    for number, layout in enumerate(layouts()):
        holes = spread(layout, model.specs())
        variables = jv.variables_initializer(holes, 0)
        assert not wrong(variables, alone), wrong(variables, alone)
        assert all(variables[name].sharding == hole.sharding for name, hole in holes.items())
        for format in formats(number):
            checkpoint.save(variables, f"{folder}/{jax.process_count()}-{number}.{format}", format=format)
    for count in {*written_by, jax.process_count()}:
        for number in range(2):
            for format in formats(number):
                for layout in layouts():
                    holes = spread(layout, model.specs())
                    found = checkpoint.restore(f"{folder}/{count}-{number}.{format}", holes)
                    assert not wrong(found, alone), (count, number, format, wrong(found, alone))
                    assert all(found[name].sharding == hole.sharding for name, hole in holes.items())


@pytest.mark.slow
def test_any_number_of_processes_reads_what_any_other_wrote(tmp_path):
    folder = str(tmp_path)
    run_processes(work, 4, folder, [], devices=2)
    run_processes(work, 2, folder, [4], devices=2)
    work(folder, [4, 2])  # one process, eight devices
    run_processes(work, 4, folder, [1], devices=1)


def fail(folder):
    """One process cannot read or write: all of them say so, and go on."""
    import jaxvars.checkpoint.shard_reading as shard_reading

    shard_reading._WORTH_BYTES = 0
    own = jax.process_index()
    model = jv.transform(net)
    holes = spread(layouts()[0], model.specs())
    variables = jv.variables_initializer(holes, 0)
    for format in FORMATS:
        path = f"{folder}/m.{format}"
        checkpoint.save(variables, path, format=format)
        with pytest.raises(FailedPreconditionError if own else NotFoundError) as caught:
            checkpoint.restore(path if own else path + ".absent", holes)
        assert not own or "another process failed. See its error. It is, in process 0: NotFoundError" in str(
            caught.value
        )
        with pytest.raises(FailedPreconditionError, match="Cannot"):
            checkpoint.save(variables, path if own else "/proc/nowhere/m", format=format)
        assert not wrong(checkpoint.restore(path, holes), variables_on_hosts(model))
    for format in FORMATS:
        if not own:
            flip(f"{folder}/m.{format}")
        jv.checkpoint.together.told_by_all(None, "Cannot flip")
        with pytest.raises((DataLossError, FailedPreconditionError), match="damaged"):
            checkpoint.restore(f"{folder}/m.{format}", holes)


def variables_on_hosts(model):
    return {name: np.asarray(value) for name, value in model.init(0).items()}


def flip(path):
    """Change a number of one variable, which one process alone reads."""
    wanted = np.arange(40_000, 40_004, dtype=np.float32).tobytes()
    folder, base = os.path.split(path)
    for inner, _, names in os.walk(folder):
        for file in (os.path.join(inner, name) for name in names):
            if base in file:
                with open(file, "rb") as stream:
                    data = stream.read()
                with open(file, "wb") as stream:
                    stream.write(data.replace(wanted, bytes(16)))


@pytest.mark.slow
def test_what_fails_in_one_process_is_an_error_in_all(tmp_path):
    run_processes(fail, 2, str(tmp_path))


def test_stacked_layers_are_filled_where_they_live():
    specs = jv.transform(net).specs()
    specs = jv.Variables({"layers/kernel": specs["layers/kernel"]})
    whole = jv.variables_initializer(specs, 0)["layers/kernel"]
    (flat, *_), (grid, *_) = layouts()
    for mesh, spec in [
        (flat, P(None, "data")),
        (grid, P("data", "model")),
        (grid, P("data", None, "model")),
        (flat, P()),
    ]:
        holes = spread((mesh, P(), spec), specs)
        assert is_hole(holes["layers/kernel"])
        found = jv.variables_initializer(holes, 0)["layers/kernel"]
        np.testing.assert_array_equal(found, whole)
        assert found.sharding == holes["layers/kernel"].sharding
