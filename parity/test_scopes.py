"""Programs of scopes and variables do in jaxvars what they do in TensorFlow.

Names, keys, shapes, dtypes, identity, flags, collections, losses, values, the scopes' state, and the class and
category of each error.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given

from parity.live import examples
from parity.scope_differences import differences
from parity.scope_programs import Program, programs
from parity.scope_runner import Run
from parity.scope_sides import InApply, InSpecs, Jaxvars, TensorFlow

MAKING = ("get", "get_local", "variable", "call")


def compare(program: Program, side: Jaxvars) -> None:
    """Run the program on both sides."""
    theirs = Run(TensorFlow(), program)
    if isinstance(side, InApply):
        # What the given variables hold exists from the start there, and what they lack ends the run.
        assume(not refused(theirs) and not remembered(theirs))
    if not side.tf1_op_names:
        assume(not theirs.side.renamed)
    found = list(differences(theirs, Run(side, program)))
    assert not found, "\n".join(found)


def refused(run: Run) -> bool:
    """Whether TensorFlow refused to make or find a variable."""
    return any("error" in record and record["statement"]["do"] in MAKING for record in run.records)


def remembered(run: Run) -> bool:
    """Whether the program added a variable to a collection: in a later frame it is in it from the start."""
    return any(record.get("statement", {}).get("do") == "collect" for record in run.records)


@pytest.mark.parametrize("tf1_op_names", [False, True])
@examples(200)
@given(program=programs())
def test_in_a_store(program: Program, tf1_op_names: bool) -> None:
    compare(program, Jaxvars(tf1_op_names))


@pytest.mark.parametrize("tf1_op_names", [False, True])
@examples(75)
@given(program=programs())
def test_in_specs(program: Program, tf1_op_names: bool) -> None:
    compare(program, InSpecs(tf1_op_names))


@pytest.mark.parametrize("tf1_op_names", [False, True])
@examples(75)
@given(program=programs())
def test_in_init_and_apply(program: Program, tf1_op_names: bool) -> None:
    compare(program, InApply(tf1_op_names))
