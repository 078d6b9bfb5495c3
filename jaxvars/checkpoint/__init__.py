"""Checkpoints: see what is in one, plan a restore by name, carry it out, save, convert, compare.

Files are read whatever their format (TensorFlow V2 and V1, Orbax, safetensors, NumPy, Flax, Keras), found by their
content, without TensorFlow.
"""

from jaxvars.checkpoint.background import PendingSave, save_async
from jaxvars.checkpoint.convert import Conversion, convert
from jaxvars.checkpoint.diff import CheckpointDiff, TensorDifference, diff
from jaxvars.checkpoint.graph_variables import graph_variables
from jaxvars.checkpoint.inspection import inspect
from jaxvars.checkpoint.matching import PlanRow
from jaxvars.checkpoint.plan import RestorePlan, plan
from jaxvars.checkpoint.reader import CheckpointReader, LazyArray, open
from jaxvars.checkpoint.restore import restore
from jaxvars.checkpoint.rules_file import read_rules
from jaxvars.checkpoint.save import save

__all__ = [
    "CheckpointDiff",
    "CheckpointReader",
    "Conversion",
    "LazyArray",
    "PendingSave",
    "PlanRow",
    "RestorePlan",
    "TensorDifference",
    "convert",
    "diff",
    "graph_variables",
    "inspect",
    "open",
    "plan",
    "read_rules",
    "restore",
    "save",
    "save_async",
]
