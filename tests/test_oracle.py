"""Thousands of scope programs behave as TensorFlow says: names, reuse, collections, values, errors.

The quick run takes a part of the programs; ``-m slow`` takes all. Those with 64-bit dtypes run with
``JAX_ENABLE_X64=1``,
and then all of them run in the quick run too.
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

# What jaxvars does not take on from TensorFlow's graph: shards as variables of their own.
LEFT_OUT = {"partitioner", "partitioned"}
# Programs in which the key and TensorFlow's op name differ: without tf1_op_names, jaxvars keeps the key.
RENAMED = {"opname_uniquified"}


@pytest.fixture(scope="module")
def programs() -> list[dict[str, Any]]:
    return list(entries(shared_path("oracle/programs.jsonl.gz")))


def disagreements(programs: Iterable[dict[str, Any]], backend: Backend) -> list[str]:
    """A line for each program that differs from TensorFlow's answer."""
    found: list[str] = []
    for entry in programs:
        if problems := differences(entry, backend):
            found.append(f"program {entry['id']}: {problems[0]}")
    return found


def runnable(programs: list[dict[str, Any]], tf1_op_names: bool) -> list[dict[str, Any]]:
    """The programs that jaxvars can run."""
    left_out = LEFT_OUT if tf1_op_names else LEFT_OUT | RENAMED
    chosen = [e for e in programs if left_out.isdisjoint(e["e"]["tags"]) and (X64 or not is_wide(e))]
    assert len(chosen) > len(programs) * 0.75
    return chosen


def is_wide(entry: dict[str, Any]) -> bool:
    """Whether a program speaks of 64-bit dtypes, even where TensorFlow refuses the statement that does."""
    return "int64" in (text := json.dumps(entry["p"])) or "float64" in text


def check_jaxvars(programs: list[dict[str, Any]], tf1_op_names: bool, kind: str) -> None:
    """Run programs in the given kind of frame."""
    import jaxvars_backend as backends

    chosen = runnable(programs, tf1_op_names)
    if kind == "apply":
        # What the given variables hold exists from the start, so errors about existence may be others there.
        chosen = [entry for entry in chosen if not entry["e"]["errs"]]
        backend: Backend = backends.ApplyBackend(tf1_op_names)
    elif kind == "specs":
        backend = backends.SpecsBackend(tf1_op_names)
    else:
        backend = backends.JaxvarsBackend(tf1_op_names)
    assert disagreements(chosen, backend) == []


def test_scopes_agree_on_all_programs(programs: list[dict[str, Any]]) -> None:
    """Every name, scope, reuse flag, shape, dtype, collection and error, without arrays."""
    assert len(programs) == 5000
    assert disagreements(programs, FakeBackend()) == []


@pytest.mark.parametrize("kind", ["store", "specs", "apply"])
@pytest.mark.parametrize("tf1_op_names", [False, True])
def test_jaxvars_agrees_on_a_sample(programs: list[dict[str, Any]], tf1_op_names: bool, kind: str) -> None:
    check_jaxvars(programs[tf1_op_names::16], tf1_op_names, kind)


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
