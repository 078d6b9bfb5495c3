"""TF1's ``variable_scope``, ``get_variable`` and ``Saver`` as pure JAX, and old checkpoints without TensorFlow.

Inside a model the code reads like TF1 and runs inside ordinary ``jit``, ``grad``, ``scan``, ``cond``, ``remat``;
outside, everything is a value.

Example:
  >>> import jax.numpy as jnp
  >>> import jaxvars as jv
  >>> def net(x):
  ...     with jv.variable_scope("layer"):
  ...         w = jv.get_variable("w", [3, 2])
  ...         b = jv.get_variable("b", [2], initializer=jv.zeros_initializer())
  ...     return x @ w + b
  >>> model = jv.transform(net)
  >>> variables = model.init(0, jnp.ones([1, 3]))
  >>> list(variables)
  ['layer/b', 'layer/w']
"""

from typing import TYPE_CHECKING, Any

from jaxvars import errors, initializers
from jaxvars.arg_scope import (
    add_arg_scope,
    arg_scope,
    arg_scoped_arguments,
    current_arg_scope,
    has_arg_scope,
)
from jaxvars.assign import (
    assign,
    assign_add,
    assign_sub,
    count_up_to,
)
from jaxvars.errors import (
    JaxvarsError,
)
from jaxvars.scopes import (
    AUTO_REUSE,
    DeviceSpec,
    GraphKeys,
    VariableAggregation,
    VariableScope,
    VariableSynchronization,
    device,
    get_current_name_scope,
    get_variable_scope,
    name_scope,
    variable_creator_scope,
    variable_op_scope,
    variable_scope,
)
from jaxvars.spec import (
    Hole,
    VariableSpec,
)
from jaxvars.store import (
    VariableStore,
    add_to_collection,
    add_to_collections,
    get_collection,
    get_collection_ref,
    get_local_variable,
    get_variable,
    global_variables,
    local_variables,
    model_variables,
    moving_average_variables,
    next_rng_key,
    trainable_variables,
)
from jaxvars.transform import Model, transform
from jaxvars.variable import (
    Variable,
)
from jaxvars.variables import (
    Variables,
)

if TYPE_CHECKING:
    from jaxvars import checkpoint, interop, layers, losses, metrics, nn, placement, regularizers, rules, train
    from jaxvars.gradients import (
        grad,
        value_and_grad,
    )
    from jaxvars.initialize import (
        assert_variables_initialized,
        global_variables_initializer,
        is_variable_initialized,
        local_variables_initializer,
        report_uninitialized_variables,
        variables_initializer,
    )
    from jaxvars.initializers import (
        constant_initializer,
        glorot_normal_initializer,
        glorot_uniform_initializer,
        he_normal_initializer,
        he_uniform_initializer,
        identity_initializer,
        lecun_normal_initializer,
        lecun_uniform_initializer,
        ones_initializer,
        orthogonal_initializer,
        random_normal_initializer,
        random_uniform_initializer,
        truncated_normal_initializer,
        uniform_unit_scaling_initializer,
        variance_scaling_initializer,
        zeros_initializer,
    )
    from jaxvars.layer_scan import scan_layers
    from jaxvars.multi import MultiModel, multi_transform
    from jaxvars.partitioned import PartitionedVariable
    from jaxvars.partitioning import create_partitioned_variables
    from jaxvars.regularizers import (
        no_regularizer,
    )
    from jaxvars.scattering import (
        scatter_add,
        scatter_div,
        scatter_max,
        scatter_min,
        scatter_mul,
        scatter_nd_add,
        scatter_nd_sub,
        scatter_nd_update,
        scatter_sub,
        scatter_update,
    )
    from jaxvars.scopes.partitioners import (
        fixed_size_partitioner,
        min_max_variable_partitioner,
        variable_axis_size_partitioner,
    )
    from jaxvars.template import Template, make_template

# What not every program uses, and the module that has it (a module is named by itself): imported at the first use.
# A new name stands here (and in the block above) or among the imports at the top, and in `__all__`.
_LAZY = {
    "MultiModel": "multi",
    "PartitionedVariable": "partitioned",
    "Template": "template",
    "assert_variables_initialized": "initialize",
    "checkpoint": "checkpoint",
    "constant_initializer": "initializers",
    "create_partitioned_variables": "partitioning",
    "fixed_size_partitioner": "scopes.partitioners",
    "global_variables_initializer": "initialize",
    "glorot_normal_initializer": "initializers",
    "glorot_uniform_initializer": "initializers",
    "grad": "gradients",
    "he_normal_initializer": "initializers",
    "he_uniform_initializer": "initializers",
    "identity_initializer": "initializers",
    "interop": "interop",
    "is_variable_initialized": "initialize",
    "layers": "layers",
    "lecun_normal_initializer": "initializers",
    "lecun_uniform_initializer": "initializers",
    "local_variables_initializer": "initialize",
    "losses": "losses",
    "make_template": "template",
    "metrics": "metrics",
    "min_max_variable_partitioner": "scopes.partitioners",
    "multi_transform": "multi",
    "nn": "nn",
    "no_regularizer": "regularizers",
    "ones_initializer": "initializers",
    "orthogonal_initializer": "initializers",
    "placement": "placement",
    "random_normal_initializer": "initializers",
    "random_uniform_initializer": "initializers",
    "regularizers": "regularizers",
    "report_uninitialized_variables": "initialize",
    "rules": "rules",
    "scan_layers": "layer_scan",
    "scatter_add": "scattering",
    "scatter_div": "scattering",
    "scatter_max": "scattering",
    "scatter_min": "scattering",
    "scatter_mul": "scattering",
    "scatter_nd_add": "scattering",
    "scatter_nd_sub": "scattering",
    "scatter_nd_update": "scattering",
    "scatter_sub": "scattering",
    "scatter_update": "scattering",
    "train": "train",
    "truncated_normal_initializer": "initializers",
    "uniform_unit_scaling_initializer": "initializers",
    "value_and_grad": "gradients",
    "variable_axis_size_partitioner": "scopes.partitioners",
    "variables_initializer": "initialize",
    "variance_scaling_initializer": "initializers",
    "zeros_initializer": "initializers",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        from jaxvars._absent import absent

        raise absent(__name__, name)
    from jaxvars._lazy import imported

    return imported(__name__, name, _LAZY[name])


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "AUTO_REUSE",
    "DeviceSpec",
    "GraphKeys",
    "Hole",
    "JaxvarsError",
    "Model",
    "MultiModel",
    "PartitionedVariable",
    "Template",
    "Variable",
    "VariableAggregation",
    "VariableScope",
    "VariableSpec",
    "VariableStore",
    "VariableSynchronization",
    "Variables",
    "add_arg_scope",
    "add_to_collection",
    "add_to_collections",
    "arg_scope",
    "arg_scoped_arguments",
    "assert_variables_initialized",
    "assign",
    "assign_add",
    "assign_sub",
    "checkpoint",
    "constant_initializer",
    "count_up_to",
    "create_partitioned_variables",
    "current_arg_scope",
    "device",
    "errors",
    "fixed_size_partitioner",
    "get_collection",
    "get_collection_ref",
    "get_current_name_scope",
    "get_local_variable",
    "get_variable",
    "get_variable_scope",
    "global_variables",
    "global_variables_initializer",
    "glorot_normal_initializer",
    "glorot_uniform_initializer",
    "grad",
    "has_arg_scope",
    "he_normal_initializer",
    "he_uniform_initializer",
    "identity_initializer",
    "initializers",
    "interop",
    "is_variable_initialized",
    "layers",
    "lecun_normal_initializer",
    "lecun_uniform_initializer",
    "local_variables",
    "local_variables_initializer",
    "losses",
    "make_template",
    "metrics",
    "min_max_variable_partitioner",
    "model_variables",
    "moving_average_variables",
    "multi_transform",
    "name_scope",
    "next_rng_key",
    "nn",
    "no_regularizer",
    "ones_initializer",
    "orthogonal_initializer",
    "placement",
    "random_normal_initializer",
    "random_uniform_initializer",
    "regularizers",
    "report_uninitialized_variables",
    "rules",
    "scan_layers",
    "scatter_add",
    "scatter_div",
    "scatter_max",
    "scatter_min",
    "scatter_mul",
    "scatter_nd_add",
    "scatter_nd_sub",
    "scatter_nd_update",
    "scatter_sub",
    "scatter_update",
    "train",
    "trainable_variables",
    "transform",
    "truncated_normal_initializer",
    "uniform_unit_scaling_initializer",
    "value_and_grad",
    "variable_axis_size_partitioner",
    "variable_creator_scope",
    "variable_op_scope",
    "variable_scope",
    "variables_initializer",
    "variance_scaling_initializer",
    "zeros_initializer",
]

__version__ = "0.1.0"
