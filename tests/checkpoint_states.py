"""States and trees that the tests of Orbax checkpoints save."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars.spec import Hole, VariableSpec


def mesh():
    return Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))


def state(shape=(256, 128)):
    """A variable of every kind. The first, of `shape`, is sharded, and by default too large to be packed."""
    sharding = NamedSharding(mesh(), P("x", "y"))
    values = {
        "z/w": jax.device_put(jnp.arange(math.prod(shape), dtype=jnp.float32).reshape(shape), sharding),
        "a": jnp.zeros((0, 3)),
        "a/b": jnp.array([1.5, -2], jnp.bfloat16),
        "a.b": jnp.array([[1, -2]]),
        "flags": jnp.array([True, False]),
        "rng": jax.random.split(jax.random.key(7), 3),
        "step": jnp.int32(5),
        "../é %2F:": jnp.float16(3),
    }
    notes = {
        "step": (False, ("variables", "global_step"), "/cpu:0"),
        "z/w": (True, ("variables", "trainable_variables"), P("x", ("y",), None)),
        "flags": (False, ("local_variables",), None),
    }
    plain = (True, ("variables", "trainable_variables"), None)
    return jv.Variables.from_specs(
        (VariableSpec(name, value.shape, value.dtype, *notes.get(name, plain)), value) for name, value in values.items()
    )


def holes(variables):
    return jv.Variables.from_specs((spec, Hole(spec.shape, spec.dtype)) for spec in variables.variable_specs.values())


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        if name == "rng":
            found_data, data = jax.random.key_data(found[name]), jax.random.key_data(value)
        else:
            found_data, data = found[name], value
        assert np.asarray(found_data).tobytes() == np.asarray(data).tobytes()


def foreign_tree():
    return {
        "params": {"dense": {"kernel": jnp.ones((2, 3), jnp.float32), "bias": jnp.zeros(3)}},
        "opt": [jnp.ones(2), (jnp.zeros(()), 3)],
        "step": 5,
    }


def write_v1(path):
    from orbax.checkpoint import v1 as ocp

    ocp.save(path, foreign_tree())
    return path
