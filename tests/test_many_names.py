"""Errors about very many names: all are listed, the nearest names are searched for a few only."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

import jaxvars as jv
from jaxvars.errors import NotFoundError

COUNT = 200


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that were searched for among the others."""
    found: list[str] = []
    search = difflib.get_close_matches
    monkeypatch.setattr(
        difflib, "get_close_matches", lambda name, *args, **kw: found.append(name) or search(name, *args, **kw)
    )
    yield found


def test_replace_of_many_names_that_do_not_exist(searches: list[str]):
    variables = jv.Variables({f"weights{i}": jax.ShapeDtypeStruct((), "float32") for i in range(COUNT)})
    with pytest.raises(NotFoundError, match=f"{COUNT} problems, nothing was changed") as caught:
        variables.replace({f"weight{i}": 1.0 for i in range(COUNT)})
    lines = str(caught.value).splitlines()[1:]
    assert "Nearest: weights0" in lines[0]
    assert lines[-1] == f'  variable "weight{COUNT - 1}" does not exist.'
    assert len(set(searches)) == 10


def test_apply_without_many_of_the_variables(searches: list[str]):
    def fn() -> None:
        for i in range(COUNT):
            jv.get_variable(f"v{i}", [])

    variables = jv.Variables({f"v{i}": jnp.float32(1) for i in range(0, COUNT, 2)})
    with pytest.raises(NotFoundError, match=f"{COUNT // 2} variables do not fit") as caught:
        jv.transform(fn).apply(variables)
    text = str(caught.value)
    assert text.count("missing (there is ") == 10
    assert text.count(": missing") == COUNT // 2
    assert len(set(searches)) == 10
