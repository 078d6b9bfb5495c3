"""The house: floors import only downwards, modules stay small, and importing jaxvars stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jaxvars"

# Each floor may import those above it in this list, and its own. A name stands for a module or a package.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "_source", "_compat", "_calls", "_deprecation", "_absent", "_lazy"),
    ("scopes",),
    (
        "spec", "fitting", "keeping", "layout", "rules", "_turned", "buffers", "_arguments", "initializers",
        "regularizers", "_keys", "filling", "_making", "_runs", "values", "updates", "scatter", "state", "edits",
        "views", "nesting", "summary",
        "variables",
    ),
    (
        "_operators", "_assigning", "_handles", "assign", "scattering", "initialize", "refusals", "visits", "frame",
        "slot", "arg_scope",
        "definition", "variable",
        "partitioned", "partitioning", "defining", "frames", "staging", "quick",
        "store", "undoing", "template", "agreement", "transform", "multi", "gradients",
        "layer_frame", "layer_storage", "layer_recording", "layer_program", "layer_scan",
    ),
    ("placement",),
    ("checkpoint",),
    ("train", "layers", "nn", "losses", "metrics", "interop"),
    ("tour", "commands"),
    ("__init__", "__main__"),
)  # fmt: skip
HEAVY = ("orbax", "flax", "optax", "chex", "rich", "tqdm", "h5py", "safetensors", "IPython", "google_crc32c",
         "matplotlib", "sklearn", "tensorstore", "tensorflow")  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(module: Path) -> str:
    """The name of the module or package directly below jaxvars."""
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def _floor(room: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"jaxvars/{room} is on no floor of tests/test_house.py: add it")


def _top_level_imports(module: Path) -> set[str]:
    """The rooms of jaxvars that a module imports when it is imported (not in functions, nor for types only)."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(module.read_text())]
    while pending:
        node = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and child.module and child.module.split(".")[0] == "jaxvars":
                rest = child.module.split(".")[1:]
                found.update([rest[0]] if rest else [alias.name for alias in child.names])
            if isinstance(child, ast.Import):
                found.update(a.name.split(".")[1] for a in child.names if a.name.startswith("jaxvars."))
            pending.append(child)
    return {room for room in found if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists()}


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_a_floor_imports_only_from_floors_below(module: Path) -> None:
    floor = _floor(_room(module))
    above = {room for room in _top_level_imports(module) if _floor(room) > floor}
    assert not above, f"{module.name} imports {above}, which stand on a higher floor"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_modules_stay_small(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 450


def test_scopes_are_pure_python() -> None:
    for module in (PACKAGE / "scopes").glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"jax", "numpy", "flax", "orbax"}, module.name


def test_import_pulls_in_no_heavy_package() -> None:
    code = f"import sys, jaxvars; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists_and_is_documented() -> None:
    import jaxvars as jv

    packages = [
        jv,
        jv.train,
        jv.interop,
        jv.layers,
        jv.nn,
        jv.losses,
        jv.metrics,
        jv.placement,
        jv.checkpoint,
        jv.initializers,
        jv.regularizers,
        jv.errors,
    ]
    bare = [
        f"{package.__name__}.{name}"
        for package in packages
        for name in package.__all__
        if isinstance(getattr(package, name), type | FunctionType) and not getattr(package, name).__doc__
    ]
    assert not bare
