"""Names only: variable scopes, name scopes, reuse, counters, collections, custom getters. No JAX, no arrays.

A `NameGraph` holds the naming state of one frame; inside ``graph.as_current()`` the context managers
`variable_scope` and `name_scope` build names as TF1 does, and `request_variable` turns a `get_variable` call
into a full name with all defaults filled in.
"""

from jaxvars.scopes.collections import (
    Collections,
    GraphKeys,
    local_collections,
    variable_collections,
)
from jaxvars.scopes.context import outside_frame
from jaxvars.scopes.getters import create_variable, variable_creator_scope
from jaxvars.scopes.graph import NameGraph, NameSnapshot, current_graph
from jaxvars.scopes.name_scope import get_current_name_scope, name_scope
from jaxvars.scopes.names import NameRegistry, check_scope_name, check_variable_name
from jaxvars.scopes.request import request_variable, root_name_scope
from jaxvars.scopes.reuse import AUTO_REUSE, Reuse
from jaxvars.scopes.scope import VariableScope, get_variable_scope
from jaxvars.scopes.synchronization import VariableAggregation, VariableSynchronization
from jaxvars.scopes.variable_scope import variable_op_scope, variable_scope

__all__ = [
    "AUTO_REUSE",
    "Collections",
    "GraphKeys",
    "NameGraph",
    "NameRegistry",
    "NameSnapshot",
    "Reuse",
    "VariableAggregation",
    "VariableScope",
    "VariableSynchronization",
    "check_scope_name",
    "check_variable_name",
    "create_variable",
    "current_graph",
    "get_current_name_scope",
    "get_variable_scope",
    "local_collections",
    "name_scope",
    "outside_frame",
    "request_variable",
    "root_name_scope",
    "variable_collections",
    "variable_creator_scope",
    "variable_op_scope",
    "variable_scope",
]
