"""`Variables` in tables, notebooks, pandas, treescope and rich, and under chex's assertions."""

from __future__ import annotations

import io
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import rich.console
import treescope
from jax.sharding import NamedSharding, PartitionSpec

import jaxvars as jv

OLD = "jaxvars/tour/data/model.ckpt-1200"


@pytest.fixture
def variables() -> jv.Variables:
    values = {
        "conv/kernel": jnp.array([[1.0, 2.0], [3.0, 6.0]], jnp.float32),
        "conv/bias": jnp.array([1, 3], jnp.bfloat16),
        "global_step": jnp.int32(7),
    }
    return jv.Variables(values).freeze("global_step")


def printed(*things: Any, width: int = 160) -> str:
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(*things)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


# -- NumPy and pandas ------------------------------------------------------------------------------------------------


def test_numpy_takes_variables(variables: jv.Variables) -> None:
    file = io.BytesIO()
    np.savez(file, **variables)
    file.seek(0)
    with np.load(file) as stored:
        assert sorted(stored.files) == sorted(variables)
        np.testing.assert_array_equal(stored["conv/kernel"], variables["conv/kernel"])
    assert dict(variables).keys() == variables.keys()
    assert np.asarray(variables["conv/bias"]).dtype == jnp.bfloat16


def test_rows_make_a_data_frame(variables: jv.Variables) -> None:
    frame = pd.DataFrame(variables.summary().rows).set_index("name")
    assert list(frame.index) == list(variables)
    assert frame.loc["conv/kernel", "shape"] == (2, 2)
    assert frame["count"].sum() == variables.size and frame["bytes"].sum() == variables.nbytes
    assert list(frame[frame["trainable"]].index) == ["conv/bias", "conv/kernel"]
    assert frame["mean"].isna().all()


def test_rows_say_where_a_variable_was_defined() -> None:
    model = jv.transform(lambda: jv.get_variable("w", [2]).value)
    frame = pd.DataFrame(model.specs().summary().rows)
    assert __file__.rsplit("/", 1)[-1] in frame["defined_at"][0]
    assert frame["sharding"][0] == "uninitialized"


def test_statistics(variables: jv.Variables) -> None:
    more = variables | {
        "complex": jnp.array([3 + 4j, 0], jnp.complex64),
        "empty": jnp.zeros((0, 2)),
        "flags": jnp.array([True, False]),
        "hole": jax.ShapeDtypeStruct((2,), jnp.float32),
        "key": jax.random.key(0),
        "nan": jnp.array([jnp.nan, 1.0]),
    }
    table = pd.DataFrame(more.summary(statistics=True).rows).set_index("name")[["mean", "std", "min", "max"]]
    assert table.loc["conv/kernel"].to_list() == pytest.approx([3.0, np.std([1, 2, 3, 6]), 1.0, 6.0])
    assert table.loc["conv/bias"].to_list() == [2.0, 1.0, 1.0, 3.0]
    assert table.loc["global_step"].to_list() == [7.0, 0.0, 7.0, 7.0]
    assert table.loc["complex"].to_list() == [2.5, 2.5, 0.0, 5.0]
    assert table.loc["flags"].to_list() == [0.5, 0.5, 0.0, 1.0]
    assert table.loc[["empty", "hole", "key", "nan"]].isna().all(axis=None)
    assert "nan" in str(more.select("nan").summary(statistics=True))


def test_statistics_of_variables_on_several_devices(variables: jv.Variables) -> None:
    mesh = jax.make_mesh((2,), ("x",))
    spread = variables.to([("conv/kernel", NamedSharding(mesh, PartitionSpec("x"))), ("conv/bias", jax.devices()[3])])
    rows = spread.summary(statistics=True).rows
    assert [row.mean for row in rows] == [2.0, 3.0, 7.0]
    assert [row.mean for row in spread.packed().summary(statistics=True).rows] == [2.0, 3.0, 7.0]


def test_statistics_are_columns_of_the_table_when_asked_for(variables: jv.Variables) -> None:
    assert "std" not in str(variables.summary())
    text = str(variables.summary(statistics=True))
    assert text.splitlines()[0].split()[-4:] == ["mean", "std", "min", "max"]
    assert text.splitlines()[3].split()[-4:] == ["3", "1.871", "1", "6"]


# -- notebooks, rich, treescope --------------------------------------------------------------------------------------


def test_a_notebook_shows_a_table(variables: jv.Variables) -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    for shown in (variables, variables.packed(), variables.summary()):
        formats, _ = formatters.DisplayFormatter().format(shown)
        assert "<table>" in formats["text/html"] and "conv/kernel" in formats["text/html"]


def test_rich_prints_variables_as_their_tables(variables: jv.Variables) -> None:
    text = printed(variables)
    lines = text.splitlines()
    assert lines[0].split()[0] == "name"
    row = next(line for line in lines if "conv/kernel" in line)
    assert row.split()[:6] == ["conv/kernel", "(2,", "2)", "float32", "4", "16"]
    assert any("total" in line for line in lines)
    assert printed(variables.summary()) == text
    assert "Variables(3 variables" in printed({"state": variables})


@pytest.mark.parametrize(
    ("width", "missing"),
    [(160, []), (90, ["bytes"]), (76, ["bytes", "collections"]), (60, ["bytes", "collections", "sharding"])],
)
def test_names_are_whole_in_a_narrow_terminal(width: int, missing: list[str]) -> None:
    def net() -> None:
        jv.get_variable("encoder/block/kernel", [2, 3], collections=[jv.GraphKeys.GLOBAL_VARIABLES, "params"])

    lines = printed(jv.transform(net).specs(), width=width).splitlines()
    wide = ["name", "shape", "dtype", "count", "bytes", "trainable", "collections", "sharding"]
    assert lines[0].split() == [column for column in wide if column not in missing]
    assert lines[2].startswith("encoder/block/kernel  ")
    assert all(len(line) <= width for line in lines)
    if "collections" not in missing:
        assert "variables" not in lines[2] and "params" in lines[2]
    long = "/".join(["scope"] * 12)
    text = printed(jv.Variables({long: 1.0}), width=40)
    assert long in "".join(line.split(" ")[0] for line in text.splitlines()[1:])  # folded, not cut off


def test_rich_prints_what_looks_like_markup_as_it_is() -> None:
    assert "[red]w" in printed(jv.Variables({"[red]w": 1.0}))


def test_rich_prints_a_plan() -> None:
    into = jv.Variables({"digits_net/conv1/biases": jnp.zeros(16, jnp.float32), "missing": 0.0})
    plan = jv.checkpoint.plan(OLD, into)
    text = printed(plan)
    assert "restore from" in text and " [16] " in text
    assert "MISSING missing" in text and "1 of 2 variables restored" in text and "not used:" in text


@pytest.mark.filterwarnings("ignore:The chararray class is deprecated:DeprecationWarning")
def test_treescope_shows_names_and_values(variables: jv.Variables) -> None:
    text = treescope.render_to_text({"state": variables | {"hole": jax.ShapeDtypeStruct((2,), jnp.float32)}})
    assert "'state': Variables({" in text
    assert "'conv/bias': <jax.Array([1, 3], dtype=bfloat16)>" in text
    assert "'hole': ShapeDtypeStruct(shape=(2,)" in text
    assert "DictKey" not in text
    page = treescope.render_to_html(variables, compressed=False)
    assert "conv/kernel" in page and "jax.Array" in page


# -- chex ------------------------------------------------------------------------------------------------------------


def test_chex_accepts_variables(variables: jv.Variables) -> None:
    same = jax.tree.map(jnp.copy, variables)
    chex.assert_trees_all_equal(variables, same)
    chex.assert_trees_all_close(variables, same)
    chex.assert_trees_all_equal_structs(variables, same)
    chex.assert_trees_all_equal_shapes(variables, same)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, variables._abstract())
    chex.assert_trees_all_equal_dtypes(variables, same)
    chex.assert_trees_all_equal_sizes(variables, same)
    chex.assert_tree_all_finite(variables)
    chex.assert_tree_has_only_ndarrays(variables)
    chex.assert_tree_no_nones(variables)
    chex.assert_tree_is_on_device(variables.to(jax.devices()[1]), device=jax.devices()[1])
    chex.assert_tree_shape_prefix(jax.tree.map(lambda x: jnp.stack([x, x]), variables), (2,))


def test_what_chex_says_has_the_names(variables: jv.Variables) -> None:
    more = jv.assign_add(variables, "conv/kernel", jnp.ones((2, 2)))
    with pytest.raises(AssertionError, match="'conv/kernel'"):
        chex.assert_trees_all_close(variables, more)
    with pytest.raises(AssertionError, match="'conv/bias': shapes"):
        chex.assert_trees_all_equal_shapes(variables, variables | {"conv/bias": jnp.ones(3, jnp.bfloat16)})
    with pytest.raises(AssertionError, match="conv/bias, conv/kernel"):
        chex.assert_trees_all_equal_structs(variables, variables.scope("conv"))
    broken = variables.replace({"conv/kernel": jnp.full((2, 2), jnp.inf)})
    with pytest.raises(AssertionError, match="conv/kernel 'Nonfinite'"):
        chex.assert_tree_all_finite(broken)


def test_chex_dataclasses_hold_variables(variables: jv.Variables) -> None:
    @chex.dataclass
    class Run:
        variables: jv.Variables
        score: jax.Array

    run = Run(variables=variables, score=jnp.float32(0.5))
    later = jax.jit(lambda run: jax.tree.map(lambda x: x + 1, run))(run)
    assert isinstance(later.variables, jv.Variables)
    assert int(later.variables["global_step"]) == 8 and float(later.score) == 1.5
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(run)]
    assert ".variables['conv/kernel']" in paths
