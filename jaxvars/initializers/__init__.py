"""Initializers: TF1's set, interchangeable with `jax.nn.initializers`.

Every initializer is called as ``init(key, shape, dtype=None)``. TF1's spellings are classes, as they were in
TF1, so ``initializer=jv.zeros_initializer`` and ``initializer=jv.zeros_initializer()`` mean the same.

The rest of this module is what `get_variable` is built from: `as_initializer` and the checks around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxvars.initializers._base import Initializer
from jaxvars.initializers._normalize import (
    Normalized,
    as_initializer,
    check_constant_dtype,
    check_constant_without_shape,
    constant_dtype,
    default_initializer,
    is_constant,
    needs_key,
)

if TYPE_CHECKING:
    from jaxvars.initializers.constants import Constant as constant
    from jaxvars.initializers.constants import Constant as constant_initializer
    from jaxvars.initializers.constants import Identity as identity
    from jaxvars.initializers.constants import Identity as identity_initializer
    from jaxvars.initializers.constants import Ones as ones
    from jaxvars.initializers.constants import Ones as ones_initializer
    from jaxvars.initializers.constants import Zeros as zeros
    from jaxvars.initializers.constants import Zeros as zeros_initializer
    from jaxvars.initializers.matrices import Orthogonal as orthogonal
    from jaxvars.initializers.matrices import Orthogonal as orthogonal_initializer
    from jaxvars.initializers.random import RandomNormal as random_normal
    from jaxvars.initializers.random import RandomNormal as random_normal_initializer
    from jaxvars.initializers.random import RandomUniform as random_uniform
    from jaxvars.initializers.random import RandomUniform as random_uniform_initializer
    from jaxvars.initializers.random import TruncatedNormal as truncated_normal
    from jaxvars.initializers.random import TruncatedNormal as truncated_normal_initializer
    from jaxvars.initializers.scaling import GlorotNormal as glorot_normal
    from jaxvars.initializers.scaling import GlorotNormal as glorot_normal_initializer
    from jaxvars.initializers.scaling import GlorotUniform as glorot_uniform
    from jaxvars.initializers.scaling import GlorotUniform as glorot_uniform_initializer
    from jaxvars.initializers.scaling import HeNormal as he_normal
    from jaxvars.initializers.scaling import HeNormal as he_normal_initializer
    from jaxvars.initializers.scaling import HeUniform as he_uniform
    from jaxvars.initializers.scaling import HeUniform as he_uniform_initializer
    from jaxvars.initializers.scaling import LecunNormal as lecun_normal
    from jaxvars.initializers.scaling import LecunNormal as lecun_normal_initializer
    from jaxvars.initializers.scaling import LecunUniform as lecun_uniform
    from jaxvars.initializers.scaling import LecunUniform as lecun_uniform_initializer
    from jaxvars.initializers.scaling import UniformUnitScaling as uniform_unit_scaling
    from jaxvars.initializers.scaling import UniformUnitScaling as uniform_unit_scaling_initializer
    from jaxvars.initializers.scaling import VarianceScaling as variance_scaling
    from jaxvars.initializers.scaling import VarianceScaling as variance_scaling_initializer

# The classes, by their names here and by TF1's ("zeros" is also "zeros_initializer"), and their modules, imported at
# the first use. A new one stands here, in the block above and in `__all__`. TF1 had no ``*_initializer`` for the He and
# LeCun ones and for identity; users look for them all the same.
_CLASSES = {
    "constant": ("constants", "Constant"),
    "identity": ("constants", "Identity"),
    "ones": ("constants", "Ones"),
    "zeros": ("constants", "Zeros"),
    "orthogonal": ("matrices", "Orthogonal"),
    "random_normal": ("random", "RandomNormal"),
    "random_uniform": ("random", "RandomUniform"),
    "truncated_normal": ("random", "TruncatedNormal"),
    "glorot_normal": ("scaling", "GlorotNormal"),
    "glorot_uniform": ("scaling", "GlorotUniform"),
    "he_normal": ("scaling", "HeNormal"),
    "he_uniform": ("scaling", "HeUniform"),
    "lecun_normal": ("scaling", "LecunNormal"),
    "lecun_uniform": ("scaling", "LecunUniform"),
    "uniform_unit_scaling": ("scaling", "UniformUnitScaling"),
    "variance_scaling": ("scaling", "VarianceScaling"),
}


def __getattr__(name: str) -> Any:
    found = _CLASSES.get(name.removesuffix("_initializer"))
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, kind = found
    from jaxvars._lazy import imported

    return imported(__name__, name, module, kind)


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Initializer",
    "Normalized",
    "as_initializer",
    "check_constant_dtype",
    "check_constant_without_shape",
    "constant",
    "constant_dtype",
    "constant_initializer",
    "default_initializer",
    "glorot_normal",
    "glorot_normal_initializer",
    "glorot_uniform",
    "glorot_uniform_initializer",
    "he_normal",
    "he_normal_initializer",
    "he_uniform",
    "he_uniform_initializer",
    "identity",
    "identity_initializer",
    "is_constant",
    "lecun_normal",
    "lecun_normal_initializer",
    "lecun_uniform",
    "lecun_uniform_initializer",
    "needs_key",
    "ones",
    "ones_initializer",
    "orthogonal",
    "orthogonal_initializer",
    "random_normal",
    "random_normal_initializer",
    "random_uniform",
    "random_uniform_initializer",
    "truncated_normal",
    "truncated_normal_initializer",
    "uniform_unit_scaling",
    "uniform_unit_scaling_initializer",
    "variance_scaling",
    "variance_scaling_initializer",
    "zeros",
    "zeros_initializer",
]
