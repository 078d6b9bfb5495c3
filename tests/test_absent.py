"""Names of TF1 that jaxvars does not have: the error says what to write instead."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
import subprocess
import sys
import traceback
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxvars as jv
from jaxvars import _absent

PAIRS = [(package, name) for package, hints in _absent._HINTS.items() for name in hints]
CODE = re.compile(r"\b(?:jv|jnp|jax|optax)(?:\.[A-Za-z_]\w*)+")


@pytest.fixture(autouse=True)
def no_module_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of ours is an attribute too, once it has been imported: the one that writes tables of variables."""
    monkeypatch.delattr(jv, "summary", raising=False)


def refused(package: str, name: str) -> AttributeError:
    with pytest.raises(AttributeError) as caught:
        getattr(importlib.import_module(package), name)
    return caught.value


@pytest.mark.parametrize(("package", "name"), PAIRS)
def test_what_a_hint_names_exists(package: str, name: str) -> None:
    """And what it stands for does not."""
    optax = pytest.importorskip("optax")
    text = str(refused(package, name))
    head, _, hint = text.partition(": ")
    assert head == f"module '{package}' has no attribute '{name}'" and hint
    for module in ("jax.scipy.linalg", "jax.profiler", "jax.experimental.checkify"):
        importlib.import_module(module)
    for code in CODE.findall(hint):
        root, _, rest = code.partition(".")
        attrgetter(rest)({"jv": jv, "jnp": jnp, "jax": jax, "optax": optax}[root])


@pytest.mark.parametrize(("package", "name"), PAIRS)
def test_python_adds_no_guess_of_its_own(package: str, name: str) -> None:
    assert "Did you mean" not in "".join(traceback.format_exception(refused(package, name)))


@pytest.mark.parametrize(
    ("package", "name", "hint"),
    [
        ("jaxvars", "matmul", "JAX has it, write jnp.matmul"),
        ("jaxvars", "float32", "JAX has it, write jnp.float32"),
        ("jaxvars", "one_hot", "JAX has it, write jax.nn.one_hot"),
        ("jaxvars", "reduce_mean", "write jnp.mean"),
        ("jaxvars", "reset_default_graph", "each init and apply of a model begins anew"),
        ("jaxvars", "random_normal", "jax.random.normal(jv.next_rng_key(), shape)"),
        ("jaxvars", "get_varible", "did you mean jv.get_variable, "),
        ("jaxvars.train", "LoggingTensorHook", "jv.train.LoggingHook(every_n_iter=100)"),
        ("jaxvars.train", "MonitoredTrainingSession", "jv.train.run(step, variables, batches"),
        ("jaxvars.train", "AdamOptimiser", "did you mean jv.train.AdamOptimizer"),
        ("jaxvars.layers", "conv2", "did you mean jv.layers.conv2d, "),
        ("jaxvars.layers", "fully_connected", "write jv.layers.dense"),
        ("jaxvars.nn", "relu", "JAX has it, write jax.nn.relu"),
        ("jaxvars.nn", "tanh", "JAX has it, write jax.nn.tanh"),
    ],
)
def test_the_text(package: str, name: str, hint: str) -> None:
    assert hint in str(refused(package, name))


@pytest.mark.parametrize("package", sorted(_absent._HINTS))
def test_a_name_like_nothing_gets_no_hint(package: str) -> None:
    assert str(refused(package, "qqqqqq")) == f"module '{package}' has no attribute 'qqqqqq'"
    assert str(refused(package, "_reduce_mean")) == f"module '{package}' has no attribute '_reduce_mean'"


@pytest.mark.parametrize("package", sorted(_absent._HINTS))
def test_a_module_is_a_module_as_before(package: str) -> None:
    module: Any = importlib.import_module(package)
    assert not hasattr(module, "Session") and getattr(module, "Session", None) is None
    assert set(module.__all__) <= set(dir(module))
    error = refused(package, "Session")
    assert str(pickle.loads(pickle.dumps(error))) == str(copy.copy(error)) == str(error)


def test_hints_are_imported_when_a_name_is_missing() -> None:
    program = """
import sys, jaxvars, jaxvars.train, jaxvars.layers, jaxvars.nn
assert "jaxvars._absent" not in sys.modules
assert not hasattr(jaxvars, "Session")
assert "jaxvars._absent" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
