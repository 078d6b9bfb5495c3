"""Deprecations: old names go on working, warn whoever wrote them, and cannot be forgotten."""

from __future__ import annotations

import ast
import inspect
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import pytest
from packaging.version import Version

import jaxvars as jv
from jaxvars._deprecation import deprecated, renamed_argument, renamed_attributes
from jaxvars.errors import InvalidTypeError

PACKAGE = Path(jv.__file__).parent


@deprecated("jv.double()", instead="2 * x", since="0.2", removed_in="0.4")
def double(x: float) -> float:
    """Return twice x."""
    return 2 * x


class Box:
    """A method whose argument was renamed."""

    @renamed_argument("keep_dims", "keepdims", since="0.2", removed_in="0.4")
    def total(self, x: int, keepdims: bool = False) -> tuple[int, bool]:
        return x, keepdims


def here() -> int:
    """The line that calls this."""
    frame = sys._getframe(1)
    return frame.f_lineno


# Warnings


def test_a_deprecated_function_works_and_points_at_its_caller() -> None:
    with pytest.warns(DeprecationWarning) as caught:
        line, value = here(), double(3)
    assert value == 6
    (warning,) = caught
    assert (
        str(warning.message) == "jv.double() is deprecated since jaxvars 0.2 and will be removed in 0.4. Write: 2 * x"
    )
    assert (warning.filename, warning.lineno) == (__file__, line)


def test_a_deprecated_function_keeps_its_name_and_says_so() -> None:
    assert (double.__name__, double.__doc__) == ("double", "Return twice x.")
    assert "Write: 2 * x" in double.__deprecated__  # pyright: ignore[reportFunctionMemberAccess]


def test_the_warning_points_past_jax() -> None:
    with pytest.warns(DeprecationWarning) as caught:
        line, value = here(), jax.jit(double)(3.0)
    assert value == 6
    assert (caught[0].filename, caught[0].lineno) == (__file__, line)


def test_the_warning_points_past_jaxvars() -> None:
    ours = {"__name__": "jaxvars.made_up", "double": double}
    exec("def quadruple(x):\n    return 2 * double(x)", ours)
    with pytest.warns(DeprecationWarning) as caught:
        line, value = here(), ours["quadruple"](1)
    assert value == 4
    assert (caught[0].filename, caught[0].lineno) == (__file__, line)


def test_a_place_is_shown_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            double(1)
        double(1)
    assert len(caught) == 2
    assert len({warning.lineno for warning in caught}) == 2


def test_a_deprecation_can_be_made_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match="Write: 2 "):
            double(1)


# Arguments


def test_a_renamed_argument_is_passed_on() -> None:
    with pytest.warns(DeprecationWarning) as caught:
        line, value = here(), Box().total(1, keep_dims=True)  # pyright: ignore[reportCallIssue]
    assert value == (1, True)
    assert str(caught[0].message) == (
        "keep_dims= of Box.total() is deprecated since jaxvars 0.2 and will be removed in 0.4. Write: keepdims="
    )
    assert (caught[0].filename, caught[0].lineno) == (__file__, line)


def test_the_new_argument_does_not_warn() -> None:
    assert Box().total(1, keepdims=True) == (1, True)
    assert Box().total(2, True) == (2, True)
    assert list(inspect.signature(Box.total).parameters) == ["self", "x", "keepdims"]


def test_both_names_are_an_error() -> None:
    with pytest.raises(InvalidTypeError, match=r"given keep_dims= and keepdims=.*Write keepdims= alone"):
        Box().total(1, keepdims=True, keep_dims=True)  # pyright: ignore[reportCallIssue]


# Attributes of modules


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of ours some of whose names were changed."""
    made = ModuleType("jaxvars.made_up")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    vars(made).update(new=1, below=ModuleType("below"))
    vars(made.below)["deep"] = 2
    vars(made)["__getattr__"] = renamed_attributes(
        made.__name__,
        {"old": "new", "deep": "below.deep"},
        since="0.2",
        removed_in="0.4",
        otherwise=renamed_attributes(made.__name__, {"older": "new"}, since="0.1", removed_in="0.3"),
    )
    yield made


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("old", 1, "jv.made_up.old is deprecated since jaxvars 0.2 and will be removed in 0.4. Write: jv.made_up.new"),
        ("deep", 2, "jv.made_up.deep is deprecated since .* Write: jv.made_up.below.deep"),
        ("older", 1, "jv.made_up.older is deprecated since jaxvars 0.1 .*removed in 0.3. Write: jv.made_up.new"),
    ],
)
def test_a_former_name_leads_to_the_new_one(module: ModuleType, name: str, value: int, text: str) -> None:
    with pytest.warns(DeprecationWarning, match=text) as caught:
        line, found = here(), getattr(module, name)
    assert found == value
    assert (caught[0].filename, caught[0].lineno) == (__file__, line)


@pytest.mark.usefixtures("module")
def test_importing_a_former_name_points_at_the_import() -> None:
    with pytest.warns(DeprecationWarning) as caught:
        line = here() + 1
        from jaxvars.made_up import old  # pyright: ignore
    assert old == 1
    assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, line)}


def test_an_unknown_name_is_still_unknown(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match=r"module 'jaxvars.made_up' has no attribute 'odl'"):
        module.odl  # noqa: B018


# The end of a deprecation


def problems(source: str, version: str) -> list[str]:
    """What is wrong with the deprecations in a module, were it released as `version`."""
    return [
        f"line {node.lineno}: {problem}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        if (keywords := {word.arg: word.value for word in node.keywords}).keys() & {"since", "removed_in"}
        if (problem := _problem(keywords.get("since"), keywords.get("removed_in"), Version(version)))
    ]


def _problem(since: ast.expr | None, removed_in: ast.expr | None, version: Version) -> str:
    bounds = [node.value for node in (since, removed_in) if isinstance(node, ast.Constant)]
    if len(bounds) != 2:
        return "write since= and removed_in= as literals"
    start, end = (Version(str(bound)) for bound in bounds)
    if Version(version.base_version) >= end:
        return f"its end, {end}, has come: remove it"
    if end < _soonest_end(start):
        return f"deprecated since {start}, it stays until {_soonest_end(start)} at least"
    return ""


def _soonest_end(since: Version) -> Version:
    """The policy of CONTRIBUTING.md: two minor versions later, and from 1.0 on the next major one."""
    return Version(f"{since.major + 1}.0") if since.major else Version(f"0.{since.minor + 2}")


def test_no_deprecation_is_forgotten() -> None:
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "_deprecation.py"]
    found = {str(path.relative_to(PACKAGE)): problems(path.read_text(), jv.__version__) for path in paths}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("call", "version", "problem"),
    [
        ('f(since="0.2", removed_in="0.4")', "0.2.0", ""),
        ('f(since="0.2", removed_in="0.4")', "0.3.9", ""),
        ('f(since="0.2", removed_in="0.4")', "0.4.0", "line 1: its end, 0.4, has come: remove it"),
        ('f(since="0.2", removed_in="0.4")', "0.4.0.dev1", "line 1: its end, 0.4, has come: remove it"),
        ('f(since="0.2", removed_in="0.4")', "1.0", "line 1: its end, 0.4, has come: remove it"),
        ('f(since="0.2", removed_in="0.3")', "0.2.0", "line 1: deprecated since 0.2, it stays until 0.4 at least"),
        ('f(since="1.2", removed_in="1.4")', "1.2.0", "line 1: deprecated since 1.2, it stays until 2.0 at least"),
        ('f(since="1.2", removed_in="2.0")', "1.9.0", ""),
        ('f(since=VERSION, removed_in="0.4")', "0.2.0", "line 1: write since= and removed_in= as literals"),
        ('f(removed_in="0.4")', "0.2.0", "line 1: write since= and removed_in= as literals"),
        ("f(steps=3)", "9.0", ""),
    ],
)
def test_what_counts_as_forgotten(call: str, version: str, problem: str) -> None:
    assert problems(call, version) == ([problem] if problem else [])
