"""The models of `examples` beside the same models in TensorFlow 1."""
