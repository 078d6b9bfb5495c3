"""Device strings, their merging and `replica_device_setter`, beside TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from jaxvars.scopes.devices import canonical_device
from parity.live import examples, fresh_graph, tf

CLUSTER = {"ps": ["ps0:1", "ps1:1", "ps2:1"], "worker": ["w0:1"], "moon": ["m0:1", "m1:1"]}

jobs = st.sampled_from(["/job:ps", "/job:worker", "/job:moon"])
fields = st.one_of(
    jobs,
    st.integers(0, 30).map("/replica:{}".format),
    st.integers(0, 30).map("/task:{}".format),
    st.sampled_from(["/cpu", "/gpu", "/GPU", "/Tpu", "cpu"]),
    st.sampled_from(["/cpu:1", "/gpu:0", "/GPU:*", "/device:CPU:0", "/device:gpu:3", "/device:Xpu:*", "/device:TPU:2"]),
)


def _kind(field: str) -> str:
    kind = field.strip("/").split(":")[0]
    return kind if kind in ("job", "replica", "task") else "device"


# One field of each kind, in any order: what TensorFlow does with more than one job is nobody's wish.
devices = st.lists(fields, max_size=4, unique_by=_kind).map("/".join)
functions = st.sampled_from(["same", "replace", "add job", "by name"])


def _function(what: str) -> Callable[[Any], str]:
    def device_function(op: Any) -> str:
        if what == "replace":
            return "/job:f"
        if what == "add job":
            return op.device if "job" in op.device else f"{op.device}/job:g"
        if what == "by name":
            return "/gpu:5" if op.name.endswith("1") and op.type == "VariableV2" else op.device
        return op.device

    return device_function


def _made(module: Any, blocks: list[Any], names: list[list[Any]]) -> list[str]:
    """The devices of variables, each made inside `blocks` and blocks of its own."""
    found: list[str] = []
    with contextlib.ExitStack() as outer:
        for block in blocks:
            outer.enter_context(module.device(block))
        for number, inner in enumerate(names):
            with contextlib.ExitStack() as stack:
                for block in inner:
                    stack.enter_context(module.device(block))
                if number % 2:
                    v = module.Variable([1.0, 2.0], name=f"v{number}")
                else:
                    v = module.get_variable(f"v{number}", [2])
            # TensorFlow keeps what a function returned as it is.
            found.append(tf.DeviceSpec.from_string(v.device).to_string())
    return found


def _same(make_blocks: Callable[[Any], list[Any]], names: list[list[Any]]) -> None:
    with fresh_graph():
        theirs = _made(tf, make_blocks(tf), names)
    with jv.VariableStore():
        ours = _made(jv, make_blocks(jv), names)
    assert ours == theirs


@examples(150)
@given(devices)
def test_strings(text: str) -> None:
    theirs = tf.DeviceSpec.from_string(text)
    ours = jv.DeviceSpec.from_string(text)
    assert canonical_device(text) == ours.to_string() == theirs.to_string()
    names = ("job", "replica", "task", "device_type", "device_index")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]


@examples(100)
@given(st.text(alphabet="/:*01abgpujoksdevict ", max_size=14))
def test_what_is_accepted_means_the_same(text: str) -> None:
    """Stricter than TensorFlow's Python, which also lets pass what its runtime then refuses; never laxer."""
    try:
        ours = canonical_device(text)
    except ValueError:
        return
    assert ours == tf.DeviceSpec.from_string(text).to_string()


@examples(100)
@given(devices, devices)
def test_merging_specs(outer: str, inner: str) -> None:
    theirs = tf.DeviceSpec.from_string(outer).make_merged_spec(tf.DeviceSpec.from_string(inner))
    ours = jv.DeviceSpec.from_string(outer).make_merged_spec(jv.DeviceSpec.from_string(inner))
    assert ours.to_string() == theirs.to_string()


@examples(100)
@given(st.lists(st.one_of(devices, st.none(), functions.map(_function)), max_size=4))
def test_nested_blocks(blocks: list[Any]) -> None:
    _same(lambda module: blocks, [[], []])


@examples(100)
@given(
    cluster=st.booleans(),
    ps_tasks=st.integers(0, 3),
    ps_device=st.sampled_from(["/job:ps", "/job:moon", "/job:ps/cpu:0", "/cpu:0", "/job:absent", "/job:ps/task:7", ""]),
    worker_device=st.sampled_from(["/job:worker", "/job:worker/gpu:1", ""]),
    merge_devices=st.booleans(),
    around=st.lists(st.one_of(devices, st.none()), max_size=1),
    inner=st.lists(st.lists(st.one_of(devices, jobs, st.just("/cpu:0"), st.none()), max_size=2), max_size=4),
)
def test_replica_device_setter(cluster: bool, around: list[Any], inner: list[list[Any]], **arguments: Any) -> None:
    if cluster and not arguments["ps_device"]:
        arguments["ps_device"] = "/job:ps"

    def blocks(module: Any) -> list[Any]:
        return [*around, module.train.replica_device_setter(cluster=CLUSTER if cluster else None, **arguments)]

    _same(blocks, inner)


def test_cluster_classes() -> None:
    spec = tf.train.ClusterSpec(CLUSTER)
    for cluster in (spec, spec.as_cluster_def()):
        _same(lambda module, cluster=cluster: [module.train.replica_device_setter(cluster=cluster)], [[]] * 5)


def test_an_absent_device() -> None:
    """TensorFlow's phrase is in our text."""
    with fresh_graph() as session:
        with tf.device("/gpu:7"):
            v = tf.get_variable("v", [2])
        try:
            session.run(v)
        except tf.errors.InvalidArgumentError as error:
            theirs = str(error)

    def net() -> None:
        with jv.device("/gpu:7"):
            jv.get_variable("v", [2])

    try:
        jv.transform(net).init(0)
    except jv.errors.InvalidArgumentError as error:
        ours = str(error)
    phrase = "Cannot assign a device for operation v"
    assert phrase in theirs and phrase in ours


@examples(20)
@given(
    slices=st.lists(st.sampled_from([None, 1, 2, 3]), min_size=1, max_size=5),
    around=st.lists(devices, max_size=1),
    ps_tasks=st.integers(1, 4),
)
def test_each_slice_takes_a_task(slices: list[int | None], around: list[str], ps_tasks: int) -> None:
    """Here the slices are one array, which lives with the first of them."""

    def made(module: Any) -> list[str]:
        found: list[str] = []
        with contextlib.ExitStack() as stack:
            for block in [*around, module.train.replica_device_setter(ps_tasks=ps_tasks)]:
                stack.enter_context(module.device(block))
            for number, count in enumerate(slices):
                cut = None if count is None else module.fixed_size_partitioner(count)
                v = module.get_variable(f"v{number}", [6], partitioner=cut)
                found.append(v.device if cut is None else next(iter(v)).device)
        return found

    with fresh_graph():
        theirs = made(tf)
    with jv.VariableStore():
        ours = made(jv)
    assert ours == theirs
