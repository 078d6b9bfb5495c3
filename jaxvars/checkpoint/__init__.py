"""Checkpoints: see what is in one, plan a restore by name, carry it out, save.

Files are read whatever their format (TensorFlow V2 and V1, Orbax), found by their content, without TensorFlow.
"""

from jaxvars.checkpoint.background import PendingSave, save_async
from jaxvars.checkpoint.inspection import inspect
from jaxvars.checkpoint.matching import PlanRow
from jaxvars.checkpoint.plan import RestorePlan, plan
from jaxvars.checkpoint.reader import CheckpointReader, LazyArray, open
from jaxvars.checkpoint.restore import restore
from jaxvars.checkpoint.save import save

__all__ = [
    "CheckpointReader",
    "LazyArray",
    "PendingSave",
    "PlanRow",
    "RestorePlan",
    "inspect",
    "open",
    "plan",
    "restore",
    "save",
    "save_async",
]
