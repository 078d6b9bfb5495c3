"""The parity suite: jaxvars beside TensorFlow itself (`tf.compat.v1`, graph mode). See CONTRIBUTING.md."""
