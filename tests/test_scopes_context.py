"""The current graph: frames, threads, asyncio tasks, snapshots, memory and speed."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_store import FakeStore

from jaxvars.errors import FailedPreconditionError
from jaxvars.scopes import (
    AUTO_REUSE,
    NameGraph,
    create_variable,
    current_graph,
    get_current_name_scope,
    get_variable_scope,
    name_scope,
    request_variable,
    variable_creator_scope,
    variable_scope,
)


def opened(*arguments: Any, **options: Any) -> str:
    with variable_scope(*arguments, **options) as scope:
        return scope.name


def in_thread(function: Callable[[], Any]) -> Any:
    """Run in a new thread and return the result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=20)


# Frames


def test_a_frame_is_a_fresh_graph() -> None:
    assert current_graph() is None
    for _ in range(2):
        graph = NameGraph()
        with graph.as_current() as entered:
            assert entered is graph is current_graph()
            assert opened(None, "d") == "d"
            assert graph.variable_op_name("w") == "w"
    assert current_graph() is None


def test_frames_nest_and_restore_the_outer_one() -> None:
    outer, inner = NameGraph(), NameGraph()
    with outer.as_current(), variable_scope("a") as a, name_scope("n"):
        with inner.as_current():
            assert get_variable_scope().name == ""
            assert get_current_name_scope() == ""
            assert opened(None, "d") == "d"
        assert current_graph() is outer
        assert get_variable_scope() is a
        assert get_current_name_scope() == "a/n"
        with pytest.raises(KeyError), inner.as_current(), variable_scope("x"):
            raise KeyError
        assert get_variable_scope() is a


def test_closing_a_frame_drops_scopes_left_open() -> None:
    with NameGraph().as_current(), variable_scope("a"):
        with NameGraph().as_current():
            variable_scope("left").__enter__()
            name_scope("open").__enter__()
        assert (get_variable_scope().name, get_current_name_scope()) == ("a", "a")


def test_a_scope_of_an_outer_frame_cannot_be_closed_inside() -> None:
    with NameGraph().as_current():
        scope = variable_scope("a")
        scope.__enter__()
        with NameGraph().as_current(), pytest.raises(RuntimeError, match="Improper nesting"):
            scope.__exit__(None, None, None)
        scope.__exit__(None, None, None)


def test_nothing_keeps_a_closed_frame_alive() -> None:
    class Item:
        name = "big"

    graph, item = NameGraph(), Item()
    refs = weakref.ref(graph), weakref.ref(item)
    manager = variable_scope(None, "d")
    gc.disable()
    try:
        with graph.as_current(), manager as scope:
            graph.collections.add("k", item)
            graph.snapshot()
            scope.reuse_variables()
        del graph, item
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()
    assert scope.name == "d"


# Threads


def test_a_new_thread_is_outside_the_frame() -> None:
    with NameGraph().as_current(), variable_scope("a"):
        assert in_thread(current_graph) is None


def test_threads_share_names_and_have_their_own_scope() -> None:
    graph = NameGraph()
    with graph.as_current(), variable_scope("main", reuse=AUTO_REUSE):

        def work() -> tuple[Any, ...]:
            with graph.as_current(), variable_scope("main") as scope:
                return scope.name, scope.reuse, get_current_name_scope(), opened(None, "d")

        assert opened(None, "d") == "main/d"
        assert in_thread(work) == ("main", False, "main_1", "main/d")
        assert get_variable_scope().name == "main"


def test_two_threads_with_disjoint_scopes_share_the_store() -> None:
    graph, store = NameGraph(), FakeStore()

    def make() -> str:
        with graph.as_current(), variable_scope("foo"):
            return store.get_variable("v", [1]).name

    assert in_thread(make) == "foo/v:0"
    with pytest.raises(ValueError, match="already exists"):
        in_thread(make)


def test_two_threads_with_scopes_open_at_once() -> None:
    graph, store = NameGraph(), FakeStore()
    first_is_open, second_is_done = threading.Event(), threading.Event()

    def first() -> str:
        with graph.as_current(), variable_scope("foo"):
            name = store.get_variable("v", [1]).name
            first_is_open.set()
            assert second_is_done.wait(20)
            return name + " " + get_variable_scope().name

    def second() -> str:
        assert first_is_open.wait(20)
        try:
            with graph.as_current():
                assert get_variable_scope().name == ""
                with variable_scope("foo"):
                    store.get_variable("v", [1])
        except ValueError as error:
            return str(error)
        finally:
            second_is_done.set()
        return ""

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(first), pool.submit(second)]
        assert results[0].result(timeout=20) == "foo/v:0 foo"
        assert "already exists" in results[1].result(timeout=20)


def test_a_captured_scope_carries_the_prefix_into_a_thread() -> None:
    graph, store = NameGraph(), FakeStore()
    with graph.as_current(), variable_scope("main") as main:

        def plain() -> str:
            with graph.as_current(), variable_scope("foo"):
                return store.get_variable("v", [1]).name

        def captured() -> str:
            with graph.as_current(), variable_scope(main), variable_scope("foo"):
                return store.get_variable("v", [1]).name

        assert in_thread(plain) == "foo/v:0"
        assert in_thread(captured) == "main/foo/v:0"


def test_names_stay_unique_under_many_threads() -> None:
    graph = NameGraph()
    start = threading.Barrier(8)

    def work() -> list[str]:
        start.wait(20)
        return [graph.variable_op_name("w") for _ in range(200)]

    with ThreadPoolExecutor(8) as pool:
        names = [name for result in [pool.submit(work) for _ in range(8)] for name in result.result()]
    assert len(set(names)) == 1600


# asyncio


def test_tasks_have_their_own_scope_and_counters() -> None:
    async def task(name: str, barrier: asyncio.Barrier) -> list[str]:
        seen = [get_variable_scope().name]
        with variable_scope(name) as scope:
            await barrier.wait()
            seen += [opened(None, "d"), opened(None, "d")]
            await barrier.wait()
            assert get_variable_scope() is scope
        seen.append(opened(None, "e"))
        await barrier.wait()
        return [*seen, get_variable_scope().name]

    async def main() -> list[list[str]]:
        barrier = asyncio.Barrier(2)
        with NameGraph().as_current(), variable_scope("outer"):
            tasks = [asyncio.create_task(task(name, barrier)) for name in ("a", "b")]
            assert opened(None, "e") == "outer/e"
            results = await asyncio.gather(*tasks)
            assert get_variable_scope().name == "outer"
        return results

    for name, seen in zip("ab", asyncio.run(main()), strict=True):
        assert seen == ["outer", f"outer/{name}/d", f"outer/{name}/d_1", "outer/e", "outer"]


def test_decorating_a_coroutine_function() -> None:
    @variable_scope("a")
    async def coroutine() -> str:
        await asyncio.sleep(0)
        return get_variable_scope().name

    async def main() -> tuple[str, str]:
        with NameGraph().as_current():
            return await coroutine(), get_variable_scope().name

    assert asyncio.run(main()) == ("a", "")


# Snapshots


def body(graph: NameGraph) -> list[Any]:
    """A traced body: everything it says depends on names, counters, collections and reuse."""
    scope = get_variable_scope()
    seen: list[Any] = [scope.reuse, scope.dtype, list(graph.collections.get("k"))]
    with variable_scope(None, "layer") as layer, name_scope("n") as name:
        seen += [layer.name, layer.original_name_scope, name, graph.variable_op_name("w")]
        seen.append(graph.unique_variable_name("v"))
        graph.collections.add("k", "item")
        scope.reuse_variables()
        scope.set_dtype("int32")
    seen.append(opened("layer/x"))
    with variable_scope(layer):
        seen.append(opened(None, "x"))
    return seen


def test_restore_makes_a_body_run_again_as_the_first_time() -> None:
    graph = NameGraph()
    with graph.as_current(), variable_scope("outer"), name_scope("before"):
        body(graph)
        moment = graph.snapshot()
        first = body(graph)
        for _ in range(2):
            graph.restore(moment)
            assert body(graph) == first
        assert body(graph) != first
        assert (get_variable_scope().name, get_current_name_scope()) == ("outer", "outer/before")
    assert current_graph() is None


def test_restore_goes_back_over_later_snapshots_and_inside_new_scopes() -> None:
    graph = NameGraph()
    with graph.as_current():
        outer = graph.snapshot()
        assert opened(None, "d") == "d"
        inner = graph.snapshot()
        assert [opened(None, "d"), graph.variable_op_name("w")] == ["d_1", "w"]
        graph.restore(inner)
        assert [opened(None, "d"), graph.variable_op_name("w")] == ["d_1", "w"]
        with variable_scope("still_open") as scope:
            graph.restore(outer)
            assert get_variable_scope() is scope
        assert [opened(None, "d"), graph.variable_op_name("w")] == ["d", "w"]


def test_restore_is_right_when_the_scope_was_entered_again_already() -> None:
    graph = NameGraph()
    with graph.as_current(), variable_scope("net"):
        assert opened(None, "layer") == "net/layer"
        with variable_scope("cell"):
            moment = graph.snapshot()
            first = opened(None, "gate")
        after = opened(None, "layer")
        with variable_scope("cell"):
            graph.restore(moment)
            assert opened(None, "gate") == first == "net/cell/gate"
        assert opened(None, "layer") == after == "net/layer_1"


def test_restore_undoes_changes_of_scopes_that_were_captured_elsewhere() -> None:
    graph = NameGraph()
    with graph.as_current():
        with variable_scope("a", initializer=1) as a:
            pass
        moment = graph.snapshot()
        a.reuse_variables()
        a.set_initializer(2)
        a.set_initializer(3)
        graph.restore(moment)
        assert (a.reuse, a.initializer) == (False, 1)
        a.set_initializer(4)
    assert a.initializer == 4


def test_restore_after_an_exception_in_the_body() -> None:
    graph = NameGraph()
    with graph.as_current(), variable_scope("a"):
        moment = graph.snapshot()
        with pytest.raises(KeyError), variable_scope(None, "d"):
            raise KeyError
        graph.restore(moment)
        assert opened(None, "d") == "a/d"
        assert get_current_name_scope() == "a"


def test_snapshots_belong_to_their_graph_and_need_it_current() -> None:
    graph, other = NameGraph(), NameGraph()
    with pytest.raises(FailedPreconditionError, match="not the current one"):
        graph.snapshot()
    with graph.as_current():
        moment = graph.snapshot()
        with other.as_current():
            with pytest.raises(FailedPreconditionError, match="not the current one"):
                graph.restore(moment)
            with pytest.raises(FailedPreconditionError, match="another NameGraph"):
                other.restore(moment)


def test_on_enter_is_called_before_scopes_are_counted() -> None:
    calls: list[str] = []
    graph = NameGraph(on_enter=lambda: calls.append(get_variable_scope().name))
    with graph.as_current():
        moment = graph.snapshot()

        def run_again() -> None:
            calls.append("again")
            graph.restore(moment)

        with variable_scope("a"), name_scope("n"), variable_creator_scope(lambda make, **kw: make(**kw)):
            assert create_variable(dict) == {}
        assert calls == ["", "a", "a"]
        assert opened(None, "d") == "d"
        graph.on_enter = run_again
        assert (opened(None, "d"), opened(None, "d")) == ("d", "d")
        with name_scope("n") as name:
            assert name == "n/"


# The floor, and the cost


def test_scopes_import_neither_jax_nor_numpy() -> None:
    code = (
        "import sys, types\n"
        "package = types.ModuleType('jaxvars'); package.__path__ = [sys.argv[1]]\n"  # without its __init__
        "sys.modules['jaxvars'] = package\n"
        "import jaxvars.scopes\n"
        "assert not {'jax', 'numpy'} & set(sys.modules), 'imported'\n"
    )
    root = Path(__file__).resolve().parents[1] / "jaxvars"
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, timeout=60)


def best_seconds(action: Callable[[], Any], number: int) -> float:
    """The least time per call, over a few rounds."""
    rounds: list[float] = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(number):
            action()
        rounds.append((time.perf_counter() - started) / number)
    return min(rounds)


def test_scopes_and_requests_cost_microseconds() -> None:
    """Generous bounds, for slow machines: a request takes about 0.5 microseconds, a scope about 3."""

    def true_getter(name: str, **keywords: Any) -> str:
        return name

    def enter() -> None:
        with variable_scope("a"):
            pass

    with NameGraph().as_current(), variable_scope("net"):
        assert best_seconds(lambda: request_variable(true_getter, "w"), 1000) < 10e-6
        assert best_seconds(enter, 1000) < 40e-6


def test_a_thousand_default_names_cost_no_more_each_than_a_few() -> None:
    with NameGraph().as_current():
        started = time.perf_counter()
        for _ in range(3000):
            opened(None, "layer")
        assert time.perf_counter() - started < 3.0  # a search from the beginning each time takes many times that


def test_deep_nesting() -> None:
    with NameGraph().as_current(), ExitStack() as stack:
        for _ in range(2000):
            stack.enter_context(variable_scope("s", auxiliary_name_scope=False))
        assert get_variable_scope().name.count("/") == 1999
    assert current_graph() is None
