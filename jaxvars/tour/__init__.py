"""``python -m jaxvars tour``: the whole of jaxvars on real handwritten digits, in under a minute.

The modules are ordinary user code over jaxvars, meant to be read: `model` is a TF1-style network, `finetune`
its training step, `program` the tour itself, step by step. `data` holds a checkpoint that TensorFlow 1 code
wrote (``tools/make_digits_checkpoint.py`` in the sources).

Nothing here is imported by ``import jaxvars``; it needs the packages of the extra ``jaxvars[tour]``.
"""
