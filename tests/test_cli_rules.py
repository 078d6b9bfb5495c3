"""Rules files: what they may hold, what is said of one that holds something else, and writing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jaxvars as jv
from jaxvars.checkpoint.rules_file import read_rules, rules_text
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError
from jaxvars.rules import Rule


def reading(tmp_path: Path, text: str | bytes) -> list[Rule]:
    file = tmp_path / "rules.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rules(file)


def test_all_forms(tmp_path: Path) -> None:
    rules = reading(tmp_path, r'[["tower/(.*)", "conv1/\\1"], ["logits/", null], ["a", ["b", "c"], "stack(axis=1)"]]')
    assert rules == [
        Rule(r"tower/(.*)", r"conv1/\1"),
        Rule("logits/", None),
        Rule("a", ("b", "c"), jv.rules.stack(1)),
    ]
    assert reading(tmp_path, '{"a": "b", "c": null}') == [Rule("a", "b"), Rule("c", None)]
    assert reading(tmp_path, '[["a", "b", null]]') == [Rule("a", "b")]
    assert reading(tmp_path, b"\xef\xbb\xbf[]") == []


def test_rules_do_what_they_say(tmp_path: Path) -> None:
    rules = reading(tmp_path, r'[["fc/(.*)", "dense/\\1", "transpose(1, 0) >> cast(\"bfloat16\")"]]')
    renamed = jv.Variables({"fc/w": np.ones((2, 3), np.float32)}).rename(rules)
    assert (renamed["dense/w"].shape, renamed["dense/w"].dtype.name) == ((3, 2), "bfloat16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[["a", "b"],\n ["c" "d"]]', r"line 2, column 7: Expecting ',' delimiter"),
        ("", "line 1, column 1"),
        ('"a"', "holds no rules"),
        ("5", "holds no rules"),
        ('[["a", "b"], ["c"]]', "rule 2: a rule is"),
        ('[["a", "b"], "c"]', 'rule 2: a rule is .* not "c"'),
        ('[["a", "b", "stack()", 1]]', "rule 1: a rule is"),
        ('[[1, "b"]]', "rule 1: the pattern is a text, not 1"),
        ('[["a", 2]]', "rule 1: the replacement is a name, a list of names, or null, not 2"),
        ('[["a", []]]', "rule 1: the replacement"),
        ('[["a", ["b", 1]]]', "rule 1: the replacement"),
        ('[["a", "b", 7]]', "rule 1: the transform is a text, not 7"),
        ('[["a", "b", "transpos(1, 0)"]]', "rule 1: .*Did you mean transpose"),
        ('[["a", "b", "__import__(\'os\')"]]', "rule 1: "),
        ('{"a": "b", "a": "c"}', '"a" is there twice'),
        ("[" * 100_000, "rules.json"),
        (b'["\xff"]', "UTF-8"),
        ("[1e999999999999]", "rule 1"),
        ("[" + "1" * 5000 + "]", "rules.json"),
    ],
)
def test_what_is_no_rule_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        reading(tmp_path, text)
    assert "rules.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match=r"none\.json"):
        read_rules(tmp_path / "none.json")
    with pytest.raises(DataLossError, match="Is a directory"):
        read_rules(tmp_path)
    monkeypatch.setattr("jaxvars.checkpoint.rules_file._LONGEST", 10)
    with pytest.raises(InvalidArgumentError, match="more than"):
        reading(tmp_path, " " * 20)


def test_text_reads_back(tmp_path: Path) -> None:
    rules = [
        Rule(r"tower/(\d+)/(.*)", r"conv\1/\2"),
        Rule("logits/", None),
        Rule("é", "層", jv.rules.transpose(1, 0) >> jv.rules.cast("bfloat16")),
        Rule("layers", ("a", "b"), jv.rules.stack()),
        Rule("odd\n\ud800", 'quo"te'),
    ]
    text = rules_text(rules)
    assert "é" in text and len(text.splitlines()) == 7
    assert reading(tmp_path, text) == rules
    assert reading(tmp_path, rules_text([])) == []
    assert rules_text([("a", "b")]) == rules_text([["a", "b", None]])


def test_functions_are_no_text() -> None:
    for function in (np.transpose, lambda array: array, jv.rules.cast("float16") >> np.transpose):
        with pytest.raises(InvalidArgumentError):
            rules_text([("a", "b", function)])
