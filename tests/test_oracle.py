"""Thousands of scope programs behave as TensorFlow says: names, reuse, collections, values, errors.

The quick run takes a part of the programs; ``-m slow`` takes all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from fake_store import FakeBackend
from oracle_runner import Backend, differences, entries
from shared import shared_path

# What the public API does not take on from TensorFlow's graph: shards as variables of their own, and 64 bits.
LEFT_OUT = {"partitioner", "partitioned", "x64"}
# Programs in which the key and TensorFlow's op name differ: without tf1_op_names, jaxvars keeps the key.
RENAMED = {"opname_uniquified"}


@pytest.fixture(scope="module")
def programs() -> list[dict[str, Any]]:
    return list(entries(shared_path("oracle", "programs.jsonl.gz")))


def disagreements(programs: Iterable[dict[str, Any]], backend: Backend, left_out: set[str]) -> list[str]:
    """A line for each program that differs from TensorFlow's answer."""
    found: list[str] = []
    for entry in programs:
        if left_out.isdisjoint(entry["e"]["tags"]) and (problems := differences(entry, backend)):
            found.append(f"program {entry['id']}: {problems[0]}")
    return found


def test_scopes_agree_on_all_programs(programs: list[dict[str, Any]]) -> None:
    """Every name, scope, reuse flag, shape, dtype, collection and error, without arrays."""
    assert len(programs) == 5000
    assert disagreements(programs, FakeBackend(), set()) == []


@pytest.mark.parametrize("tf1_op_names", [False, True])
def test_jaxvars_agrees_on_a_sample(programs: list[dict[str, Any]], tf1_op_names: bool) -> None:
    from jaxvars_backend import JaxvarsBackend

    left_out = LEFT_OUT if tf1_op_names else LEFT_OUT | RENAMED
    assert disagreements(programs[tf1_op_names::14], JaxvarsBackend(tf1_op_names), left_out) == []


@pytest.mark.slow
@pytest.mark.parametrize("tf1_op_names", [False, True])
def test_jaxvars_agrees_on_all_programs(programs: list[dict[str, Any]], tf1_op_names: bool) -> None:
    from jaxvars_backend import JaxvarsBackend

    left_out = LEFT_OUT if tf1_op_names else LEFT_OUT | RENAMED
    assert disagreements(programs, JaxvarsBackend(tf1_op_names), left_out) == []
