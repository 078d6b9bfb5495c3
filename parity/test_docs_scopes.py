"""The programs of `docs/scopes.md`, run by TensorFlow: each prints what the page says."""

from __future__ import annotations

import sys
import types
from typing import Any

import documents
import pytest

from parity.live import fresh_graph, tf

PAGE = "docs/scopes.md"


def _tensorflow_as_jaxvars() -> types.ModuleType:
    """A module that the page's ``import jaxvars as jv`` finds: TF1's names, and a fresh graph as the store."""
    module = types.ModuleType("jaxvars")
    module.__dict__["__getattr__"] = lambda name: getattr(tf, name)
    module.__dict__["VariableStore"] = fresh_graph
    return module


@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:UserWarning")  # `tf.layers`
def test_tensorflow_prints_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jaxvars", _tensorflow_as_jaxvars())
    names: dict[str, Any] = {"__name__": "__main__"}
    compared = 0
    for block in documents.programs(PAGE):
        printed = documents.run(block.text, PAGE, block.line, names)
        assert printed == (block.printed or ""), f"{PAGE}:{block.line}: TensorFlow prints something else"
        compared += block.printed is not None
    assert compared >= 20
