"""Every error of TF1's rules of training, templates, savers and checkpoints: its class, TF1's phrase in it, what we
add, and that the wrong call changed nothing: no value, no file, no name, no collection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import bundle_writer as writer
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_errors_part_b import seen

import jaxvars as jv


class Case(NamedTuple):
    """A wrong call. `phrase` is a pattern, TF1's words; `add` is what we add."""

    name: str
    call: Callable[..., Any]
    kind: type[Exception]
    phrase: str
    add: str = ""


def by_name(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


# Inside a frame


def get(name: str, shape: Any = (), dtype: Any = "float32") -> Any:
    return jv.get_variable(name, shape, dtype, jv.zeros_initializer())


def layer(name: str) -> Any:
    return jv.Variable(1.0, name="v") if name == "Variable" else get(name)


TRAINING = [
    Case(
        "step twice",
        lambda _: jv.train.create_global_step(),
        ValueError,
        '"global_step" already exists',
        "get_or_create_global_",
    ),
    Case(
        "template: new variable",
        lambda template: template("v"),
        ValueError,
        "layer/v does not exist, or was not created with",
    ),
    Case(
        "template: tf.Variable",
        lambda template: template("Variable"),
        ValueError,
        "Trainable variable created when calling a template after the first time, perhaps you used",
        "get_variable",
    ),
    Case("template: no function", lambda _: jv.make_template("a", 3), TypeError, "takes a function"),
    Case("template: no name", lambda _: jv.make_template(None, get), ValueError, "name"),
]


@by_name(TRAINING)
def test_training_in_a_frame(case: Case) -> None:
    with jv.VariableStore() as store:
        jv.train.create_global_step()
        template = jv.make_template("layer", layer)
        template("w")
        before, keys = seen(), list(store.variables)
        with pytest.raises(case.kind, match=case.phrase) as caught:
            case.call(template)
        assert isinstance(caught.value, jv.JaxvarsError) and case.add in str(caught.value)
        assert (seen(), list(store.variables)) == (before, keys)


@pytest.mark.parametrize(
    ("shape", "dtype", "text"),
    [((), "float32", 'Existing "global_step" does not have integer type'), ((2,), "int32", "is not scalar")],
)
def test_a_global_step_of_another_kind(shape: Any, dtype: str, text: str) -> None:
    with jv.VariableStore():
        get("global_step", shape, dtype)
        for ask in (jv.train.get_global_step, jv.train.create_global_step, jv.train.get_or_create_global_step):
            with pytest.raises(TypeError, match=text):
                ask()
        assert [v.key for v in jv.global_variables()] == ["global_step"]
    variables = jv.Variables({"global_step": np.zeros(shape, dtype)})
    for ask in (jv.train.get_global_step, jv.train.create_global_step, jv.train.get_or_create_global_step):
        with pytest.raises(TypeError, match=text):
            ask(variables)


# Savers and checkpoints

VARIABLES = jv.Variables({"a": jnp.ones(2, "float32"), "b": jnp.zeros(3, "float32")})
HOLES = jv.Variables({"a": jax.ShapeDtypeStruct((2,), "float32"), "b": jnp.zeros(3)})
OTHER = jv.Variables({name: jnp.zeros(size, "float32") for name, size in {"a": 2, "new": 3, "newer": 3}.items()})
Saver = jv.train.Saver


def save(variables: Any = VARIABLES, path: Any = "model", **options: Any) -> Callable[[], Any]:
    return lambda: Saver().save(variables, path, **options)


def restore(into: Any = VARIABLES, path: Any = "old/model", saver: Callable[[], Any] = Saver) -> Callable[[], Any]:
    return lambda: saver().restore(into, path)


def mapped(assignment_map: Any, path: str = "old/model") -> Callable[[], Any]:
    return lambda: jv.checkpoint.restore(path, VARIABLES, assignment_map=assignment_map)


FILES = [
    Case("var_list", lambda: Saver("a"), TypeError, "Variables to save should be passed in a dict or a list", "Saver("),
    Case("var_list of arrays", lambda: Saver([jnp.ones(2)]), TypeError, "Variable to save is not a Variable", "handle"),
    Case("same name", lambda: Saver(["a", "b", "a"]), ValueError, "At least two variables have the same name: a"),
    Case(
        "two names", lambda: Saver({"x": "a", "y": "a"}), ValueError, "The same saveable will be restored with two nam"
    ),
    Case("deferred", lambda: Saver(["a"], defer_build=True), ValueError, "If `var_list` is provided then build cannot"),
    Case(
        "not built", lambda: Saver(defer_build=True).save(VARIABLES, "m"), RuntimeError, r"`build\(\)` should be called"
    ),
    Case("nothing", save(jv.Variables({})), ValueError, "No variables to save", "allow_empty=True"),
    Case("collision", save(path="checkpoint"), ValueError, "'latest_filename' collides with 'save_path'"),
    Case("collision of names", save(path="x/m", latest_filename="m"), ValueError, "collides with 'save_path'"),
    Case("state in a folder", save(latest_filename="x/y"), ValueError, "must not contain path components"),
    Case(
        "uninitialized", save(HOLES), RuntimeError, "attempting to use uninitialized values?: a", "variables_initiali"
    ),
    Case("unknown name", lambda: Saver(["z", "y"]).save(VARIABLES, "model"), KeyError, "z[^$]*y", "var_list"),
    Case("step", save(global_step=1.5), TypeError, "global_step is an integer"),
    Case("step's name", save(global_step="step"), KeyError, "step"),
    Case("swapped", save("model", VARIABLES), TypeError, "variables is str, not Variables"),
    Case("no path", restore(path=None), ValueError, "Can't load save_path when it is None"),
    Case("no checkpoint", restore(path="none"), ValueError, "The passed save_path is not a valid checkpoint: none"),
    Case("no checkpoint, later TF", restore(path="none"), KeyError, "Failed to find any matching files for"),
    Case(
        "missing keys", restore(OTHER), KeyError, "Key new not found in checkpoint[^$]*Key newer not found in checkpoi"
    ),
    Case(
        "shape",
        restore(jv.Variables({"a": jnp.ones(3, "float32")})),
        ValueError,
        "Assign requires shapes .*to match",
        "[2]",
    ),
    Case("dtype", restore(jv.Variables({"a": jnp.ones(2, "int32")})), ValueError, "float32.*int32|int32.*float32", "a"),
    Case("graph", lambda: Saver(saver_def=3), ValueError, "saver_def"),
    Case(
        "list: no folder", lambda: jv.train.list_variables("none/x"), KeyError, "Failed to find any matching files for"
    ),
    Case(
        "list: empty folder", lambda: jv.train.list_variables("empty"), KeyError, "Couldn't find 'checkpoint' file or"
    ),
    Case(
        "load: no key",
        lambda: jv.train.load_variable("old/model", "aa"),
        KeyError,
        "Key aa not found in checkpoint",
        "a",
    ),
    Case("state: incomplete", lambda: jv.train.get_checkpoint_state("half"), ValueError, "incomplete"),
    Case(
        "state: own path",
        lambda: jv.train.update_checkpoint_state("empty", "empty/checkpoint"),
        RuntimeError,
        "conflicts with path used for checkpoint state",
    ),
    Case(
        "state: times",
        lambda: jv.train.update_checkpoint_state("empty", "empty/m", all_model_checkpoint_timestamps=[1.0, 2.0]),
        ValueError,
        "Checkpoint timestamps, if provided, must match checkpoint paths",
    ),
    Case("map: tensor", mapped({"zz": "a"}), ValueError, "Tensor zz is not found in .* checkpoint"),
    Case("map: variable", mapped({"a": "aa"}), ValueError, "with scope only name .*should map to scope only a", "'aa'"),
    Case(
        "map: shape",
        mapped({"a": "b"}),
        ValueError,
        r"Shape of variable b \(\[3\]\) doesn't match with shape of tensor",
    ),
    Case(
        "map: scope's name", mapped({"old/": "b"}), ValueError, "maps to the variable 'b'", "'scope/': 'other_scope/'"
    ),
    Case("map: no scope", mapped({"old/": "none/"}), ValueError, "no variable is in the scope 'none/'"),
    Case("map: kind", mapped({"a": 3}), TypeError, "takes a name or a variable"),
    Case(
        "initial values outside",
        lambda: jv.train.init_from_checkpoint("old/model", {"a": "a"}),
        RuntimeError,
        "init_from_checkpoint works in a model",
        "jv.checkpoint.restore('old/model', variables, assignment_map=...)",
    ),
]


def listing() -> list[tuple[str, bytes]]:
    return sorted((str(path), path.read_bytes() if path.is_file() else b"") for path in Path().rglob("*"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "half", "old"):
        os.mkdir(name)
    Path("half/checkpoint").touch()
    writer.write_bundle(Path("old/model"), {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)})


@pytest.mark.usefixtures("folder")
@by_name(FILES)
def test_savers_and_checkpoints(case: Case) -> None:
    leaves, files = [*VARIABLES.values(), *OTHER.values()], listing()
    with pytest.raises(case.kind, match=case.phrase) as caught:
        case.call()
    assert isinstance(caught.value, jv.JaxvarsError)
    assert case.add in str(caught.value), str(caught.value)
    assert listing() == files
    assert all(a is b for a, b in zip(leaves, [*VARIABLES.values(), *OTHER.values()], strict=True))
