"""`replica_device_setter`: which parameter server a variable lives on, by TF1's rules."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeAlias, TypeVar, cast

import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.scopes.devices import DeviceSpec

__all__ = ["GreedyLoadBalancingStrategy", "byte_size_load_fn", "replica_device_setter"]

Strategy: TypeAlias = Callable[[Any], int]
_T = TypeVar("_T")

# TF1's names for the ops behind variables; only those are placed here.
_PS_OPS = ("Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp")


def replica_device_setter(
    ps_tasks: int = 0,
    ps_device: str = "/job:ps",
    worker_device: str = "/job:worker",
    merge_devices: bool = True,
    cluster: Any = None,
    ps_ops: Collection[str] | None = None,
    ps_strategy: Any = None,
    *,
    mesh: Any = None,
) -> Callable[[Any], Any] | None:
    """Return a device function that spreads variables over parameter servers. TF1: `tf.train.replica_device_setter`.

    Use it as ``with jv.device(jv.train.replica_device_setter(...))``. A variable goes to `ps_device`, with the task
    that `ps_strategy` says. An inner `jv.device` that names another job keeps that job and takes no task; its other
    fields are merged in. With one process every job and task is that process, so the strings are notes; see
    `jv.placement.resolve`.

    With `mesh` the variables are spread over the devices of a mesh instead, each over all of them, which is what
    parameter servers were for: no device holds the whole model. See `jv.placement.rule`.

    Args:
      ps_tasks: number of parameter servers. Not used with `cluster`.
      ps_device: the device of the parameter servers, with a job. "" for none.
      worker_device: the device of all that is not in `ps_ops`. "" for none.
      merge_devices: False: a variable that has a device by an inner `jv.device` keeps that.
      cluster: {job: addresses}, or an object with ``as_dict()`` such as a ClusterSpec, or a ClusterDef. The number of
        parameter servers is that of the tasks of `ps_device`'s job.
      ps_ops: types of ops that go to the parameter servers; None for variables.
      ps_strategy: called with the op-like object of a variable, returns its task; None for one after the other, from
        task 0 in each run of a model. With `mesh`, a strategy of `jv.placement` or rules; None for
        ``jv.placement.fsdp(axis)`` over the axis ``"data"``, or else the first one.
      mesh: a mesh, as `jv.placement.mesh` makes them; in place of `cluster` and `ps_tasks`.

    Returns:
      The function; None where there are no parameter servers. As in TF1, ``jv.device(None)`` shuts out the blocks
      around it.

    Raises:
      InvalidTypeError: `ps_strategy` is not callable or of the other kind, or `cluster` is none of those.
      InvalidArgumentError: a malformed device; a mesh beside parameter servers, or one that lacks an axis.

    Example:
      >>> import jaxvars as jv
      >>> cluster = {"ps": ["ps0:2222", "ps1:2222"], "worker": ["worker0:2222"]}
      >>> def net():
      ...     with jv.device(jv.train.replica_device_setter(cluster=cluster)):
      ...         return [jv.get_variable(name, [2]).device for name in "abc"]
      >>> [spec.placement for spec in jv.transform(net).specs().variable_specs.values()]
      ['/job:ps/task:0', '/job:ps/task:1', '/job:ps/task:0']
    """
    if mesh is not None:
        return _over_mesh(mesh, ps_strategy, ps_tasks, cluster)
    ps = DeviceSpec.from_string(ps_device)
    worker = DeviceSpec.from_string(worker_device)
    if cluster is not None:
        ps_tasks = _tasks_of(cluster, ps.job)
    if ps_tasks == 0:
        return None
    strategy: Strategy = _RoundRobin(ps_tasks) if ps_strategy is None else ps_strategy
    if hasattr(ps_strategy, "axes"):
        raise InvalidTypeError(
            f"ps_strategy={ps_strategy!r} spreads variables over a mesh. Write: "
            f"jv.train.replica_device_setter(mesh=mesh, ps_strategy={ps_strategy!r})"
        )
    if not callable(cast(object, strategy)):
        raise InvalidTypeError(
            f"ps_strategy must be callable, got {ps_strategy!r:.60}. Write a function of an op that returns its task, "
            "or jv.train.GreedyLoadBalancingStrategy(ps_tasks, jv.train.byte_size_load_fn)."
        )
    on_ps = frozenset(_PS_OPS if ps_ops is None else ps_ops)

    def device_function(op: Any) -> str:
        if op.device and not merge_devices:
            return op.device
        inner = DeviceSpec.from_string(op.device or "")
        if not (ps_device and op.type in on_ps):
            return worker.make_merged_spec(inner).to_string()
        # A task is taken only where the job will be that of the parameter servers.
        if ps.job is not None and inner.job in (None, ps.job):
            return ps.replace(task=int(strategy(op))).make_merged_spec(inner).to_string()
        return ps.make_merged_spec(inner).to_string()

    return device_function


def _over_mesh(mesh: Any, strategy: Any, ps_tasks: int, cluster: Any) -> Callable[[Any], Any]:
    """The rule over a mesh."""
    from jaxvars.placement import fsdp  # here: few programs have a mesh
    from jaxvars.placement.mesh_rule import parse_policy

    if cluster is not None or ps_tasks:
        given = f"cluster={cluster!r:.60}" if cluster is not None else f"ps_tasks={ps_tasks}"
        raise InvalidArgumentError(
            f"replica_device_setter: mesh and {given} are two answers to one question. Leave one of them out."
        )
    if isinstance(strategy, GreedyLoadBalancingStrategy):
        raise InvalidTypeError(
            "replica_device_setter: GreedyLoadBalancingStrategy gives each variable one task, and over a mesh each is "
            "spread over all devices. Write: jv.train.replica_device_setter(mesh=mesh, ps_strategy=jv.placement.fsdp())"
        )
    if strategy is None and hasattr(mesh, "axis_names"):
        strategy = fsdp("data" if "data" in mesh.axis_names else mesh.axis_names[0])
    return parse_policy(mesh, strategy, "jv.train.replica_device_setter")


def _tasks_of(cluster: Any, job: str | None) -> int:
    """Number of tasks of a job in a cluster, 0 where it has no such job."""
    as_dict: Any = getattr(cluster, "as_dict", None)
    if callable(as_dict):
        jobs: Any = as_dict()
    elif isinstance(cluster, Mapping):
        jobs = cluster
    elif hasattr(cluster, "job"):  # the protocol buffer
        jobs = {entry.name: entry.tasks for entry in cluster.job}
    else:
        jobs = None
    if not isinstance(jobs, Mapping) or any(isinstance(tasks, str) for tasks in jobs.values()):
        raise InvalidTypeError(
            f"cluster must be a dictionary of one or more jobs to lists of addresses, got {cluster!r:.80}. Write for "
            'example: {"ps": ["ps0:2222", "ps1:2222"], "worker": ["worker0:2222"]}'
        )
    tasks: Any = jobs.get(job)
    return 0 if tasks is None else len(tasks)


class _PerFrame(Generic[_T]):
    """State of a strategy, begun anew in each frame: so specs and init of one model agree, run after run."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._outside = make()
        self._states: weakref.WeakKeyDictionary[Any, _T] = weakref.WeakKeyDictionary()

    def of(self, op: Any) -> _T:
        graph = getattr(op, "graph", None)
        if graph is None:
            return self._outside
        return self._states.setdefault(graph, self._make())


class _RoundRobin:
    """One task after the other."""

    def __init__(self, num_tasks: int) -> None:
        self._num_tasks = num_tasks
        self._taken: _PerFrame[list[None]] = _PerFrame(list)

    def __call__(self, op: Any) -> int:
        taken = self._taken.of(op)
        taken.append(None)
        return (len(taken) - 1) % self._num_tasks


class GreedyLoadBalancingStrategy:
    """A `ps_strategy` that takes the task with the least load so far (`tf.contrib.training`).

    It depends on the order in which variables are made: the large ones first spread best. Loads begin at zero in each
    run of a model.

    Args:
      num_tasks: number of parameter servers.
      load_fn: op-like object -> load, a number in any unit; such as `byte_size_load_fn`.

    Example:
      >>> import jaxvars as jv
      >>> greedy = jv.train.GreedyLoadBalancingStrategy(2, jv.train.byte_size_load_fn)
      >>> def net():
      ...     with jv.device(jv.train.replica_device_setter(ps_tasks=2, ps_strategy=greedy)):
      ...         return [jv.get_variable(name, shape) for name, shape in [("a", [9]), ("b", [2]), ("c", [3])]]
      >>> [spec.placement for spec in jv.transform(net).specs().variable_specs.values()]
      ['/job:ps/task:0', '/job:ps/task:1', '/job:ps/task:1']
    """

    def __init__(self, num_tasks: int, load_fn: Callable[[Any], float]) -> None:
        if num_tasks < 1:
            raise InvalidArgumentError(f"num_tasks must be at least 1, got {num_tasks}.")
        self._load_fn = load_fn
        self._loads: _PerFrame[list[float]] = _PerFrame(lambda: [0.0] * num_tasks)

    def __call__(self, op: Any) -> int:
        """Return the task for this op, and count its load."""
        load = self._load_fn(op)
        loads = self._loads.of(op)
        task = loads.index(min(loads))
        loads[task] += load
        return task


def byte_size_load_fn(op: Any) -> int:
    """Return the size of a variable in bytes, for `GreedyLoadBalancingStrategy` (`tf.contrib.training`).

    Args:
      op: the op-like object that a device function gets: its shape and dtype count.

    Example:
      >>> from jaxvars.scopes.device_scope import VariableOp
      >>> byte_size_load_fn(VariableOp("w", "", (3, 2), "float32", None))
      24
    """
    return math.prod(op.shape) * int(np.dtype(op.dtype).itemsize)
