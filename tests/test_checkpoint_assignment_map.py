"""TF1's assignment_map in all its forms, and its errors."""

import bundle_writer as writer
import jax
import numpy as np
import pytest

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.errors import (
    InvalidArgumentError,
    InvalidTypeError,
)


def specs(**shapes):
    return jv.Variables(
        {name.replace("__", "/"): jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}
    )


def scoped():
    return specs(
        useful_scope__w=((2, 3), "float32"),
        useful_scope__b=((3,), "float32"),
        useful_scope_1__w=((2, 3), "float32"),
        top=((2, 3), "float32"),
    )


@pytest.fixture
def scopes(tmp_path):
    tensors = {
        "old/w": np.full((2, 3), 1, np.float32),
        "old/b": np.full(3, 2, np.float32),
        "w": np.full((2, 3), 3, np.float32),
        "b": np.full(3, 4, np.float32),
        "top": np.full((2, 3), 5, np.float32),
        "useful_scope/w": np.full((2, 3), 6, np.float32),
        "useful_scope/b": np.full(3, 7, np.float32),
        "useful_scope_1/w": np.full((2, 3), 8, np.float32),
    }
    return writer.write_bundle(tmp_path / "m", tensors)


def restored_values(path, into, assignment_map):
    restored = checkpoint.restore(path, into, assignment_map=assignment_map)
    return {
        name: None if isinstance(value, jax.ShapeDtypeStruct) else float(np.ravel(value)[0])
        for name, value in restored.items()
    }


def test_assignment_map_in_tf1s_forms(scopes):
    into = scoped()
    nothing = dict.fromkeys(into)
    assert restored_values(scopes, into, {"old/": "useful_scope/"}) == {
        **nothing,
        "useful_scope/w": 1,
        "useful_scope/b": 2,
    }
    assert restored_values(scopes, into, {"old/w": "top"}) == {**nothing, "top": 1}
    assert restored_values(scopes, into, {"/": "useful_scope/"}) == {
        **nothing,
        "useful_scope/w": 3,
        "useful_scope/b": 4,
    }
    everything = {"top": 5, "useful_scope/w": 6, "useful_scope/b": 7, "useful_scope_1/w": 8}
    assert restored_values(scopes, into, {"/": "/"}) == everything
    assert restored_values(scopes, into, [("old/w", "top"), ("old/w", "useful_scope_1/w")]) == {
        **nothing,
        "top": 1,
        "useful_scope_1/w": 1,
    }
    handle = into.variable_specs["top"]
    assert restored_values(scopes, into, {"w": handle, "b:0": "useful_scope/b:0"}) == {
        **nothing,
        "top": 3,
        "useful_scope/b": 4,
    }


@pytest.mark.parametrize(
    ("assignment_map", "text"),
    [
        ({"nope": "top"}, "Tensor nope is not found in .* checkpoint"),
        ({"old/": "useful_scope_1/", "nope/": "useful_scope/"}, "Tensor nope/b is not found"),
        (
            {"old/b": "top"},
            r"Shape of variable top \(\[2, 3\]\) doesn't match with shape of tensor old/b \(\[3\]\)",
        ),
        (
            {"old/w": "useful_scope/x"},
            "scope only name useful_scope should map to scope only old/w.*nearest: useful",
        ),
        ({"old/w": "topp"}, "Should be 'scope/': 'other_scope/'.*'topp'; nearest: top"),
        ({"old/": "useful_scope"}, r"Write: \{'old/': 'useful_scope/'\}"),
        ({"old/": "top"}, "scope 'old/' maps to the variable 'top'"),
        ({"old/": "usefull_scope/"}, "no variable is in the scope 'usefull_scope/'.*useful_scope/"),
        ([("old/w", "top"), ("w", "top")], "mapped twice"),
    ],
)
def test_assignment_map_errors_are_tf1s_value_errors(scopes, assignment_map, text):
    with pytest.raises(InvalidArgumentError, match=text) as caught:
        checkpoint.restore(scopes, scoped(), assignment_map=assignment_map)
    assert isinstance(caught.value, ValueError)


def test_assignment_map_of_wrong_types(scopes):
    for bad in ({"w": 3}, {3: "w"}, ["w"], [("w", "top", "x")]):
        with pytest.raises(InvalidTypeError, match="assignment_map"):
            checkpoint.plan(scopes, scoped(), assignment_map=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="not both"):
        checkpoint.plan(scopes, scoped(), rules=[("top", "w")], assignment_map={"w": "top"})
