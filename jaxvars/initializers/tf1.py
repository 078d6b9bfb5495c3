"""TF1's top-level spellings: ``tf.zeros_initializer`` is `jv.zeros_initializer`.

TF1 had no ``*_initializer`` for the He and LeCun ones and for identity; users look for them all the same.
"""

from __future__ import annotations

from jaxvars.initializers.constants import Constant as constant_initializer
from jaxvars.initializers.constants import Identity as identity_initializer
from jaxvars.initializers.constants import Ones as ones_initializer
from jaxvars.initializers.constants import Zeros as zeros_initializer
from jaxvars.initializers.orthogonal import Orthogonal as orthogonal_initializer
from jaxvars.initializers.random import RandomNormal as random_normal_initializer
from jaxvars.initializers.random import RandomUniform as random_uniform_initializer
from jaxvars.initializers.random import TruncatedNormal as truncated_normal_initializer
from jaxvars.initializers.scaling import GlorotNormal as glorot_normal_initializer
from jaxvars.initializers.scaling import GlorotUniform as glorot_uniform_initializer
from jaxvars.initializers.scaling import HeNormal as he_normal_initializer
from jaxvars.initializers.scaling import HeUniform as he_uniform_initializer
from jaxvars.initializers.scaling import LecunNormal as lecun_normal_initializer
from jaxvars.initializers.scaling import LecunUniform as lecun_uniform_initializer
from jaxvars.initializers.scaling import UniformUnitScaling as uniform_unit_scaling_initializer
from jaxvars.initializers.scaling import VarianceScaling as variance_scaling_initializer

__all__ = [
    "constant_initializer",
    "glorot_normal_initializer",
    "glorot_uniform_initializer",
    "he_normal_initializer",
    "he_uniform_initializer",
    "identity_initializer",
    "lecun_normal_initializer",
    "lecun_uniform_initializer",
    "ones_initializer",
    "orthogonal_initializer",
    "random_normal_initializer",
    "random_uniform_initializer",
    "truncated_normal_initializer",
    "uniform_unit_scaling_initializer",
    "variance_scaling_initializer",
    "zeros_initializer",
]
