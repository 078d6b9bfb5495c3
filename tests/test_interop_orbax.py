"""`Variables` through Orbax's own managers and checkpointers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxvars as jv
from jaxvars.interop.orbax import restore_args, save_args

pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")


@pytest.fixture
def variables() -> jv.Variables:
    mesh = jax.make_mesh((8,), ("devices",))
    values = {
        "a/w": jnp.arange(16.0, dtype=jnp.float32).reshape(8, 2),
        "a/b.c": jnp.ones(3, jnp.bfloat16),
        "empty": jnp.zeros((0, 3), jnp.float32),
        "key": jax.random.key(7),
        "step": jnp.int32(5),
    }
    spread = NamedSharding(mesh, PartitionSpec("devices"))
    return jv.Variables(values).freeze(["step", "key"]).to([("a/w", spread)])


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ocp.CheckpointManager]:
    with ocp.CheckpointManager(tmp_path / "run", options=ocp.CheckpointManagerOptions(max_to_keep=2)) as manager:
        yield manager


def numbers(value: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(value) if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) else value)


def assert_same(a: jv.Variables, b: jv.Variables) -> None:
    assert a._layout == b._layout
    for key in a:
        assert a[key].dtype == b[key].dtype and np.array_equal(numbers(a[key]), numbers(b[key])), key
        assert a[key].sharding.is_equivalent_to(b[key].sharding, a[key].ndim), key


def save(manager: ocp.CheckpointManager, step: int, args: Any) -> None:
    assert manager.save(step, args=args)
    manager.wait_until_finished()


def other(variables: jv.Variables) -> jv.Variables:
    """The same layout over other values."""
    return variables.replace(
        {key: x if key == "key" else jnp.zeros_like(x, device=x.sharding) for key, x in variables.items()}
    )


def test_there_and_back(manager: ocp.CheckpointManager, variables: jv.Variables) -> None:
    save(manager, 0, save_args(variables))
    assert_same(manager.restore(0, args=restore_args(other(variables))), variables)


def test_standard_arguments_do_for_plain_arrays(manager: ocp.CheckpointManager, variables: jv.Variables) -> None:
    plain = variables.select(["a/", "step"])
    save(manager, 0, ocp.args.StandardSave(plain))
    assert_same(manager.restore(0, args=ocp.args.StandardRestore(other(plain))), plain)


def test_into_holes_with_their_shardings(manager: ocp.CheckpointManager, variables: jv.Variables) -> None:
    save(manager, 0, save_args(variables))
    holes = variables.replace(
        {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for key, x in variables.items()}
    )
    assert_same(manager.restore(0, args=restore_args(holes)), variables)


def test_beside_other_items_the_newest_are_kept(manager: ocp.CheckpointManager, variables: jv.Variables) -> None:
    for step in range(3):
        now = variables.replace({"step": step})
        save(manager, step, ocp.args.Composite(state=save_args(now), notes=ocp.args.JsonSave({"step": step})))
    assert manager.all_steps() == [1, 2]
    args = ocp.args.Composite(state=restore_args(variables), notes=ocp.args.JsonRestore())
    restored = manager.restore(2, args=args)
    assert_same(restored.state, variables.replace({"step": 2}))
    assert restored.notes == {"step": 2}


def test_values_may_be_donated_once_save_returns(manager: ocp.CheckpointManager, variables: jv.Variables) -> None:
    expected = np.asarray(variables["a/w"])
    assert manager.save(0, args=save_args(variables))
    jax.jit(lambda w: w + 1, donate_argnums=0)(variables["a/w"])
    manager.wait_until_finished()
    specs = jv.Variables({"a/w": jax.ShapeDtypeStruct((8, 2), jnp.float32)})
    np.testing.assert_array_equal(manager.restore(0, args=restore_args(specs))["a/w"], expected)


def test_packed_variables_have_their_names(manager: ocp.CheckpointManager) -> None:
    plain = jv.Variables({f"layer_{i}/bias": jnp.full(3, float(i)) for i in range(5)})
    packed = plain.packed()
    assert len(jax.tree.leaves(packed)) == 1
    save(manager, 0, save_args(packed))
    zeros = jax.tree.map(jnp.zeros_like, packed)
    restored = manager.restore(0, args=restore_args(zeros))
    assert len(jax.tree.leaves(restored)) == 1
    assert_same(restored.unpacked(), plain)
    assert_same(manager.restore(0, args=restore_args(jax.tree.map(jnp.zeros_like, plain))), plain)


def test_slots_of_an_optimizer_resume(manager: ocp.CheckpointManager) -> None:
    optimizer = jv.train.AdamOptimizer(0.1)
    variables = optimizer.init(jv.Variables({"w": jnp.ones(2)}))
    step = jax.jit(lambda v: optimizer.apply_gradients({"w": v["w"]}, v))
    variables = step(variables)
    save(manager, 1, save_args(variables))
    restored = manager.restore(1, args=restore_args(optimizer.init(jv.Variables({"w": jnp.zeros(2)}))))
    assert_same(step(restored), step(variables))


def test_what_a_flax_program_saved(manager: ocp.CheckpointManager) -> None:
    tree = {"params": {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}, "step": 3}
    save(manager, 0, ocp.args.StandardSave(tree))
    into = jv.Variables({"net/dense/kernel": jnp.zeros((3, 2)), "net/dense/bias": jnp.ones(2)})
    with ocp.CheckpointManager(manager.directory) as again:
        restored = again.restore(0, args=restore_args(into, rules=[("net/", "params/")]))
    assert float(restored["net/dense/kernel"].sum()) == 6 and not restored["net/dense/bias"].any()


def test_a_checkpointer_without_a_manager(tmp_path: Path, variables: jv.Variables) -> None:
    from jaxvars.interop._orbax_handler import VariablesHandler

    with ocp.Checkpointer(VariablesHandler()) as checkpointer:
        checkpointer.save(tmp_path / "one", args=save_args(variables))
        assert_same(checkpointer.restore(tmp_path / "one", args=restore_args(other(variables))), variables)
    assert_same(jv.checkpoint.restore(tmp_path / "one", other(variables), rules=[("empty", None)]), variables)


@pytest.mark.slow
def test_programs_without_jaxvars_read_it(manager: ocp.CheckpointManager, variables: jv.Variables) -> None:
    save(manager, 0, ocp.args.Composite(state=save_args(variables.select("a/"))))
    code = (
        "import sys, orbax.checkpoint as ocp\n"
        f"with ocp.CheckpointManager({str(manager.directory)!r}) as manager:\n"
        "    tree = manager.restore(0, args=ocp.args.Composite(state=ocp.args.StandardRestore())).state\n"
        "print(sorted(tree), float(tree['a/w'].sum()), 'jaxvars' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['a/b.c', 'a/w'] 120.0 False"


def test_orbax_reads_large_variables_of_a_saver(tmp_path: Path) -> None:
    big = jnp.arange(90_000, dtype=jnp.float32).reshape(300, 300)
    path = jv.train.Saver().save(jv.Variables({"big/w": big}), str(tmp_path / "model.ckpt"), global_step=1)
    with ocp.StandardCheckpointer() as checkpointer:
        np.testing.assert_array_equal(checkpointer.restore(f"{path}/state")["big/w"], big)


def test_what_does_not_fit_raises_and_nothing_is_restored(
    manager: ocp.CheckpointManager, variables: jv.Variables
) -> None:
    save(manager, 0, save_args(variables))

    def refused(into: jv.Variables, error: type[Exception], match: str, **arguments: Any) -> None:
        with pytest.raises(error, match=match):
            manager.restore(0, args=restore_args(into, **arguments))

    more = variables | {"a/x": 1.0}
    refused(more, jv.errors.NotFoundError, "Key a/x not found")
    assert float(manager.restore(0, args=restore_args(more, strict=False))["a/x"]) == 1.0
    refused(variables.astype({"a/w": "int32"}), jv.errors.InvalidArgumentError, "a/w is int32, tensor a/w is float32")
    wrong = jv.Variables({"a/w": jnp.zeros((8, 3), jnp.float32), "step": jnp.float32(0)})
    refused(wrong, jv.errors.InvalidArgumentError, r"a/w(.|\n)*step is float32")
    refused(variables, jv.errors.NotFoundError, "none of the", rules=[("b/", "a/")])
    half = variables.select("a/w").astype(jnp.bfloat16)
    refused(half, jv.errors.InvalidArgumentError, "cast=True")
    assert manager.restore(0, args=restore_args(half, cast=True))["a/w"].dtype == jnp.bfloat16


def test_what_cannot_be_saved() -> None:
    hole = jv.Variables({"w": jax.ShapeDtypeStruct((2,), jnp.float32)})
    with pytest.raises(jv.errors.FailedPreconditionError, match="uninitialized values: w"):
        save_args(hole)
    with pytest.raises(jv.errors.FailedPreconditionError, match="w have no values there"):
        jax.jit(lambda v: save_args(v))(jv.Variables({"w": 1.0}))
    with pytest.raises(jv.errors.InvalidTypeError, match="expected Variables, got dict"):
        save_args({"w": 1.0})  # pyright: ignore[reportArgumentType]
    with pytest.raises(jv.errors.InvalidTypeError, match="expected Variables, got dict"):
        restore_args({"w": 1.0})  # pyright: ignore[reportArgumentType]
