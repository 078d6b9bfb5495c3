"""Training: optimizers, learning rate decays, the step counter and `Saver` (TF1's `tf.train`)."""

from typing import NoReturn

from jaxvars.checkpoint.tf1_api import (
    CheckpointState,
    checkpoint_exists,
    generate_checkpoint_state_proto,
    get_checkpoint_state,
    latest_checkpoint,
    list_variables,
    load_checkpoint,
    load_variable,
    update_checkpoint_state,
)
from jaxvars.train._saving import NoCheckpointError
from jaxvars.train.averaging import assign_moving_average, weighted_moving_average
from jaxvars.train.clipping import clip_by_global_norm, global_norm
from jaxvars.train.device_setter import GreedyLoadBalancingStrategy, byte_size_load_fn, replica_device_setter
from jaxvars.train.global_steps import (
    create_global_step,
    get_global_step,
    get_or_create_global_step,
    global_step,
)
from jaxvars.train.history import HistoryHook
from jaxvars.train.hooks import (
    CheckpointSaverHook,
    FunctionHook,
    LoggingHook,
    NanLossDuringTrainingError,
    NanTensorHook,
    StepCounterHook,
    StopAtStepHook,
)
from jaxvars.train.imported import MetaGraph
from jaxvars.train.loop import run
from jaxvars.train.meta_graph import export_meta_graph, import_meta_graph
from jaxvars.train.moving_averages import ExponentialMovingAverage
from jaxvars.train.optimizer import Optimizer
from jaxvars.train.run_context import Hook, RunContext
from jaxvars.train.saver import Saver
from jaxvars.train.schedules import (
    cosine_decay,
    exponential_decay,
    inverse_time_decay,
    natural_exp_decay,
    piecewise_constant,
    polynomial_decay,
)
from jaxvars.train.step import Step, make_step
from jaxvars.train.tf1_optimizers import (
    AdadeltaOptimizer,
    AdagradOptimizer,
    AdamOptimizer,
    FtrlOptimizer,
    GradientDescentOptimizer,
    MomentumOptimizer,
    RMSPropOptimizer,
)
from jaxvars.train.tf1_proximal import (
    AdagradDAOptimizer,
    ProximalAdagradOptimizer,
    ProximalGradientDescentOptimizer,
)
from jaxvars.train.waiting import checkpoints_iterator, wait_for_new_checkpoint
from jaxvars.train.warm_start import init_from_checkpoint

__all__ = [
    "AdadeltaOptimizer",
    "AdagradDAOptimizer",
    "AdagradOptimizer",
    "AdamOptimizer",
    "CheckpointSaverHook",
    "CheckpointState",
    "ExponentialMovingAverage",
    "FtrlOptimizer",
    "FunctionHook",
    "GradientDescentOptimizer",
    "GreedyLoadBalancingStrategy",
    "HistoryHook",
    "Hook",
    "LoggingHook",
    "MetaGraph",
    "MomentumOptimizer",
    "NanLossDuringTrainingError",
    "NanTensorHook",
    "NoCheckpointError",
    "Optimizer",
    "ProximalAdagradOptimizer",
    "ProximalGradientDescentOptimizer",
    "RMSPropOptimizer",
    "RunContext",
    "Saver",
    "Step",
    "StepCounterHook",
    "StopAtStepHook",
    "assign_moving_average",
    "byte_size_load_fn",
    "checkpoint_exists",
    "checkpoints_iterator",
    "clip_by_global_norm",
    "cosine_decay",
    "create_global_step",
    "exponential_decay",
    "export_meta_graph",
    "generate_checkpoint_state_proto",
    "get_checkpoint_state",
    "get_global_step",
    "get_or_create_global_step",
    "global_norm",
    "global_step",
    "import_meta_graph",
    "init_from_checkpoint",
    "inverse_time_decay",
    "latest_checkpoint",
    "list_variables",
    "load_checkpoint",
    "load_variable",
    "make_step",
    "natural_exp_decay",
    "piecewise_constant",
    "polynomial_decay",
    "replica_device_setter",
    "run",
    "update_checkpoint_state",
    "wait_for_new_checkpoint",
    "weighted_moving_average",
]


def __getattr__(name: str) -> NoReturn:
    from jaxvars._absent import absent

    raise absent(__name__, name)
