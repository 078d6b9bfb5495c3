"""Checkpoints where an event loop is running, as in each cell of a notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from checkpoint_states import assert_same

import jaxvars as jv


@pytest.fixture
def variables() -> jv.Variables:
    return jv.Variables({"small": jnp.arange(3.0), "large": jnp.ones([200, 200])})


def in_a_cell(function: Callable[..., Any], *args: Any) -> Any:
    async def cell() -> Any:
        assert asyncio.get_running_loop().is_running()
        return function(*args)

    return asyncio.run(cell())


def test_a_save_in_the_background_is_awaited_or_waited_for(variables: jv.Variables, tmp_path: Path) -> None:
    async def cell() -> None:
        first = jv.checkpoint.save_async(variables, tmp_path / "first")
        second = jv.checkpoint.save_async(variables, tmp_path / "second")
        assert_same(jv.checkpoint.restore(await asyncio.to_thread(first.result), variables), variables)
        assert_same(jv.checkpoint.restore(second.result(), variables), variables)

    asyncio.run(cell())


def test_tasks_save_at_the_same_time(variables: jv.Variables, tmp_path: Path) -> None:
    async def cell() -> None:
        paths = [tmp_path / f"{number}" for number in range(3)]
        await asyncio.gather(*(asyncio.to_thread(jv.checkpoint.save, variables, path) for path in paths))
        for path in paths:
            assert_same(jv.checkpoint.restore(path, variables), variables)

    asyncio.run(cell())


@pytest.mark.parametrize("background", [False, True])
def test_a_saver_in_several_cells(variables: jv.Variables, tmp_path: Path, background: bool) -> None:
    saver = jv.train.Saver(max_to_keep=2, background=background)
    paths = [in_a_cell(saver.save, variables, tmp_path / "model.ckpt", step) for step in range(3)]
    in_a_cell(saver.wait)
    assert saver.last_checkpoints == paths[1:] and not Path(paths[0]).exists()
    assert_same(in_a_cell(saver.restore, variables, paths[-1]), variables)


def test_orbax_itself_reads_ours_and_ours_reads_orbax(variables: jv.Variables, tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    path = Path(in_a_cell(jv.checkpoint.save, jv.Variables({"w": jnp.ones([200, 200])}), tmp_path / "ours"))
    with ocp.StandardCheckpointer() as checkpointer:
        theirs = in_a_cell(checkpointer.restore, path / "state")
        in_a_cell(checkpointer.save, tmp_path / "theirs", {"w": jnp.arange(4.0)})
        in_a_cell(checkpointer.wait_until_finished)
    assert jax.tree.map(jnp.shape, theirs) == {"w": (200, 200)}
    restored = in_a_cell(jv.checkpoint.restore, tmp_path / "theirs", jv.Variables({"w": jnp.zeros(4)}))
    assert restored["w"].tolist() == [0.0, 1.0, 2.0, 3.0]
