"""Random keys: what a user's ``rng`` means, and the key of each variable by its name."""

from __future__ import annotations

import hashlib
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes

from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers._base import seed_key

__all__ = ["as_key", "name_hash", "variable_key"]


def name_hash(name: str) -> int:
    """Return the 32-bit number that stands for a variable's name in its random key.

    It is the first four bytes, little-endian, of the BLAKE2b digest (digest size 4) of the UTF-8 name: the
    same in every process, Python and version of jaxvars.

    Example:
      >>> name_hash("conv1/weights")
      332803854
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def as_key(rng: Any) -> jax.Array:
    """Return the typed JAX key that a user's ``rng`` argument means.

    Args:
      rng: an int seed, a typed key of ``jax.random.key``, or a raw uint32 one of ``jax.random.PRNGKey``. May
        be traced.

    Raises:
      InvalidArgumentError: `rng` is None, an array of several keys, or anything else.

    Example:
      >>> import jax
      >>> bool(as_key(7) == jax.random.key(7))
      True
    """
    if rng is None:
        raise InvalidArgumentError("A random key is needed and rng is None: pass an int seed or jax.random.key(seed).")
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool | np.bool_):
        return seed_key(rng)
    dtype, shape = getattr(rng, "dtype", None), tuple(getattr(rng, "shape", ()))
    if dtype is None or not isinstance(rng, jax.Array | np.ndarray):
        raise InvalidArgumentError(_bad_rng(rng, f"got {rng!r:.80} of type {type(rng).__name__!r}"))
    if jnp.issubdtype(dtype, dtypes.prng_key):
        if shape:
            raise InvalidArgumentError(
                _bad_rng(rng, f"got {dtype}{list(shape)}, that is {int(np.prod(shape))} keys where one is expected")
            )
        return cast(jax.Array, rng)
    if not shape and jnp.issubdtype(dtype, np.integer):
        return jax.random.key(jnp.asarray(rng))
    if dtype == np.uint32 and len(shape) == 1:
        try:
            return jax.random.wrap_key_data(jnp.asarray(rng))
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(_bad_rng(rng, f"got uint32{list(shape)}: {error}")) from error
    raise InvalidArgumentError(_bad_rng(rng, f"got an array {dtype}{list(shape)}"))


def _bad_rng(rng: Any, found: str) -> str:
    several = ""
    if getattr(rng, "ndim", 0):
        is_key = jnp.issubdtype(rng.dtype, dtypes.prng_key) or np.issubdtype(rng.dtype, np.unsignedinteger)
        several = " For several keys use jax.vmap." if is_key else " The seed comes first: model.init(0, *args)."
    return f"rng must be an int seed, jax.random.key(seed) or jax.random.PRNGKey(seed), {found}.{several}"


def variable_key(key: jax.Array, name: str) -> jax.Array:
    """Return the random key of the variable `name`: ``fold_in(key, name_hash(name))``.

    Example:
      >>> import jax
      >>> variable_key(jax.random.key(0), "conv1/weights").shape
      ()
    """
    return jax.random.fold_in(key, np.uint32(name_hash(name)))
