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



from jaxvars import errors as errors
from jaxvars import initializers as initializers
from jaxvars.assign import *  # noqa: F403

from jaxvars.initializers import *  # noqa: F403
from jaxvars.scopes import *  # noqa: F403
from jaxvars.store import *  # noqa: F403
from jaxvars.transform import Model as Model
from jaxvars.transform import multi_transform as multi_transform
from jaxvars.transform import transform as transform
from jaxvars.variable import Variable as Variable
from jaxvars.variables import Variables as Variables
