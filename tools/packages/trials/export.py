"""What needs the extra [export]: a model that runs without its code."""

import jax.numpy as jnp
import numpy as np

import jaxvars as jv

model = jv.transform(lambda x: x @ jv.get_variable("w", [3, 2], initializer=jv.ones_initializer()))
x = jnp.ones([1, 3])
variables = model.init(0, x)
imported = jv.train.import_meta_graph(jv.train.export_meta_graph("model.meta", model, x))
np.testing.assert_array_equal(imported.apply(variables, x)[0], [[3.0, 3.0]])
