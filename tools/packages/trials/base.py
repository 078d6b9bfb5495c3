"""What `pip install jaxvars` alone must do: a model, a training step, checkpoints, TensorFlow's too."""

import importlib
import pkgutil
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv

package = Path(jv.__file__).parent
assert "site-packages" in package.parts, package
assert (package / "py.typed").is_file()
assert version("jaxvars") == jv.__version__

for module in pkgutil.walk_packages(jv.__path__, "jaxvars."):
    if not module.name.startswith("jaxvars.tour."):  # which is for the extra [tour]
        importlib.import_module(module.name)


def net(x):
    with jv.variable_scope("hidden"):
        x = jax.nn.relu(jv.layers.dense(x, 16, name="first"))
    return jv.layers.dense(x, 1, name="second")


def loss(variables, x, y):
    prediction, variables = model.apply(variables, x)
    return jnp.mean((prediction - y) ** 2), variables


@jax.jit
def step(variables, x, y):
    (value, variables), gradients = jv.value_and_grad(loss, has_aux=True)(variables, x, y)
    return value, variables.replace({name: variables[name] - 0.1 * gradients[name] for name in gradients})


model = jv.transform(net)
x = jax.random.normal(jax.random.key(0), [32, 3])
y = x.sum(axis=1, keepdims=True)
variables = model.init(0, x)
values = []
for _ in range(20):
    value, variables = step(variables, x, y)
    values.append(float(value))
assert values[-1] < values[0] / 2, values

for format in ("orbax", "tf", "safetensors", "npz"):
    path = jv.checkpoint.save(variables, f"run/{format}/model", format=format)
    restored = jv.checkpoint.restore(path, model.specs(x))
    assert list(restored) == list(variables)
    assert all(np.array_equal(restored[name], variables[name]) for name in variables), format

old = package / "tour" / "data" / "model.ckpt-1200"
assert jv.train.load_variable(old, "global_step") == 1200
assert ("digits_net/conv1/weights", [5, 5, 1, 16]) in jv.train.list_variables(old)
