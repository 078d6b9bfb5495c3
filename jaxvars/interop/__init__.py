"""Models, trees and files of other libraries, both ways; each library is imported when it is used.

* A module of theirs inside a scope, its state ours: `linen`, `nnx`, `haiku`, `equinox`.
* A jaxvars model as a module of theirs: `as_linen`, `as_nnx`, `as_haiku`; with plain functions, `Model.to_pure`.
* Values alone: `to_tree` and `from_tree` for any pytree; `to_linen`, `from_linen`, `to_nnx`, `from_nnx`,
  `to_haiku`, `from_haiku`.
* Files, optimizers: `hugging_face` (model folders of `transformers`), `orbax` (its managers), `optax` (masks,
  labels and factors by name rules).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvars.interop import hugging_face, optax, orbax
    from jaxvars.interop._module_layer import module_key
    from jaxvars.interop.equinox_modules import equinox
    from jaxvars.interop.haiku_functions import haiku
    from jaxvars.interop.haiku_values import from_haiku, to_haiku
    from jaxvars.interop.haiku_wrapped import as_haiku
    from jaxvars.interop.linen_modules import linen
    from jaxvars.interop.linen_values import from_linen, to_linen
    from jaxvars.interop.linen_wrapped import as_linen
    from jaxvars.interop.nnx_modules import nnx
    from jaxvars.interop.nnx_values import from_nnx, to_nnx
    from jaxvars.interop.nnx_wrapped import as_nnx
    from jaxvars.interop.trees import from_tree, to_tree

# Name -> the module that has it, imported at the first use (a module is named by itself).
_LAZY = {
    "as_haiku": "haiku_wrapped",
    "as_linen": "linen_wrapped",
    "as_nnx": "nnx_wrapped",
    "equinox": "equinox_modules",
    "from_haiku": "haiku_values",
    "from_linen": "linen_values",
    "from_nnx": "nnx_values",
    "from_tree": "trees",
    "haiku": "haiku_functions",
    "hugging_face": "hugging_face",
    "linen": "linen_modules",
    "module_key": "_module_layer",
    "nnx": "nnx_modules",
    "optax": "optax",
    "orbax": "orbax",
    "to_haiku": "haiku_values",
    "to_linen": "linen_values",
    "to_nnx": "nnx_values",
    "to_tree": "trees",
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
    "as_haiku",
    "as_linen",
    "as_nnx",
    "equinox",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "from_tree",
    "haiku",
    "hugging_face",
    "linen",
    "module_key",
    "nnx",
    "optax",
    "orbax",
    "to_haiku",
    "to_linen",
    "to_nnx",
    "to_tree",
]
