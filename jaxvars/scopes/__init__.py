"""Names only: variable scopes, name scopes, reuse, counters, collections, custom getters. No JAX, no arrays.

A `NameGraph` holds the naming state of one frame; inside ``graph.as_current()`` the context managers
`variable_scope` and `name_scope` build names as TF1 does, and `request_variable` turns a `get_variable` call
into a full name with all defaults filled in.
"""

from jaxvars.scopes.collections import Collections as Collections
from jaxvars.scopes.collections import GraphKeys
from jaxvars.scopes.collections import local_collections as local_collections
from jaxvars.scopes.collections import variable_collections as variable_collections
from jaxvars.scopes.context import outside_frame as outside_frame
from jaxvars.scopes.device_scope import device
from jaxvars.scopes.devices import DeviceSpec
from jaxvars.scopes.getters import create_variable as create_variable
from jaxvars.scopes.getters import variable_creator_scope
from jaxvars.scopes.graph import NameGraph as NameGraph
from jaxvars.scopes.graph import NameSnapshot as NameSnapshot
from jaxvars.scopes.graph import current_graph as current_graph
from jaxvars.scopes.name_scope import get_current_name_scope, name_scope
from jaxvars.scopes.request import request_variable as request_variable
from jaxvars.scopes.request import root_name_scope as root_name_scope
from jaxvars.scopes.reuse import AUTO_REUSE
from jaxvars.scopes.scope import VariableScope, get_variable_scope
from jaxvars.scopes.synchronization import VariableAggregation, VariableSynchronization
from jaxvars.scopes.variable_scope import variable_op_scope, variable_scope

# The names for users. What the floors above need besides is imported by name.
__all__ = [
    "AUTO_REUSE",
    "DeviceSpec",
    "GraphKeys",
    "VariableAggregation",
    "VariableScope",
    "VariableSynchronization",
    "device",
    "get_current_name_scope",
    "get_variable_scope",
    "name_scope",
    "variable_creator_scope",
    "variable_op_scope",
    "variable_scope",
]
