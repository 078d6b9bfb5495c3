"""The surroundings of the parity suite: TensorFlow is there, its own warnings are its own, examples are counted.

``JAXVARS_PARITY_EXAMPLES=10`` takes ten times as many examples, ``JAXVARS_PARITY_SEED=7`` other ones.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import hypothesis
import pytest

# Not stored from run to run: what a run checks depends on the seed alone.
hypothesis.settings.register_profile(
    "parity",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)

SEED = int(os.environ.get("JAXVARS_PARITY_SEED", "0"))
PROPERTY = "parity_examples"
WARNINGS_OF_TENSORFLOW = (
    "ignore:::(tensorflow|tf_keras|keras|google|flatbuffers|astunparse|gast|h5py)",
    "ignore:.*is deprecated and will be removed in a future version:UserWarning",
)

_executed = 0


def pytest_configure(config: pytest.Config) -> None:
    """Stop with a clear word where TensorFlow is absent."""
    if importlib.util.find_spec("tensorflow") is None:
        raise pytest.UsageError(
            "The parity suite compares with TensorFlow itself, which is not installed here. In an environment of its "
            'own: pip install -e ".[parity]" && pytest parity'
        )
    hypothesis.settings.load_profile("parity")
    for line in WARNINGS_OF_TENSORFLOW:
        config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count the examples that properties execute, and seed them."""
    for item in items:
        function = getattr(item, "obj", None)
        if hypothesis.is_hypothesis_test(function) and not hasattr(function.hypothesis.inner_test, "counted"):
            function.hypothesis.inner_test = _counted(function.hypothesis.inner_test)
            hypothesis.seed(SEED)(function)


def _counted(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    def call(*args: Any, **kwargs: Any) -> Any:
        global _executed
        result = test(*args, **kwargs)
        _executed += 1
        return result

    call.counted = True  # type: ignore[attr-defined]
    return call


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Note in the report how many examples the test executed."""
    before = _executed
    try:
        return (yield)
    finally:
        if _executed > before:
            item.user_properties.append((PROPERTY, _executed - before))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many examples were compared with TensorFlow, by module."""
    count: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":
                continue
            for name, value in getattr(report, "user_properties", ()):
                if name == PROPERTY:
                    count[report.nodeid.partition("::")[0]] += value
    if not count:
        return
    terminalreporter.section(f"compared with TensorFlow (seed {SEED})")
    for module, number in sorted(count.items()):
        terminalreporter.write_line(f"{number:7,} examples  {module}")
    terminalreporter.write_line(f"{count.total():7,} examples in all")
