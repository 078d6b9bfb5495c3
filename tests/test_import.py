"""What `import jaxvars` brings in, as counts, and the names that wait for their first use."""

from __future__ import annotations

import ast
import importlib
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jaxvars as jv

SOURCE = Path(jv.__file__).read_text()
INITIALIZER_MODULES = sorted({f"jaxvars.initializers.{module}" for module, _ in jv.initializers._CLASSES.values()})
LAZY_MODULES = sorted({f"jaxvars.{module}" for module in jv._LAZY.values()} - {"jaxvars.initializers"})

# What one import may bring. Each module of ours costs 0.2 ms, each dataclass 0.5 ms (it is compiled anew in each
# process), so a new one among these had better be needed by every program.
MOST_MODULES = 58
MOST_DATACLASSES = 2

COUNT = """
import json, sys
import jax
before = set(sys.modules)
import jaxvars as jv
{then}
new = [name for name in sys.modules if name not in before]
made = sorted(
    f"{{name}}.{{key}}" for name in new if name.startswith("jaxvars")
    for key, value in vars(sys.modules[name]).items()
    if isinstance(value, type) and value.__module__ == name and "__dataclass_params__" in vars(value)
)
print(json.dumps([new, made]))
"""


def _fresh(program: str) -> Any:
    """What a program prints as JSON in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def brought() -> tuple[list[str], list[str]]:
    """The modules that `import jaxvars` adds to those of `import jax`, and the dataclasses in them."""
    new, made = _fresh(COUNT.format(then=""))
    return new, made


def _foreign(modules: list[str]) -> list[str]:
    roots = {name.split(".")[0] for name in modules}
    assert "jaxvars" in roots
    ours_or_python = {"jaxvars"} | set(sys.stdlib_module_names)
    return [name for name in modules if name.split(".")[0] not in ours_or_python]


def test_import_brings_modules_of_ours_alone(brought: tuple[list[str], list[str]]) -> None:
    """Nothing else of JAX either: `jax.extend` alone, which imports Pallas, takes as long as all of ours."""
    assert _foreign(brought[0]) == []


def test_import_brings_few_modules(brought: tuple[list[str], list[str]]) -> None:
    ours = [name for name in brought[0] if name.split(".")[0] == "jaxvars"]
    assert len(ours) <= MOST_MODULES, ours


def test_import_makes_few_dataclasses(brought: tuple[list[str], list[str]]) -> None:
    assert len(brought[1]) <= MOST_DATACLASSES, brought[1]


def test_import_waits_with_what_not_every_program_uses(brought: tuple[list[str], list[str]]) -> None:
    waiting = [*LAZY_MODULES, *INITIALIZER_MODULES, "jaxvars.filling", "jaxvars.summary", "jaxvars.scopes.slicing"]
    assert [name for name in waiting if name in brought[0]] == []


def test_a_first_init_brings_no_other_package() -> None:
    then = 'jv.transform(lambda x: x @ jv.get_variable("w", [3, 2])).init(0, jax.numpy.ones([1, 3]))'
    new, _ = _fresh(COUNT.format(then=then))
    assert [name for name in _foreign(new) if name.startswith("jax.extend") or "pallas" in name] == []
    assert [name for name in LAZY_MODULES if name in new] == []


# Names


def _static_imports(source: str) -> Iterator[ast.ImportFrom]:
    """What the block for type checkers imports."""
    (block,) = [
        node for node in ast.parse(source).body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node)
    ]
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        yield line


def _static_names() -> dict[str, str]:
    """Name -> module below jaxvars, as the block for type checkers has it; a module stands for itself."""
    found: dict[str, str] = {}
    for line in _static_imports(SOURCE):
        module = (line.module or "").removeprefix("jaxvars").removeprefix(".")
        found.update({alias.name: module or alias.name for alias in line.names})
    return found


def test_what_type_checkers_see_is_what_there_is() -> None:
    assert _static_names() == jv._LAZY


def test_what_type_checkers_see_of_the_initializers_is_what_there_is() -> None:
    package = jv.initializers
    assert package.__file__
    found = {
        alias.asname: (line.module, alias.name)
        for line in _static_imports(Path(package.__file__).read_text())
        for alias in line.names
    }
    wanted = {
        name + spelling: (f"jaxvars.initializers.{module}", kind)
        for name, (module, kind) in package._CLASSES.items()
        for spelling in ("", "_initializer")
    }
    assert found == wanted
    assert set(wanted) <= set(package.__all__) and dir(package) == package.__all__
    for name, (module, kind) in wanted.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), kind)
    assert not hasattr(package, "zero")


def test_every_public_name_is_listed_once() -> None:
    assert sorted(set(jv.__all__)) == jv.__all__
    assert set(jv._LAZY) <= set(jv.__all__)
    assert dir(jv) == jv.__all__


@pytest.mark.parametrize("name", sorted(jv._LAZY))
def test_a_name_is_what_its_module_has(name: str) -> None:
    module = importlib.import_module(f"jaxvars.{jv._LAZY[name]}")
    value = getattr(jv, name)
    assert value is (module if name == jv._LAZY[name] else getattr(module, name))
    assert vars(jv)[name] is value  # the second use asks nobody


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(jv, "get_varible")
    with pytest.raises(AttributeError, match="module 'jaxvars' has no attribute 'get_varible'"):
        jv.get_varible  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_a_star_import_brings_every_name() -> None:
    program = "import json\nfrom jaxvars import *\nprint(json.dumps(sorted(globals())))"
    assert set(jv.__all__) <= set(_fresh(program))


def test_no_module_takes_the_place_of_a_name() -> None:
    """Importing a module sets it as an attribute of the package, whatever name stood there (``jv.assign``)."""
    program = """
import importlib, json, pkgutil
import jaxvars as jv
for found in pkgutil.iter_modules(jv.__path__):
    if not found.name.startswith("__"):
        importlib.import_module(f"jaxvars.{found.name}")
kind = type(jv)
for found in pkgutil.iter_modules(jv.initializers.__path__):
    importlib.import_module(f"jaxvars.initializers.{found.name}")
assert not [name for name in jv.initializers.__all__ if isinstance(getattr(jv.initializers, name), kind)]
print(json.dumps(sorted(name for name in jv.__all__ if isinstance(getattr(jv, name), kind))))
"""
    modules = {name for name, module in jv._LAZY.items() if name == module} | {"errors", "initializers"}
    assert set(_fresh(program)) == modules


def test_lazy_functions_and_classes_survive_pickling() -> None:
    for name, module in jv._LAZY.items():
        if name != module:
            assert pickle.loads(pickle.dumps(getattr(jv, name))) is getattr(jv, name)
