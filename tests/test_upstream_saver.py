"""What TensorFlow's saver_test.py checks, where test_saver.py does not: deferred savers, state files, placement.

A docstring names the behaviour upstream; docs/upstream-tests.md is the table of all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.train import generate_checkpoint_state_proto as generated
from jaxvars.train import get_checkpoint_state, update_checkpoint_state


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ONE = jv.Variables({"v0": jnp.float32(1.0)})


# Deferred savers


def test_a_deferred_saver_takes_no_var_list() -> None:
    """Upstream: SaverTest.testVarListShouldBeEmptyInDeferredBuild."""
    with pytest.raises(ValueError, match="cannot be deferred"):
        jv.train.Saver(["v0"], defer_build=True)


def test_a_deferred_saver_must_be_built(tmp_path: Path) -> None:
    """Upstream: SaverTest.testBuildShouldBeCalledBeforeSaveInCaseOfDeferBuild."""
    saver = jv.train.Saver(defer_build=True)
    with pytest.raises(RuntimeError, match=r"`build\(\)` should be called before save"):
        saver.save(ONE, tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_saver_sees_variables_made_after_it(tmp_path: Path) -> None:
    """Upstream: SaverTest.testDeferredBuild."""
    deferred, plain = jv.train.Saver(defer_build=True), jv.train.Saver()
    variables = ONE | jv.Variables({"later": jnp.zeros(2)})
    deferred.build()
    for number, saver in enumerate((deferred, plain)):
        path = saver.save(variables, tmp_path / "model", global_step=number)
        assert [name for name, _ in jv.train.list_variables(path)] == ["later", "v0"]


def test_arguments_that_need_a_graph_are_refused() -> None:
    for argument in ("saver_def", "builder"):
        with pytest.raises(ValueError, match=rf"Saver\({argument}=...\): there is no graph"):
            jv.train.Saver(**{argument: object()})
    jv.train.Saver(restore_sequentially=True, filename="model", sharded=True, name="save")


# Where values lie, and who reads them


def test_a_value_comes_back_to_its_device(tmp_path: Path) -> None:
    """Upstream: SaverTest.testGPU."""
    device = jax.devices()[-1]
    variables = jv.Variables({"v": jax.device_put(jnp.float32(123.45), device)})
    saver = jv.train.Saver()
    path = saver.save(variables, tmp_path / "placed")
    target = jv.Variables({"v": jax.device_put(jnp.float32(0.0), device)})
    restored = saver.restore(target, path)["v"]
    assert restored.devices() == {device} and float(restored) == np.float32(123.45)


def test_files_of_a_notebook_load_into_a_model_and_back(tmp_path: Path) -> None:
    """Upstream: SaverTest.testEagerGraphCompatibility."""

    def net() -> Any:
        return jv.get_variable("w", [2], initializer=jv.ones_initializer()).value

    with jv.VariableStore() as store:
        jv.get_variable("w", initializer=[3.0, 4.0])
    by_hand = jv.train.Saver().save(store.variables, tmp_path / "by_hand")
    model = jv.transform(net)
    variables = jv.train.Saver().restore(model.specs(), by_hand)
    assert model(variables).tolist() == [3.0, 4.0]
    by_model = jv.train.Saver().save(jv.assign(variables, "w", [5.0, 6.0]), tmp_path / "by_model")
    store.variables = jv.train.Saver().restore(store.variables, by_model)
    with store:
        assert jv.get_variable("w", [2]).value.tolist() == [5.0, 6.0]


def test_sharded_values_are_saved_and_restored(tmp_path: Path) -> None:
    """Upstream: SaveRestoreShardedTest.testBasics."""
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    variables = jv.Variables({"v0": jax.device_put(jnp.arange(4.0), spread), "v1": jnp.float32(20.0)})
    saver = jv.train.Saver(sharded=True)
    path = saver.save(variables, tmp_path / "sharded")
    zeros = jv.Variables({"v0": jax.device_put(jnp.zeros(4), spread), "v1": jnp.float32(0.0)})
    restored = saver.restore(zeros, path)
    assert restored["v0"].tolist() == [0.0, 1.0, 2.0, 3.0] and float(restored["v1"]) == 20.0
    assert restored["v0"].sharding == spread
    whole = saver.restore(jv.Variables({"v0": jnp.zeros(4), "v1": jnp.float32(0.0)}), path)
    assert whole["v0"].tolist() == [0.0, 1.0, 2.0, 3.0]


# The state file


def test_absolute_paths_stay_absolute(tmp_path: Path) -> None:
    """Upstream: CheckpointStateTest.testAbsPath."""
    path = str(tmp_path / "model.ckpt-0")
    state = generated(tmp_path, path)
    assert os.path.isabs(path)
    assert (state.model_checkpoint_path, state.all_model_checkpoint_paths) == (path, (path,))


def test_relative_paths_are_relative_to_their_folder() -> None:
    """Upstream: CheckpointStateTest.testRelPath."""
    state = generated("train", os.path.join("train", "model"))
    assert (state.model_checkpoint_path, state.all_model_checkpoint_paths) == ("model", ("model",))


def test_the_latest_path_joins_the_list_where_it_is_missing(tmp_path: Path) -> None:
    """Upstream: CheckpointStateTest.testAllModelCheckpointPaths."""
    path = str(tmp_path / "model.ckpt-2")
    for given in (None, [], [path]):
        assert generated(tmp_path, path, given).all_model_checkpoint_paths == (path,)
    older = [str(tmp_path / "model.ckpt-0"), str(tmp_path / "model.ckpt-1")]
    assert generated(tmp_path, path, older).all_model_checkpoint_paths == (*older, path)


@pytest.mark.usefixtures("here")
def test_the_state_file_comes_back_with_mixed_paths(tmp_path: Path) -> None:
    """Upstream: CheckpointStateTest.testUpdateCheckpointState."""
    os.mkdir("train")
    absolute = os.path.join(tmp_path, "elsewhere", "model.ckpt-0")
    relative = os.path.join("train", "model.ckpt-2")
    update_checkpoint_state("train", relative, [absolute, relative])
    state = get_checkpoint_state("train")
    assert state is not None
    assert state.model_checkpoint_path == relative
    assert state.all_model_checkpoint_paths == (absolute, relative)


def test_a_state_file_may_hold_relative_paths_only(tmp_path: Path) -> None:
    """Upstream: CheckpointStateTest.testUpdateCheckpointStateSaveRelativePaths."""
    older, path = str(tmp_path / "model.ckpt-1"), str(tmp_path / "model.ckpt-2")
    update_checkpoint_state(tmp_path, path, [older, path], save_relative_paths=True)
    text = (tmp_path / "checkpoint").read_text()
    assert str(tmp_path) not in text and '"model.ckpt-1"' in text and '"model.ckpt-2"' in text
    state = get_checkpoint_state(tmp_path)
    assert state is not None
    assert (state.model_checkpoint_path, state.all_model_checkpoint_paths) == (path, (older, path))


def test_an_incomplete_state_file_is_an_error(tmp_path: Path) -> None:
    """Upstream: CheckpointStateTest.testCheckPointStateFailsWhenIncomplete."""
    (tmp_path / "checkpoint").touch()
    with pytest.raises(ValueError, match="incomplete"):
        get_checkpoint_state(tmp_path)


def test_relative_entries_are_joined_with_the_folder(tmp_path: Path) -> None:
    """Upstream: CheckpointStateTest.testCheckPointCompletesRelativePaths."""
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "./model.ckpt-687529"\n'
        'all_model_checkpoint_paths: "./model.ckpt-687500"\n'
        'all_model_checkpoint_paths: "./model.ckpt-687529"\n'
    )
    state = get_checkpoint_state(tmp_path)
    assert state is not None
    paths = [state.model_checkpoint_path, *state.all_model_checkpoint_paths]
    numbers = (687529, 687500, 687529)
    assert paths == [os.path.join(tmp_path, f"./model.ckpt-{number}") for number in numbers]
