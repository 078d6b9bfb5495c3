"""What pyproject.toml, the version and the texts about installing say, against each other.

The packages themselves are built and tried by tools/check_packages.py.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import jaxvars as jv
from jaxvars.errors import UnavailableError

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = Path(jv.__file__).parent
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


# The version


def test_the_version_is_a_semantic_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+|\.dev\d+)?", jv.__version__)
    assert str(Version(jv.__version__)) == jv.__version__


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT


def test_what_is_installed_has_the_version() -> None:
    assert version("jaxvars") == jv.__version__, "the installed metadata is old: run pip install again"


def test_the_citation_has_the_version() -> None:
    (cited,) = re.findall(r"^version: (\S+)$", (REPOSITORY / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == jv.__version__


def test_the_changelog_has_the_version_and_what_comes_next() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == Version(jv.__version__).base_version
    assert sorted(headings[1:], key=Version, reverse=True) == headings[1:]


# Extras


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_readme_lists_the_extra(extra: str) -> None:
    assert f'[{extra}]"` |' in (REPOSITORY / "README.md").read_text()


def test_texts_name_extras_that_there_are() -> None:
    """Also that they name them alike, with quotes that every shell takes."""
    strings = [
        (path.name, node.value)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "jaxvars[" in node.value
    ]
    named = [(name, found) for name, text in strings for found in re.findall(r'pip install "jaxvars\[(\w+)\]"', text)]
    assert {extra for _, extra in named} >= {"export", "legacy", "tour", "train"}
    assert {extra for _, extra in named} <= set(EXTRAS)
    assert not [name for name, text in strings if re.search(r"""pip install '?jaxvars\[""", text)]


def test_exported_models_name_their_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = jv.transform(lambda x: x @ jv.get_variable("w", [3, 2]))
    x = jnp.ones([1, 3])
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(UnavailableError, match=r'pip install "jaxvars\[export\]"'):
        jv.train.export_meta_graph(tmp_path / "model", model, model.init(0, x), x)
    with pytest.raises(UnavailableError, match=r'pip install "jaxvars\[export\]"'):
        jv.train.import_meta_graph(tmp_path / "model")


# The check of the packages


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "tools"))
    try:
        return importlib.import_module("check_packages")
    finally:
        sys.path.remove(str(REPOSITORY / "tools"))


def test_every_extra_is_tried(tool: ModuleType) -> None:
    """By a program of its own, or because what it lists is imported; the programs are those of extras."""
    programs = {path.stem for path in tool.TRIALS.glob("*.py")} - {"base", "listed"}
    assert programs <= set(EXTRAS)
    assert set(tool.ELSEWHERE) <= set(EXTRAS)


def test_every_requirement_has_one_lower_bound(tool: ModuleType) -> None:
    lines = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    needs = [Requirement(line) for line in lines if not line.startswith("jaxvars[")]
    assert all([bound.operator for bound in need.specifier] == [">="] for need in needs)
    bounds = tool.oldest()
    assert {line.partition("==")[0] for line in bounds} == {need.name for need in needs}
    assert len(bounds) == len({need.name for need in needs}), "a package has two lower bounds"


def test_requirements_of_an_extra_are_those_of_extras_in_it(tool: ModuleType) -> None:
    assert "optax" in tool.requirements_of("train")
    assert {"optax", "dm-haiku", "h5py", "flatbuffers", "jupytext", "sphinx"} <= set(tool.requirements_of("docs"))


def test_the_pythons_are_those_the_project_asks_for(tool: ModuleType) -> None:
    assert PROJECT["requires-python"] == f">={tool.pythons()[0]}"


def test_the_tests_that_run_with_the_wheel_exist(tool: ModuleType) -> None:
    assert [name for name in tool.TESTS if not (REPOSITORY / "tests" / f"test_{name}.py").exists()] == []


# What it finds wrong


def test_links_that_a_package_index_cannot_follow_are_found(tool: ModuleType) -> None:
    contents = importlib.import_module("packages.contents")
    text = "[how](docs/how.md) and [there](https://example.org) and [below](#below) " + "x" * 1000
    raw = f"Metadata-Version: 2.4\nName: jaxvars\nVersion: 1.0\nDescription-Content-Type: text/markdown\n\n{text}"
    assert contents._in_metadata(raw.encode()) == ["a package index cannot follow the README's link to docs/how.md"]


def test_missing_and_superfluous_files_are_named(tool: ModuleType) -> None:
    contents = importlib.import_module("packages.contents")
    assert contents._differences(Path("a.whl"), {"both", "new"}, {"both", "old"}) == [
        "a.whl lacks old",
        "a.whl should not have new",
    ]
