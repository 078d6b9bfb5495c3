"""Well-known TF1 models, ported line by line: their variables keep TensorFlow's names, so their checkpoints load."""
