"""Orbax checkpoints: what is refused, threads and event loops, states without values."""

import asyncio
import threading

import jax
import jax.numpy as jnp
import pytest
from checkpoint_states import assert_same, write_v1

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError


def test_places_that_hold_something_else_are_refused(tmp_path):
    variables = jv.Variables({"w": jnp.ones(3)})
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("")
    (tmp_path / "model.ckpt.index").write_text("")
    (tmp_path / "empty").mkdir()
    write_v1(tmp_path / "other")
    for name, text in (
        ("file", "not a checkpoint that jaxvars wrote"),
        ("folder", "not a checkpoint that jaxvars wrote"),
        ("other", "not a checkpoint that jaxvars wrote"),
        ("model.ckpt", "TensorFlow checkpoint of that name"),
        ("checkpoint", "Choose another name"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            checkpoint.save(variables, tmp_path / name)
    with pytest.raises(FailedPreconditionError, match="Cannot save to"):
        checkpoint.save(variables, tmp_path / "file" / "m")
    assert (tmp_path / "file").read_text() == "precious" and (tmp_path / "folder" / "precious").exists()
    checkpoint.save(variables, tmp_path / "empty")


def test_values_that_cannot_be_saved_are_refused(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(FailedPreconditionError, match=r"uninitialized values: b/w\. Write: .*initializer"):
        checkpoint.save(jv.Variables({"b/w": jax.ShapeDtypeStruct((2,), "float32"), "a": jnp.ones(2)}), path)
    with pytest.raises(FailedPreconditionError, match="inside jit"):
        jax.jit(lambda v: checkpoint.save(v, path))(jv.Variables({"w": jnp.ones(2)}))
    gone = jv.Variables({"w": jnp.ones(2)})
    gone["w"].delete()
    with pytest.raises(FailedPreconditionError, match='"w" is gone'):
        checkpoint.save(gone, path)
    with pytest.raises(InvalidTypeError, match="variables come first"):
        checkpoint.save(path, gone)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"no checkpoint format 'orbx'.*'orbax'"):
        checkpoint.save(jv.Variables({}), path, format="orbx")
    assert not path.exists()


def test_saving_and_restoring_work_in_a_running_event_loop_and_in_threads(tmp_path):
    variables = jv.Variables({"w": jnp.ones(3)})

    async def cell():
        return checkpoint.restore(checkpoint.save(variables, tmp_path / "loop"), variables)

    assert_same(asyncio.run(cell()), variables)
    failures = []

    def work(number):
        try:
            path = checkpoint.save(variables, tmp_path / f"thread{number}")
            assert_same(checkpoint.restore(path, variables), variables)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_empty_state_is_a_checkpoint_too(tmp_path):
    path = checkpoint.save(jv.Variables({}), tmp_path / "m")
    assert list(checkpoint.open(path)) == [] and len(checkpoint.restore(path, jv.Variables({}))) == 0
    path = checkpoint.save(jv.Variables({"e": jnp.zeros((0, 2))}), tmp_path / "n")
    assert checkpoint.restore(path, jv.Variables({"e": jnp.zeros((0, 2))}))["e"].shape == (0, 2)
