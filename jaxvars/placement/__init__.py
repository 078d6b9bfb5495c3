"""Placement: on which devices a variable lives, one or a mesh of many, and models whose variables live on several."""

import importlib
from typing import TYPE_CHECKING, Any

from jaxvars.placement.homes import resolve

if TYPE_CHECKING:
    from jaxvars.placement.applying import apply
    from jaxvars.placement.drawing import Drawing, draw
    from jaxvars.placement.mesh_rule import rule
    from jaxvars.placement.meshes import batch, mesh
    from jaxvars.placement.processes import check_processes
    from jaxvars.placement.strategies import data_parallel, fsdp, partitioned, replicated, tensor_parallel

# Imported at the first use: most programs run on one device.
_LAZY = {
    "Drawing": "drawing",
    "apply": "applying",
    "batch": "meshes",
    "check_processes": "processes",
    "data_parallel": "strategies",
    "draw": "drawing",
    "fsdp": "strategies",
    "mesh": "meshes",
    "partitioned": "strategies",
    "replicated": "strategies",
    "rule": "mesh_rule",
    "tensor_parallel": "strategies",
}

__all__ = [
    "Drawing",
    "apply",
    "batch",
    "check_processes",
    "data_parallel",
    "draw",
    "fsdp",
    "mesh",
    "partitioned",
    "replicated",
    "resolve",
    "rule",
    "tensor_parallel",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'jaxvars.placement' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"jaxvars.placement.{_LAZY[name]}"), name)
    globals()[name] = value  # the next use finds it at once
    return value
