"""Model folders of Hugging Face's `transformers`: restored into variables by name rules, and written.

A folder holds ``config.json`` and the weights: ``model.safetensors``, or several files with an index, under PyTorch's
names; or ``flax_model.msgpack``. Neither PyTorch nor `transformers` is needed, and nothing is downloaded.

* `BERT` fits the names of Google's BERT checkpoints (``bert/encoder/layer_0/...``), `GPT2` those of OpenAI's
  (``model/h0/attn/c_attn/w``).
* `ModelNames` says it of any other model, in a few rules over scopes.
"""

from __future__ import annotations

import os

from jaxvars.checkpoint.plan import RestorePlan
from jaxvars.checkpoint.plan import plan as checkpoint_plan
from jaxvars.checkpoint.progress import Progress
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.checkpoint.restore import restore as checkpoint_restore
from jaxvars.interop.hugging_face_folder import read_config, weights_path
from jaxvars.interop.hugging_face_names import BERT, GPT2, ModelNames, flax_rules, torch_rules
from jaxvars.interop.hugging_face_save import save
from jaxvars.rules import Rule
from jaxvars.variables import Variables

__all__ = [
    "BERT",
    "GPT2",
    "ModelNames",
    "flax_rules",
    "open",
    "plan",
    "read_config",
    "restore",
    "rules",
    "save",
    "torch_rules",
]

_Folder = str | os.PathLike[str]


def open(folder: _Folder) -> CheckpointReader:
    """Open the weights of a model folder, as `jv.checkpoint.open` does any file.

    Args:
      folder: the model folder, such as ``save_pretrained`` wrote it, or ``hf download NAME --local-dir FOLDER``.

    Returns:
      A reader, under the names in the file. No values are read yet.

    Raises:
      NotFoundError: there is no such folder, or there are no weights in it.
      InvalidArgumentError: its weights are a pickle, which is never loaded.
      DataLossError: they are damaged.

    Example:
      >>> import tempfile, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = jv.interop.hugging_face.save(jv.Variables({"fc/bias": 0.0}), folder.name + "/net", config={})
      >>> with jv.interop.hugging_face.open(path) as reader:
      ...     print(list(reader))
      ['fc.bias']
      >>> folder.cleanup()
    """
    return open_checkpoint(weights_path(folder))


def rules(folder: _Folder, into: Variables, names: ModelNames | None = None) -> list[Rule]:
    """Return the rules with which `restore` reads the folder: `torch_rules` or `flax_rules` of its names.

    Change some and pass them on: ``jv.checkpoint.restore(folder, into, rules=...)``.

    Args:
      folder: the model folder.
      into: the variables, or ``model.specs(...)``.
      names: what their modules are called there.

    Raises:
      As `open`, and NotFoundError: a pattern of `names` matches nothing.

    Example:
      >>> import tempfile, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"fc/bias": 0.0})
      >>> path = jv.interop.hugging_face.save(variables, folder.name + "/net", config={})
      >>> print(*jv.interop.hugging_face.rules(path, variables))
      ("fc/bias", "fc.bias")
      >>> folder.cleanup()
    """
    with open(folder) as reader:
        make = flax_rules if reader.format == "msgpack" else torch_rules
        return make(into, names, among=reader)


def plan(folder: _Folder, into: Variables, names: ModelNames | None = None, cast: bool = False) -> RestorePlan:
    """Say what `restore` with the same arguments would do; reads names and shapes, no values.

    Args:
      folder: the model folder.
      into: the variables, or ``model.specs(...)``.
      names: what their modules are called there.
      cast: as for `restore`.

    Returns:
      A `jv.checkpoint.RestorePlan`: print it.

    Raises:
      As `rules`.

    Example:
      >>> import tempfile, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"fc/bias": 0.0})
      >>> path = jv.interop.hugging_face.save(variables, folder.name + "/net", config={})
      >>> jv.interop.hugging_face.plan(path, variables).restored
      ('fc/bias',)
      >>> folder.cleanup()
    """
    return checkpoint_plan(weights_path(folder), into, rules=rules(folder, into, names), cast=cast)


def restore(
    folder: _Folder,
    into: Variables,
    names: ModelNames | None = None,
    *,
    strict: bool = True,
    cast: bool = False,
    progress: Progress = None,
) -> Variables:
    """Return `into` with the values of a model folder, all or nothing, as `jv.checkpoint.restore` does.

    Args:
      folder: the model folder.
      into: the variables, or ``model.specs(...)``: holes are filled, values replaced.
      names: what their modules are called there: `BERT`, `GPT2`, or a `ModelNames`; None where all that differs is "/"
        for "." and what PyTorch or Flax call the variables of a layer.
      strict: whether a variable that is not in the folder is an error; if not, it keeps what is in `into`: a new head.
      cast: whether to convert between floating dtypes, such as a file's float16 into float32.
      progress: as for `jv.checkpoint.restore`.

    Returns:
      New `Variables`, of `into`'s names, flags and placement.

    Raises:
      As `open` and `jv.checkpoint.restore`: names that are missing, shapes that differ, all of them.

    Example:
      >>> import tempfile, jax, jax.numpy as jnp, jaxvars as jv
      >>> from jaxvars.interop import hugging_face
      >>> model = jv.transform(lambda x: jv.layers.dense(x, 2, name="classifier"))
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = model.init(0, jnp.ones([1, 3]))
      >>> path = hugging_face.save(variables, folder.name + "/net", config={"num_labels": 2})
      >>> with hugging_face.open(path) as reader:
      ...     print(reader["classifier.weight"].shape)     # PyTorch's order
      (2, 3)
      >>> again = hugging_face.restore(path, model.specs(jnp.ones([1, 3])))
      >>> bool((again["classifier/kernel"] == variables["classifier/kernel"]).all())
      True
      >>> folder.cleanup()
    """
    made = rules(folder, into, names)
    return checkpoint_restore(weights_path(folder), into, rules=made, strict=strict, cast=cast, progress=progress)
