"""What needs the extra [train]: an optimizer."""

import jax.numpy as jnp

import jaxvars as jv

model = jv.transform(lambda x: jnp.sum((x - jv.get_variable("w", [3], initializer=jv.zeros_initializer())) ** 2))
x = jnp.arange(3.0)
optimizer = jv.train.AdamOptimizer(0.5)
variables = optimizer.init(model.init(0, x))
for _ in range(50):
    value, variables = optimizer.minimize(model.apply, variables, x)
assert "w/Adam" in variables, list(variables)
assert float(value) < 0.1, value
