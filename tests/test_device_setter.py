"""`replica_device_setter`: the ten behaviours that TensorFlow's device_setter_test checks, and its strategies."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import jaxvars as jv
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.scopes.device_scope import VariableOp
from jaxvars.train import replica_device_setter

CLUSTER = {"ps": ["ps0:2222", "ps1:2222"], "worker": ["worker0:2222", "worker1:2222", "worker2:2222"]}
SUN_AND_MOON = {"sun": ["sun0:2222", "sun1:2222", "sun2:2222"], "moon": ["moon0:2222", "moon1:2222"]}


class ClusterSpec:
    """As ``tf.train.ClusterSpec``."""

    def as_dict(self) -> dict[str, list[str]]:
        return CLUSTER


def _devices(setter: Any, *inner: Any, make: Callable[[str], Any] | None = None) -> list[str]:
    """The devices of one variable per entry of `inner`, an inner device or no block where that is ""."""

    def net() -> None:
        with jv.device(setter):
            for number, what in enumerate(inner):
                with jv.device(what):
                    (make or _get)(f"v{number}")

    return [spec.placement or "" for spec in jv.transform(net).specs().variable_specs.values()]


def _get(name: str) -> jv.Variable:
    return jv.get_variable(name, [2])


def _of_other_op(setter: Any, device: str = "") -> str:
    """Where an op that is no variable goes."""
    return setter(VariableOp("add", device, (2,), "float32", None, type="AddV2"))


def test_cpu_override() -> None:
    """Upstream testCPUOverride: an inner cpu:0 merges with the task; the next variable gets task 1."""
    setter = replica_device_setter(cluster=CLUSTER)
    assert _devices(setter, "/cpu:0", "") == ["/job:ps/task:0/device:CPU:0", "/job:ps/task:1"]
    assert _of_other_op(setter, "/device:CPU:0") == "/job:worker/device:CPU:0"


def test_resource() -> None:
    """Upstream testResource: the other kind of variable is placed likewise; here, `jv.Variable`."""
    setter = replica_device_setter(cluster=CLUSTER)
    assert _devices(setter, "", make=lambda name: jv.Variable(1.0, name=name)) == ["/job:ps/task:0"]
    handle = VariableOp("v", "", (2,), "float32", None, type="VarHandleOp")
    assert setter is not None and setter(handle) == "/job:ps/task:0"


def test_ps2_tasks_with_cluster_spec_class() -> None:
    """Upstream testPS2TasksWithClusterSpecClass: round robin over two tasks."""
    setter = replica_device_setter(cluster=ClusterSpec())
    assert _devices(setter, "", "", "") == ["/job:ps/task:0", "/job:ps/task:1", "/job:ps/task:0"]
    assert _of_other_op(setter) == "/job:worker"


def test_ps2_tasks_pin_variable_to_job() -> None:
    """Upstream testPS2TasksPinVariableToJob: a foreign job is kept and takes no task, the job ps gets one."""
    setter = replica_device_setter(cluster=CLUSTER)
    expected = ["/job:ps/task:0", "/job:moon", "/job:ps/task:1", "/job:ps/task:0"]
    assert _devices(setter, "", "/job:moon", "/job:ps", "") == expected


def test_ps2_tasks_use_cpu_for_ps() -> None:
    """Upstream testPS2TasksUseCpuForPS: a ps_device without job takes no task and merges with an inner job."""
    setter = replica_device_setter(ps_tasks=1, ps_device="/cpu:0")
    assert _devices(setter, "", "/job:moon") == ["/device:CPU:0", "/job:moon/device:CPU:0"]
    assert _of_other_op(setter) == "/job:worker"


def test_ps2_tasks_no_merging() -> None:
    """Upstream testPS2TasksNoMerging: with merge_devices=False inner devices stay as they are."""
    setter = replica_device_setter(cluster=CLUSTER, merge_devices=False)
    assert _devices(setter, "/job:ps", "", "/cpu:0", "") == [
        "/job:ps",
        "/job:ps/task:0",
        "/device:CPU:0",
        "/job:ps/task:1",
    ]


def test_ps2_tasks_with_cluster_spec_dict() -> None:
    """Upstream testPS2TasksWithClusterSpecDict."""
    assert _devices(replica_device_setter(cluster=CLUSTER), "", "") == ["/job:ps/task:0", "/job:ps/task:1"]


def test_ps2_tasks_with_cluster_def() -> None:
    """Upstream testPS2TasksWithClusterDef: the protocol buffer, here one in its shape."""
    jobs = [SimpleNamespace(name=name, tasks=dict(enumerate(tasks))) for name, tasks in CLUSTER.items()]
    setter = replica_device_setter(cluster=SimpleNamespace(job=jobs))
    assert _devices(setter, "", "", "") == ["/job:ps/task:0", "/job:ps/task:1", "/job:ps/task:0"]


def test_ps2_tasks_with_device() -> None:
    """Upstream testPS2TasksWithDevice: other names for the jobs."""
    setter = replica_device_setter(ps_device="/job:moon", worker_device="/job:sun", cluster=SUN_AND_MOON)
    assert _devices(setter, "", "", "") == ["/job:moon/task:0", "/job:moon/task:1", "/job:moon/task:0"]
    assert _of_other_op(setter) == "/job:sun"


def test_ps2_tasks_with_cpu_constraint() -> None:
    """Upstream testPS2TasksWithCPUConstraint: a device in ps_device joins the task."""
    setter = replica_device_setter(ps_device="/job:moon/cpu:0", worker_device="/job:sun", cluster=SUN_AND_MOON)
    assert _devices(setter, "", "") == ["/job:moon/task:0/device:CPU:0", "/job:moon/task:1/device:CPU:0"]


@pytest.mark.parametrize("arguments", [{}, {"cluster": {"worker": ["a:1"]}}, {"cluster": {"ps": None}, "ps_tasks": 2}])
def test_without_parameter_servers_there_is_no_function(arguments: dict[str, Any]) -> None:
    """As in TF1 the setter is None then, which shuts out the devices around it."""
    assert replica_device_setter(**arguments) is None
    with jv.device("/gpu:1"):
        assert _devices(None, "") == [""]


def test_local_variables_go_to_parameter_servers_too() -> None:
    setter = replica_device_setter(ps_tasks=2)
    assert _devices(setter, "", make=lambda name: jv.get_local_variable(name, [2])) == ["/job:ps/task:0"]


def test_one_setter_begins_anew_in_each_run_and_in_each_frame() -> None:
    setter = replica_device_setter(ps_tasks=3)
    for _ in range(2):
        assert _devices(setter, "", "") == ["/job:ps/task:0", "/job:ps/task:1"]
    with jv.VariableStore(0), jv.device(setter):
        assert _get("a").device == "/job:ps/task:0"
        assert _devices(setter, None) == [""]
        assert _devices(None, setter) == ["/job:ps/task:0"]  # a frame inside has counts of its own
        assert _get("b").device == "/job:ps/task:1"


def test_greedy_by_bytes() -> None:
    greedy = jv.train.GreedyLoadBalancingStrategy(2, jv.train.byte_size_load_fn)
    setter = replica_device_setter(ps_tasks=2, ps_strategy=greedy)
    shapes = {"v0": [8], "v1": [3], "v2": [3], "v3": [3], "v4": [1]}
    made = _devices(setter, *[""] * 5, make=lambda name: jv.get_variable(name, shapes[name]))
    assert made == [f"/job:ps/task:{task}" for task in (0, 1, 1, 1, 0)]


def test_each_slice_of_a_partitioned_variable_takes_a_task() -> None:
    """The array is one and lives with its first slice; what comes after it has TF1's task."""
    slices = jv.fixed_size_partitioner(3)
    made = _devices(
        replica_device_setter(ps_tasks=2),
        "",
        "",
        make=lambda name: jv.get_variable(name, [6], partitioner=slices if name == "v0" else None),
    )
    assert made == ["/job:ps/task:0", "/job:ps/task:1"]


def test_a_strategy_of_ones_own_and_ps_ops() -> None:
    setter = replica_device_setter(ps_tasks=5, ps_strategy=lambda op: 4 if op.shape == (2,) else 0)
    assert _devices(setter, "") == ["/job:ps/task:4"]
    assert _devices(replica_device_setter(ps_tasks=5, ps_ops=["Other"]), "") == ["/job:worker"]
    assert _devices(replica_device_setter(ps_tasks=5, ps_device="", worker_device=""), "/cpu:1") == ["/device:CPU:1"]


def test_wrong_arguments() -> None:
    with pytest.raises(InvalidTypeError, match="ps_strategy must be callable"):
        replica_device_setter(ps_tasks=1, ps_strategy=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError, match="cluster must be a dictionary of one or more jobs"):
        replica_device_setter(cluster={"ps": "ps0:2222"})
    with pytest.raises(InvalidTypeError, match="cluster must be a dictionary"):
        replica_device_setter(cluster=["ps0:2222"])
    with pytest.raises(InvalidArgumentError, match="Unknown attribute 'ps'"):
        replica_device_setter(ps_tasks=1, ps_device="ps")
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        jv.train.GreedyLoadBalancingStrategy(0, jv.train.byte_size_load_fn)
