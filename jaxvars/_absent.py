"""What to write where a name of TF1, or a misspelled one, is asked of jaxvars: the texts of the `AttributeError`.

Imported only when a name is missing.
"""

from __future__ import annotations

import sys

from jaxvars.errors import nearest_names

__all__ = ["absent"]

_SESSION = "there is no session: a call of the model computes. Write: out, variables = model.apply(variables, x)"
_GRAPH = "there is no graph: each init and apply of a model begins anew, so leave it out"
_EAGER = "there is no graph to switch off, so leave it out. With a store open, lines run at once: jv.VariableStore(0)"
_PLACEHOLDER = "it is an argument of the model function. Write: model = jv.transform(lambda x: ...)"
_ORDER = "what is assigned is assigned when its line runs: put the lines in order, and leave it out"
_DRAW = "a key for each draw. Write, in a model: jax.random.{}(jv.next_rng_key(), shape)"
_SUMMARY = (
    "jaxvars logs nothing itself: a subclass of jv.train.Hook calls your logger, and jv.train.HistoryHook() keeps the "
    "losses. variables.summary() is the table of the variables"
)
_LOOP = "write: variables = jv.train.run(step, variables, batches, hooks=[...])"
_INPUT = "batches come from any Python iterable. Write: jv.train.run(step, variables, batches)"
_CLUSTER = "one program runs on all devices: a mesh, jv.placement.mesh(data=8)"
_CONTRIB = "its parts that make variables are in jv.layers, jv.regularizers, jv.initializers, jv.arg_scope"

# By package: TF1's name, and what to write for it. A text that is code alone gets "write ".
_HINTS: dict[str, dict[str, str]] = {
    "jaxvars": {
        # the graph and the session
        "Session": _SESSION,
        "InteractiveSession": _EAGER,
        "ConfigProto": "there is no session to configure; jax.config has JAX's options",
        "GPUOptions": "there is no session to configure; jax.config has JAX's options",
        "Graph": _GRAPH,
        "get_default_graph": _GRAPH,
        "reset_default_graph": _GRAPH,
        "get_default_session": _SESSION,
        "enable_eager_execution": _EAGER,
        "disable_eager_execution": "write jax.jit around what is to be compiled; nothing is to be switched off",
        "disable_v2_behavior": "TF1's behaviour is the only one here, so leave it out",
        "placeholder": _PLACEHOLDER,
        "placeholder_with_default": _PLACEHOLDER,
        "control_dependencies": _ORDER,
        "group": _ORDER,
        "no_op": _ORDER,
        "tuple": _ORDER,
        "Operation": "there are no ops; jax.make_jaxpr shows what a function computes",
        "Tensor": "write jax.Array",
        "TensorShape": "a shape is a tuple or list of ints",
        "Dimension": "a shape is a tuple or list of ints",
        "set_random_seed": "the seed is an argument. Write: variables = model.init(seed, x)",
        "initialize_all_variables": "jv.global_variables_initializer",
        "initialize_local_variables": "jv.local_variables_initializer",
        "initialize_variables": "jv.variables_initializer",
        "all_variables": "jv.global_variables",
        "op_scope": "jv.name_scope",
        "tables_initializer": "there are no tables, so leave it out",
        "colocate_with": "jv.device",
        # packages
        "contrib": _CONTRIB,
        "slim": _CONTRIB,
        "summary": _SUMMARY,
        "estimator": _LOOP,
        "app": "write main() under if __name__ == '__main__'",
        "flags": "use argparse, or absl.flags as before",
        "logging": "use Python's logging, or absl.logging as before",
        "gfile": "use open, os and glob; checkpoints are read from a path: jv.checkpoint.open(path)",
        "data": _INPUT,
        "keras": "layers of TF1 are in jv.layers; checkpoints of Keras are read by jv.checkpoint.open",
        "saved_model": "its variables are a checkpoint. Write: jv.checkpoint.open('saved_model_folder')",
        "distribute": _CLUSTER,
        "image": "jax.image",
        "math": "jax.numpy",
        "random": "jax.random",
        "Saver": "jv.train.Saver",
        "AdamOptimizer": "jv.train.AdamOptimizer",
        "GradientDescentOptimizer": "jv.train.GradientDescentOptimizer",
        # what TF1 had under a name that JAX gives to something else, or to nothing
        "Print": "jax.debug.print",
        "print": "jax.debug.print",
        "Assert": "jax.experimental.checkify.check",
        "py_func": "jax.pure_callback",
        "numpy_function": "jax.pure_callback",
        "hessians": "jax.hessian",
        "stop_gradient": "jax.lax.stop_gradient",
        "custom_gradient": "jax.custom_vjp",
        "identity": "leave it out: a value has no op to name. (jnp.identity is another thing: TF1's eye)",
        "bool": "jnp.bool_",
        "string": "arrays hold numbers; keep strings in Python",
        "half": "jnp.float16",
        "constant": "jnp.asarray",
        "convert_to_tensor": "jnp.asarray",
        "cast": "write x.astype(dtype)",
        "to_float": "write x.astype(jnp.float32)",
        "to_int32": "write x.astype(jnp.int32)",
        "to_int64": "write x.astype(jnp.int64)",
        "argmax": "write jnp.argmax(x, axis=0): without axis JAX's looks at all elements, TF1's at axis 0",
        "argmin": "write jnp.argmin(x, axis=0): without axis JAX's looks at all elements, TF1's at axis 0",
        "arg_max": "write jnp.argmax(x, axis=axis)",
        "arg_min": "write jnp.argmin(x, axis=axis)",
        "reduce_mean": "jnp.mean",
        "reduce_sum": "jnp.sum",
        "reduce_max": "jnp.max",
        "reduce_min": "jnp.min",
        "reduce_prod": "jnp.prod",
        "reduce_all": "jnp.all",
        "reduce_any": "jnp.any",
        "reduce_logsumexp": "jax.nn.logsumexp",
        "add_n": "write sum(values)",
        "accumulate_n": "write sum(values)",
        "norm": "jnp.linalg.norm",
        "div": "write x / y, of integers x // y",
        "floordiv": "write x // y",
        "floor_div": "write x // y",
        "truediv": "write x / y",
        "scalar_mul": "write scalar * x",
        "squared_difference": "write jnp.square(x - y)",
        "rsqrt": "jax.lax.rsqrt",
        "lgamma": "jax.lax.lgamma",
        "digamma": "jax.lax.digamma",
        "erf": "jax.lax.erf",
        "erfc": "jax.lax.erfc",
        "is_nan": "jnp.isnan",
        "is_inf": "jnp.isinf",
        "is_finite": "jnp.isfinite",
        "check_numerics": "jax.debug_nans",
        "clip_by_value": "jnp.clip",
        "clip_by_norm": "write x / jnp.maximum(1.0, jnp.linalg.norm(x) / clip_norm)",
        "clip_by_global_norm": "jv.train.clip_by_global_norm",
        "global_norm": "jv.train.global_norm",
        "gather": "write x[indices], or jnp.take(x, indices, axis=axis)",
        "gather_nd": "write x[tuple(jnp.moveaxis(indices, -1, 0))]",
        "batch_gather": "jnp.take_along_axis",
        "boolean_mask": "write x[mask], outside of jit; under jit jnp.where(mask, x, 0)",
        "slice": "write x[begin:end], or jax.lax.dynamic_slice",
        "strided_slice": "write x[begin:end:step]",
        "reverse": "jnp.flip",
        "fill": "jnp.full",
        "range": "jnp.arange",
        "lin_space": "jnp.linspace",
        "rank": "write x.ndim",
        "sequence_mask": "write jnp.arange(longest) < lengths[:, None]",
        "scatter_nd": "write jnp.zeros(shape).at[indices].add(updates)",
        "segment_sum": "jax.ops.segment_sum",
        "unsorted_segment_sum": "jax.ops.segment_sum",
        "segment_max": "jax.ops.segment_max",
        "unsorted_segment_max": "jax.ops.segment_max",
        "matrix_inverse": "jnp.linalg.inv",
        "matrix_determinant": "jnp.linalg.det",
        "matrix_solve": "jnp.linalg.solve",
        "matrix_triangular_solve": "jax.scipy.linalg.solve_triangular",
        "cholesky": "jnp.linalg.cholesky",
        "svd": "jnp.linalg.svd",
        "qr": "jnp.linalg.qr",
        "self_adjoint_eig": "jnp.linalg.eigh",
        "reverse_sequence": "jv.nn.reverse_sequence",
        "map_fn": "jax.lax.map",
        "vectorized_map": "jax.vmap",
        "scan": "write jax.lax.scan(body, init, xs); for layers under a scope each jv.scan_layers",
        "foldl": "write jax.lax.scan(body, init, xs)",
        "while_loop": "jax.lax.while_loop",
        "cond": "jax.lax.cond",
        "case": "jax.lax.switch",
        "function": "jax.jit",
        "recompute_grad": "jax.checkpoint",
        "random_normal": _DRAW.format("normal"),
        "random_uniform": _DRAW.format("uniform"),
        "truncated_normal": "write, in a model: jax.random.truncated_normal(jv.next_rng_key(), -2.0, 2.0, shape)",
        "multinomial": "write, in a model: jax.random.categorical(jv.next_rng_key(), logits)",
        "random_shuffle": "write, in a model: jax.random.permutation(jv.next_rng_key(), x)",
    },
    "jaxvars.train": {
        "MonitoredTrainingSession": _LOOP,
        "MonitoredSession": _LOOP,
        "SingularMonitoredSession": _LOOP,
        "Supervisor": _LOOP,
        "SessionManager": _LOOP,
        "Scaffold": _LOOP,
        "basic_train_loop": _LOOP,
        "LoggingTensorHook": "write jv.train.LoggingHook(every_n_iter=100): it prints the loss and what the loss "
        "function returns as metrics",
        "SummarySaverHook": _SUMMARY,
        "SessionRunHook": "jv.train.Hook",
        "SessionRunContext": "jv.train.RunContext",
        "SessionRunArgs": "a hook sees loss, metrics and variables anyway: run.loss in after_step of a jv.train.Hook",
        "SessionRunValues": "a hook sees loss, metrics and variables anyway: run.loss in after_step of a jv.train.Hook",
        "CheckpointSaverListener": "jv.train.Hook",
        "FinalOpsHook": "write jv.train.FunctionHook(function, every_n_steps=n, at_end=True)",
        "FeedFnHook": _INPUT,
        "ProfilerHook": "write with jax.profiler.trace(folder): around the run",
        "GlobalStepWaiterHook": _CLUSTER,
        "Coordinator": _INPUT,
        "QueueRunner": _INPUT,
        "start_queue_runners": _INPUT,
        "batch": _INPUT,
        "shuffle_batch": _INPUT,
        "string_input_producer": _INPUT,
        "slice_input_producer": _INPUT,
        "Example": _INPUT,
        "ClusterSpec": _CLUSTER,
        "Server": _CLUSTER,
        "SyncReplicasOptimizer": _CLUSTER,
        "summary_iterator": _SUMMARY,
        "SummaryWriter": _SUMMARY,
        "write_graph": "jv.train.export_meta_graph",
        "NewCheckpointReader": "jv.train.load_checkpoint",
        "Checkpoint": "jv.train.Saver",
        "CheckpointManager": "jv.train.Saver",
        "piecewise_constant_decay": "jv.train.piecewise_constant",
        "cosine_decay_restarts": "write optax.sgdr_schedule(...), and give it to the optimizer as learning_rate",
        "assert_global_step": "jv.train.get_global_step",
        "remove_checkpoint": "the saver deletes beyond max_to_keep: jv.train.Saver(max_to_keep=5)",
    },
    "jaxvars.layers": {
        "Input": _PLACEHOLDER,
        "InputSpec": "jax.ShapeDtypeStruct",
        "fully_connected": "jv.layers.dense",
        "convolution2d": "jv.layers.conv2d",
        "batch_norm": "jv.layers.batch_normalization",
        "max_pool2d": "jv.layers.max_pooling2d",
        "avg_pool2d": "jv.layers.average_pooling2d",
        "relu": "jax.nn.relu",
        "l2_regularizer": "jv.regularizers.l2_regularizer",
        "l1_regularizer": "jv.regularizers.l1_regularizer",
        "xavier_initializer": "jv.glorot_uniform_initializer",
        "variance_scaling_initializer": "jv.variance_scaling_initializer",
    },
    "jaxvars.nn": {
        "softsign": "jax.nn.soft_sign",
        "ctc_loss": "optax.ctc_loss",
        "avg_pool_v2": "jv.nn.avg_pool",
        "max_pool_v2": "jv.nn.max_pool",
        "BasicLSTMCell": "jv.nn.rnn_cell.BasicLSTMCell",
    },
}
# The parts of JAX in which a package's missing names are looked up.
_JAX: dict[str, tuple[str, ...]] = {
    "jaxvars": ("jax.numpy", "jax.nn"),
    "jaxvars.nn": ("jax.nn", "jax.numpy"),
}
_SHORT = {"jax.numpy": "jnp"}


def absent(package: str, name: str) -> AttributeError:
    """Return the error for a name that a package of jaxvars does not have, with what to write instead.

    Args:
      package: the package's ``__name__``; it has been imported.
      name: the name.

    Example:
      >>> print(absent("jaxvars", "reduce_mean"))
      module 'jaxvars' has no attribute 'reduce_mean': write jnp.mean
    """
    text = f"module {package!r} has no attribute {name!r}"
    hint = "" if name.startswith("_") else _hint(package, name)
    # Python appends a guess of its own where `obj` is the module; None keeps it from that.
    return AttributeError(f"{text}: {hint}" if hint else text, name=name, obj=None)


def _hint(package: str, name: str) -> str:
    known = _HINTS.get(package, {}).get(name)
    if known is not None:
        return f"write {known}" if _is_code(known) else known
    for module in _JAX.get(package, ()):
        if hasattr(sys.modules.get(module), name):
            return f"JAX has it, write {_SHORT.get(module, module)}.{name}"
    nearest = nearest_names(name, sys.modules[package].__all__)
    public = package.replace("jaxvars", "jv", 1)
    return f"did you mean {', '.join(f'{public}.{found}' for found in nearest)}?" if nearest else ""


def _is_code(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
