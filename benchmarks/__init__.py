"""What jaxvars costs beside bare JAX and its peers: ``python -m benchmarks [section ...] [--quick]``."""
