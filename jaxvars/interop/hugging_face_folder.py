"""The folder of a model: where its weights and its configuration lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from jaxvars.checkpoint.paths import local_path
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError

__all__ = ["CONFIG", "INDEX", "WEIGHTS", "model_folder", "read_config", "weights_path"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FILES = (WEIGHTS, INDEX, "flax_model.msgpack")  # the first that is there is read, as `transformers` does
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def model_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the path of a model folder.

    Raises:
      NotFoundError: there is no such folder.
    """
    path, text = Path(local_path(folder)), os.fspath(folder)
    if path.is_dir():
        return Path(text) if Path(text).is_dir() else path  # as its user calls it, for what is printed
    hub = (
        ""
        if text.startswith((".", "/", "~")) or text.count("/") != 1
        else (f" If it is a name on the Hub, nothing is downloaded from here: hf download {text} --local-dir FOLDER")
    )
    raise NotFoundError(f"{text} is no model folder: there is no folder {path}.{hub}")


def weights_path(folder: str | os.PathLike[str]) -> str:
    """Return the path of the weights in a model folder, as `jv.checkpoint.open` takes it.

    Raises:
      NotFoundError: there is no such folder, or there are no weights in it.
      InvalidArgumentError: its weights are a pickle, which is never loaded.
    """
    path = model_folder(folder)
    for name in _FILES:
        if (path / name).is_file():
            return str(path / name)
    pickles = [name for name in _PICKLES if (path / name).exists()]
    if pickles:
        raise InvalidArgumentError(
            f"{path} has its weights in {pickles[0]}, a Python pickle, which is never loaded: it could run any code. "
            "Where PyTorch is installed, write:\n"
            f"    AutoModel.from_pretrained({str(path)!r}).save_pretrained(other_folder)"
        )
    raise NotFoundError(f"{path} is no model folder: it has none of {', '.join(_FILES)}.")


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what ``config.json`` says: the sizes of the model.

    Args:
      folder: the model folder.

    Raises:
      NotFoundError: there is no such folder, or no ``config.json`` in it.
      DataLossError: that file is damaged.

    Example:
      >>> import tempfile, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"fc/bias": 0.0})
      >>> path = jv.interop.hugging_face.save(variables, folder.name + "/net", config={"hidden_size": 32})
      >>> jv.interop.hugging_face.read_config(path)["hidden_size"]
      32
      >>> folder.cleanup()
    """
    path = model_folder(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"{path.parent} is no model folder: it has no {CONFIG}.") from None
    except ValueError as error:
        raise DataLossError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise DataLossError(f"{path} is damaged: it holds no dictionary.")
    return config
