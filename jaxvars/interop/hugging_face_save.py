"""Writing variables as a model folder that `transformers` loads."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.outgoing import Outgoing, outgoing
from jaxvars.checkpoint.formats.safetensors_header import tensor_type
from jaxvars.checkpoint.gathering import write_gathered
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.checkpoint.save import prepare
from jaxvars.checkpoint.together import is_common
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, some_names
from jaxvars.interop._packages import require
from jaxvars.interop.hugging_face_folder import CONFIG, INDEX, WEIGHTS, model_folder, weights_path
from jaxvars.interop.hugging_face_names import ModelNames, Place, torch_name
from jaxvars.interop.hugging_face_roles import ROLES
from jaxvars.variables import Variables

__all__ = ["save"]

_Folder = str | os.PathLike[str]
_Array = npt.NDArray[Any]

_METADATA = {"format": "pt"}  # without it `transformers` does not load the file
_BATCHES = "num_batches_tracked"  # PyTorch's batch normalization counts; with a fixed momentum it does not use it
_COMPANIONS = (".json", ".txt", ".model", ".jinja")  # configuration and tokenizer
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def save(
    variables: Variables,
    folder: _Folder,
    names: ModelNames | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    like: _Folder | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> str:
    """Write variables as a model folder, under PyTorch's names and in its layouts: ``from_pretrained`` loads it.

    With several processes all must call it; process 0 writes, and gets the variables that others hold.

    Args:
      variables: the variables of the model, and no others; none may be a hole.
      folder: where to. Weights that are there are replaced; all other files stay.
      names: what their modules are called there, the same as for `restore`.
      config: what ``config.json`` is to say: ``{"model_type": "bert", "hidden_size": 768, ...}``.
      like: a model folder, such as the one the variables were restored from. Its configuration and tokenizer go along,
        its spelling of the names is kept, and so are tensors of it that are no variables here.
      max_shard_bytes: size from which on the weights are several files with an index.

    Returns:
      `folder`, as a string.

    Raises:
      InvalidArgumentError: neither `config` nor `like`; variables that are not of the model, or that get one name; a
        dtype that the format does not have.
      FailedPreconditionError: variables are uninitialized, or under a JAX transformation; the disk refuses.
      NotFoundError: a pattern of `names` matches nothing; `like` is no model folder.
      UnavailableError: the package safetensors is missing.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"fc/kernel": jnp.ones((3, 2)), "fc/bias": jnp.zeros(2)})
      >>> path = jv.interop.hugging_face.save(variables, folder.name + "/net", config={"model_type": "net"})
      >>> jv.train.list_variables(path)
      [('fc.bias', [2]), ('fc.weight', [2, 3])]
      >>> folder.cleanup()
    """
    if config is None and like is None:
        raise InvalidArgumentError("hugging_face.save: what kind of model is it? Write config={...}, or like=folder.")
    require("safetensors.numpy", "hugging_face.save")  # before anything is written
    target, _ = prepare(variables, folder, "safetensors")
    names = names or ModelNames()
    places = names.places(variables)
    _check_of_model(variables, places)
    if like is not None:
        weights_path(like)  # before anything is written

    def write(items: Sequence[Outgoing], path: str) -> None:
        with contextlib.ExitStack() as opened:
            reader = None if like is None else opened.enter_context(open_checkpoint(weights_path(like)))
            original = {} if reader is None or reader.format != "safetensors" else reader  # Flax's names are others
            tensors = _tensors(items, places, names.base, original)
            _write_folder(Path(path), _shards(tensors, max_shard_bytes), config, like)

    items = outgoing(variables)
    if is_common(item.value for item in items):
        write_gathered(items, target, write)
    else:
        write(items, target)
    return os.fspath(folder)


def _tensors(
    items: Sequence[Outgoing], places: Mapping[str, Place], base: str, original: Mapping[str, Any]
) -> dict[str, _Array]:
    """The tensors under PyTorch's names, in its layouts, and those of the original that are no variables here."""
    result: dict[str, _Array] = {}
    sources: dict[str, list[str]] = {}
    counters: dict[str, _Array] = {}
    for item in items:
        place = places[item.name]
        there = torch_name(place, base, original or None)
        sources.setdefault(there, []).append(item.name)
        change = ROLES[place.role].to_torch(item.shape)
        result[there] = np.asarray(item.array() if change is None else change(item.array()), order="C")
        if place.role == "moving_mean":
            counters[f"{there.rpartition('.')[0]}.{_BATCHES}"] = np.zeros((), np.int64)
    _check_names(sources, result)
    return counters | {name: np.asarray(tensor) for name, tensor in original.items() if name not in result} | result


def _write_folder(
    folder: Path, shards: Mapping[str, Mapping[str, _Array]], config: Mapping[str, Any] | None, like: _Folder | None
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_weights(shards, folder)
        if like is not None:
            _copy_companions(model_folder(like), folder)
        if config is not None:
            text = json.dumps(dict(config), indent=2, sort_keys=True) + "\n"
            (folder / CONFIG).write_text(text, encoding="utf-8")
    except OSError as error:
        raise FailedPreconditionError(f"Cannot write {folder}: {error.strerror or error}.") from error


def _check_of_model(variables: Variables, places: Mapping[str, Place]) -> None:
    """Refuse optimizer slots, counters and the like, which a model of PyTorch has no place for."""
    trainable = variables._layout.trainable
    strangers = [name for name, flag in zip(variables, trainable, strict=True) if places[name].guessed and not flag]
    if strangers:
        raise InvalidArgumentError(
            f"hugging_face.save: {some_names(strangers)}: not trainable, and by no rule a part of the model. Write:\n"
            "    hugging_face.save(variables.select(list(model.specs(x))), ...)\n"
            'or name them: ModelNames(tensors=[(pattern, name, "parameter")])'
        )


def _check_names(sources: Mapping[str, list[str]], tensors: Mapping[str, _Array]) -> None:
    twice = [f"  {there!r} from {', '.join(here)}" for there, here in sources.items() if len(here) > 1]
    if twice:
        raise InvalidArgumentError("\n".join(["hugging_face.save: several variables get one name:", *twice]))
    others = [f"{name} ({array.dtype})" for name, array in tensors.items() if tensor_type(array.dtype) is None]
    if others:
        raise InvalidArgumentError(f"A safetensors file has no type for {some_names(others)}.")


def _shards(tensors: Mapping[str, _Array], most: int) -> dict[str, dict[str, _Array]]:
    """The tensors by the file they go to, in order of their names; a tensor is never cut."""
    groups: list[dict[str, _Array]] = [{}]
    size = 0
    for name in sorted(tensors):
        if groups[-1] and size + tensors[name].nbytes > most:
            groups.append({})
            size = 0
        groups[-1][name] = tensors[name]
        size += tensors[name].nbytes
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    return {f"model-{number:05d}-of-{len(groups):05d}.safetensors": g for number, g in enumerate(groups, 1)}


def _write_weights(shards: Mapping[str, Mapping[str, _Array]], folder: Path) -> None:
    """Write all files beside their places first, then move them there, then delete weights of before."""
    save_file = require("safetensors.numpy", "hugging_face.save").save_file
    with _unfinished(folder) as beside:
        for name, tensors in shards.items():
            save_file(dict(tensors), beside / name, _METADATA)
        if len(shards) > 1:
            (beside / INDEX).write_text(_index(shards))
        written = [path.name for path in beside.iterdir()]
        for name in written:
            os.replace(beside / name, folder / name)
    for path in folder.iterdir():
        old = path.name in (WEIGHTS, INDEX) or _SHARD.fullmatch(path.name)
        if old and path.name not in written:
            path.unlink()


@contextlib.contextmanager
def _unfinished(folder: Path) -> Generator[Path]:
    beside = folder / f".unfinished-{os.getpid()}"
    beside.mkdir(exist_ok=True)
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _index(shards: Mapping[str, Mapping[str, _Array]]) -> str:
    places = {name: file for file, tensors in shards.items() for name in tensors}
    size = sum(array.nbytes for tensors in shards.values() for array in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    return json.dumps(index, indent=2) + "\n"


def _copy_companions(source: Path, target: Path) -> None:
    if source.samefile(target):
        return
    for path in source.iterdir():
        if path.is_file() and path.suffix in _COMPANIONS and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)
