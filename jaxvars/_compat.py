"""The few JAX names outside JAX's stable surface, in one place.

`take_current_trace` and `set_current_trace` live in ``jax.extend.core``; `make_user_context` and `new_ref`
are public but young. A JAX without them cannot run jaxvars, and says so at import.
"""

from __future__ import annotations

import jax

from jaxvars.errors import UnavailableError

try:
    from jax import make_user_context, new_ref
    from jax.extend.core import set_current_trace, take_current_trace
except ImportError as error:
    raise UnavailableError(
        f"jaxvars needs jax>=0.10.0 (this is {jax.__version__}): {error}. Run: pip install -U 'jax>=0.10'"
    ) from error

__all__ = ["make_user_context", "new_ref", "set_current_trace", "take_current_trace"]
