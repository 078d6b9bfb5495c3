"""What JAX makes of Python numbers: 32 bits wide, or 64 where the tests run with ``JAX_ENABLE_X64=1``."""

import jax

X64: bool = jax.config.jax_enable_x64
FLOAT = "float64" if X64 else "float32"
INT = "int64" if X64 else "int32"
COMPLEX = "complex128" if X64 else "complex64"
