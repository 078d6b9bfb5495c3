"""Thousands of scope programs behave as TensorFlow says: names, reuse, collections, values, errors.

The quick run takes a part of the programs; ``-m slow`` takes all. Those with 64-bit dtypes run with
``JAX_ENABLE_X64=1``, and then all of them run in the quick run too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from fake_store import FakeBackend
from oracle_runner import Backend, differences, entries
from shared import shared_path
from widths import X64


@pytest.fixture(scope="module")
def programs() -> list[dict[str, Any]]:
    return list(entries(shared_path("oracle/programs.jsonl.gz")))


def disagreements(programs: Iterable[dict[str, Any]], backend: Backend, by_key: bool = False) -> list[str]:
    """A line for each program that differs from TensorFlow's answer."""
    found: list[str] = []
    for entry in programs:
        if problems := differences(entry, backend, by_key=by_key):
            found.append(f"program {entry['id']}: {problems[0]}")
    return found


def is_wide(entry: dict[str, Any]) -> bool:
    """Whether a program speaks of 64-bit dtypes, even where TensorFlow refuses the statement that does."""
    return "int64" in (text := json.dumps(entry["p"])) or "float64" in text


def check_jaxvars(programs: list[dict[str, Any]], tf1_op_names: bool, kind: str) -> None:
    """Run programs in the given kind of frame; those with 64-bit dtypes where JAX has them.

    With ``tf1_op_names`` all of TensorFlow's answers are compared. Without, a variable is named by its key: where
    TensorFlow's op has another name, as a name scope had that one, the key is compared instead. Where a ``tf.Variable``
    had it, one program in 19, jaxvars refuses to give two variables one key, and the program is compared up to there.

    In `apply` the variables are given: an error about one that does not exist yet, but is made later in the program,
    is none there. Those programs, one in 80, are compared up to there. And a variable that the program adds to a
    collection is in it from the start.
    """
    import jaxvars_backend as backends

    kinds = {"store": backends.JaxvarsBackend, "specs": backends.SpecsBackend, "apply": backends.ApplyBackend}
    chosen = [entry for entry in programs if X64 or not is_wide(entry)]
    backend: Backend = kinds[kind](tf1_op_names)
    assert disagreements(chosen, backend, by_key=not tf1_op_names) == []
    refused = 0 if tf1_op_names else 3 + len(chosen) / 14
    given = 3 + len(chosen) / 60 if kind == "apply" else 0
    assert len(backend.cut_short) <= refused + given


def test_scopes_agree_on_all_programs(programs: list[dict[str, Any]]) -> None:
    """Every name, scope, reuse flag, shape, dtype, collection and error, without arrays."""
    assert len(programs) == 5000
    backend = FakeBackend()
    assert disagreements(programs, backend) == []
    assert not backend.cut_short


@pytest.mark.parametrize("kind", ["store", "specs", "apply"])
@pytest.mark.parametrize("tf1_op_names", [False, True])
def test_jaxvars_agrees_on_a_sample(programs: list[dict[str, Any]], tf1_op_names: bool, kind: str) -> None:
    check_jaxvars(programs[tf1_op_names::32], tf1_op_names, kind)


@pytest.mark.skipif(not X64, reason="needs JAX_ENABLE_X64=1")
@pytest.mark.parametrize("kind", ["store", "specs", "apply"])
@pytest.mark.parametrize("tf1_op_names", [False, True])
def test_jaxvars_agrees_on_64_bits(programs: list[dict[str, Any]], tf1_op_names: bool, kind: str) -> None:
    wide = [entry for entry in programs if is_wide(entry)]
    assert len(wide) == 142
    check_jaxvars(wide, tf1_op_names, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["store", "specs", "apply"])
@pytest.mark.parametrize("tf1_op_names", [False, True])
def test_jaxvars_agrees_on_all_programs(programs: list[dict[str, Any]], tf1_op_names: bool, kind: str) -> None:
    check_jaxvars(programs, tf1_op_names, kind)
