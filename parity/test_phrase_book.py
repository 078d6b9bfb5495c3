"""The left-hand sides of docs/phrase-book.md: TensorFlow runs them, and they make the variables that ours make."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxvars as jv
from parity.live import fresh_graph, tf

PAGE = Path(__file__).parents[1] / "docs" / "phrase-book.md"
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# contrib and slim are not part of TensorFlow 2. The rest are words about several lines.
_NOT_RUN = ("contrib", "slim.", "beside the training op")


def _rows() -> Iterator[tuple[list[str], list[str], bool]]:
    """Left and right phrases of each row about the inside of a model, and whether TensorFlow has them."""
    text = PAGE.read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        if "Inside of a model" not in section:
            continue
        for row in re.findall(r"^\| (.*) \|$", section, flags=re.MULTILINE):
            left, right = row.split(" | ")
            phrases = _CODE.findall(left)
            there = bool(phrases) and not any(word in left for word in _NOT_RUN)
            if left != "TF1":
                yield phrases, _CODE.findall(right), there


def _theirs() -> dict[str, Any]:
    """What the left-hand sides use without having made it."""
    return {
        "tf": tf,
        "x": tf.ones([4, 3]),
        "labels": tf.constant([0, 1, 0, 1]),
        "sequence": tf.ones([4, 5, 3]),
        "image": tf.ones([1, 8, 8, 3]),
        "getter": lambda getter, *args, **kwargs: getter(*args, **kwargs),
        "creator": lambda next_creator, **kwargs: next_creator(**kwargs),
        "function": lambda x: tf.matmul(x, tf.get_variable("w", [3, 2])),
    }


def _ours() -> dict[str, Any]:
    x, labels, sequence = jnp.ones([4, 3]), jnp.array([0, 1, 0, 1]), jnp.ones([4, 5, 3])
    return {"jax": jax, "jnp": jnp, "jv": jv, "x": x, "labels": labels, "sequence": sequence}


def _names(variables: Any) -> set[str]:
    """Checkpoint keys: a partitioned variable has one."""
    return {re.sub(r"/part_\d+$", "", variable.op.name) for variable in variables}


def _run(phrases: list[str], names: dict[str, Any]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        for code in phrases:
            exec(compile(code, code, "exec"), names)


def test_both_sides_make_the_same_variables() -> None:
    made: list[tuple[list[str], set[str], set[str]]] = []
    store = jv.VariableStore(0)
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"), fresh_graph(), store:
        warnings.simplefilter("ignore")
        theirs, ours = _theirs(), _ours()
        seen: tuple[set[str], set[str]] = (set(), set())
        for left, right, there in _rows():
            _run(right, ours)
            if there:
                _run(left, theirs)
            now = (_names([*tf.global_variables(), *tf.local_variables()]), set(store.variables))
            if there:
                made.append((left, now[0] - seen[0], now[1] - seen[1]))
            seen = now
    assert len(made) > 70
    assert [row for row in made if row[1] != row[2]] == []
    assert sum(bool(row[1]) for row in made) > 20


@pytest.mark.parametrize("section", ["Models and sessions", "Gradients and training", "Saving and restoring"])
def test_what_the_other_left_hand_sides_call_exists(section: str) -> None:
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    lefts = [row.split(" | ")[0] for row in re.findall(r"^\| (.*) \|$", text, flags=re.MULTILINE)]
    paths = {path for left in lefts for path in re.findall(r"\btf\.((?:\w+\.)*\w+)", left)}
    assert len(paths) > 5
    assert not {path for path in paths if not _exists(path)}


def _exists(path: str) -> bool:
    value = tf
    for name in path.split("."):
        value = getattr(value, name, None)
    return value is not None
