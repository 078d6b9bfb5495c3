"""Strict surroundings for every test: 8 fake devices, no rank promotion, no frame left open."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

# Our own code never relies on rank promotion. Examples are users' text and run with JAX's defaults.
jax.config.update("jax_numpy_rank_promotion", "raise")
# A property that compiles at its first example, or shares its cores, is not slow.
hypothesis.settings.register_profile("jaxvars", deadline=None)
hypothesis.settings.load_profile("jaxvars")


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs beside pytest's own cache: half of a run is compiling, much of it the same again.

    Each worker has a folder of its own, as JAX would read what another one has written in part. Programs that tests
    start compile as anybody's do.
    """
    if config.pluginmanager.has_plugin("cacheprovider"):
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        folder = config.rootpath / ".pytest_cache" / "programs" / worker
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True)
def _surroundings(request: pytest.FixtureRequest) -> Iterator[None]:
    from jaxvars.frame import open_frame

    if isinstance(request.node, pytest.DoctestItem):
        with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
            yield
    else:
        yield
    assert open_frame() is None, "a frame was left open"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what JAX's leak check finds through no fault of ours, where it is on."""
    if not jax.config.jax_check_tracer_leaks:
        return
    from leaks import left_out

    for item in items:
        if reason := left_out(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def without_x64() -> Iterator[None]:
    """For tests of what 32 bits mean, in a run with ``JAX_ENABLE_X64=1``."""
    with jax.enable_x64(False):
        yield
