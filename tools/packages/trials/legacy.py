"""What needs the extra [legacy]: Keras's HDF5 files, and checksums by Google's library."""

import sys
from pathlib import Path

import numpy as np

import jaxvars as jv

sdist = Path(sys.argv[1])
keras = jv.checkpoint.open(sdist / "tests" / "golden" / "keras" / "keras2_weights.h5")
assert len(keras) > 0
assert all(np.isfinite(value).all() for value in keras.values())

jv.checkpoint.open(Path(jv.__file__).parent / "tour" / "data" / "model.ckpt-1200")["digits_net/fc/biases"][...]
assert sys.modules["google_crc32c"].implementation == "c"
