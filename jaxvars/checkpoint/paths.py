"""From what a user calls a checkpoint (a prefix, a file, a folder, a URL) to the reader and its path."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator
from typing import NamedTuple

from jaxvars.checkpoint.formats import identify
from jaxvars.checkpoint.formats.files import list_folder, shard_files
from jaxvars.checkpoint.formats.orbax_layout import is_orbax_folder, previous_path
from jaxvars.checkpoint.formats.state_file import CheckpointState, read_state
from jaxvars.checkpoint.formats.tensor_bundle import is_bundle_index
from jaxvars.errors import (
    DataLossError,
    InvalidArgumentError,
    InvalidTypeError,
    JaxvarsError,
    NotFoundError,
    nearest_names,
)

__all__ = ["STATE_FILE", "Location", "exists", "local_path", "locate", "resolve_state_path"]

STATE_FILE = "checkpoint"
_MOST_SHOWN = 5
_MOST_IDENTIFIED = 100  # files of unknown names in a folder that are looked into
_SHARD = re.compile(r"-\d{5}-of-\d{5}\Z")
_DATA_FILE = re.compile(r"(.*)\.data-\d{5}-of-\d{5}\Z")
# How checkpoints that are single files are usually called, the most telling first; only their content counts.
_FILE_SUFFIXES = (".safetensors.index.json", ".safetensors", ".msgpack", ".keras", ".weights.h5", ".h5", ".npz")


class Location(NamedTuple):
    """Which reader opens a checkpoint ("tf", "tf_v1", "orbax", "safetensors", ...) and with which path."""

    format: str
    path: str


def local_path(path: str | os.PathLike[str]) -> str:
    """Return the plain absolute path that `path` (a string, a `pathlib.Path`, a ``file://`` URL) means.

    Raises:
      InvalidTypeError: it is none of these.
      InvalidArgumentError: it is a URL of another kind, or empty.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidTypeError(
            f"The path of a checkpoint is a string or a pathlib.Path, not {type(path).__name__}. "
            "The path comes first: jv.checkpoint.restore(path, into)."
        )
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidArgumentError(f"{text!r} is not the path of a checkpoint.")
    if text.startswith("file://"):
        url = urllib.parse.urlsplit(text)
        if url.netloc not in ("", "localhost"):
            raise InvalidArgumentError(f"{text}: a file URL has three slashes, as in file:///home/me/model.ckpt.")
        text = urllib.parse.unquote(url.path)
    elif "://" in text:
        scheme = text.split("://", 1)[0]
        raise InvalidArgumentError(f"{text}: cannot read {scheme}:// directly. Copy the checkpoint to a local folder.")
    return os.path.abspath(os.path.expanduser(text))


def exists(path: str) -> bool:
    """Whether a checkpoint seems to be at `path`: a prefix, a V1 file or its shards, an Orbax folder."""
    return (
        os.path.isfile(path + ".index")
        or os.path.isfile(path)
        or is_orbax_folder(path)
        or previous_path(path) is not None
        or bool(shard_files(path))
    )


def resolve_state_path(noted: str, folder: str) -> str | None:
    """Return where the checkpoint that a state file in `folder` notes is now, None if it is gone.

    Files are often moved: a dead path is looked up by its last component in the state file's own folder.
    """
    candidates = (os.path.join(folder, noted), os.path.join(folder, os.path.basename(noted)))
    return next((path for path in candidates if exists(path)), None)


def locate(path: str | os.PathLike[str]) -> Location:
    """Find the checkpoint that `path` means, and its format, by content.

    Args:
      path: the prefix of a TensorFlow checkpoint (``run/model.ckpt-1000``), its ``.index`` file, a V1 file,
        a folder with a `checkpoint` state file (its latest one), a SavedModel, an Orbax folder, a file of
        safetensors (or its index), NumPy, Keras or Flax, a folder with one such file or one V1 checkpoint.

    Returns:
      A `Location`.

    Raises:
      NotFoundError: there is nothing, with the nearest names.
      InvalidArgumentError: there is something else, and what it is.
      DataLossError: the file is damaged.
    """
    text = local_path(path)
    if os.path.isfile(text + ".index"):  # TensorFlow, too, prefers V2 where both versions have one name
        return _table(text + ".index")
    if os.path.isdir(text):
        return _in_folder(text)
    if os.path.isfile(text):
        return _file(text)
    previous = previous_path(text)
    if previous is not None:
        return Location("orbax", previous)
    if shard_files(text):
        return Location("tf_v1", text)
    raise _nothing_there(text)


def _file(path: str) -> Location:
    kind = identify.identify_file(path)
    if kind == identify.TABLE:
        return _table(path)
    if kind == identify.STATE:
        return _from_state(path)
    data = _DATA_FILE.match(path)  # raw values, which may look like anything
    if data and os.path.isfile(data[1] + ".index"):
        raise InvalidArgumentError(f"{path} is one data file of a checkpoint. Open the checkpoint: {data[1]!r}")
    if data:
        raise DataLossError(f"{path} is a data file whose index {data[1]}.index is missing: names are unknown.")
    if kind.format:
        return Location(kind.format, path)
    if kind.text:
        raise InvalidArgumentError(f"{path} is not a checkpoint that jaxvars reads, but {kind.text}.")
    raise DataLossError(
        f"{path} is not a checkpoint that jaxvars reads, or its end is missing: "
        "a TensorFlow table ends in the bytes 57fb808b247547db."
    )


def _table(path: str) -> Location:
    if not is_bundle_index(path):
        return Location("tf_v1", path)
    prefix = path.removesuffix(".index")
    if prefix == path:
        raise InvalidArgumentError(
            f"{path} is the index of a TensorFlow checkpoint under another name: call it NAME.index again, "
            "beside its NAME.data-00000-of-00001."
        )
    return Location("tf", prefix)


def _in_folder(path: str) -> Location:
    if is_orbax_folder(path):
        return Location("orbax", path)
    for name in ("saved_model.pb", "saved_model.pbtxt"):
        if os.path.isfile(os.path.join(path, name)):
            return _saved_model(path)
    state = os.path.join(path, STATE_FILE)
    if os.path.isfile(state) and identify.identify_file(state) == identify.STATE:
        return _from_state(state)
    indices = [name for name in list_folder(path) if name.endswith(".index")]
    if len(indices) == 1:
        return _table(os.path.join(path, indices[0]))
    if not indices:
        files = _single_files(path)
        if len(files) == 1:
            return locate(os.path.join(path, files[0]))
    raise _folder_error(path, indices)


def _single_files(folder: str) -> list[str]:
    """The checkpoints in a folder that are single files: those of the most telling suffix that occurs, else V1's."""
    names = [name for name in list_folder(folder) if os.path.isfile(os.path.join(folder, name))]
    for suffix in _FILE_SUFFIXES:
        found = [name for name in names if name.endswith(suffix)]
        if found:
            return found
    return _v1_prefixes(folder, names)


def _v1_prefixes(folder: str, names: list[str]) -> list[str]:
    """The checkpoints of TensorFlow V1 in a folder, which have no suffix: the files, or the shards' common prefixes."""
    if len(names) > _MOST_IDENTIFIED:
        return []
    return sorted({_SHARD.sub("", name) for name in names if _is_table(os.path.join(folder, name))})


def _is_table(path: str) -> bool:
    try:
        return identify.identify_file(path) == identify.TABLE
    except JaxvarsError:  # it may not be ours to read
        return False


def _saved_model(path: str) -> Location:
    variables = os.path.join(path, "variables", "variables")
    if not exists(variables):
        raise NotFoundError(f"{path} is a SavedModel without variables: {variables}.index does not exist.")
    return locate(variables)


def _from_state(path: str) -> Location:
    folder = os.path.dirname(path)
    state = read_state(path)
    found = resolve_state_path(state.model_checkpoint_path, folder)
    if found is None:
        others = _surviving(state, folder)
        latest = ", ".join(others[-_MOST_SHOWN:])
        hint = f" Still there: {latest}." if others else f" ({identify.describe_folder(folder)})"
        raise NotFoundError(
            f"{path} names {state.model_checkpoint_path!r} as the latest checkpoint, but it does not exist, "
            f"neither there nor in {folder}.{hint}"
        )
    if _is_state(found):  # or we might go round in a circle
        raise DataLossError(
            f"{path} is damaged: it names {found} as the latest checkpoint, which is such a file itself."
        )
    return locate(found)


def _is_state(path: str) -> bool:
    is_prefix = os.path.isfile(path + ".index")
    return not is_prefix and os.path.isfile(path) and identify.identify_file(path) == identify.STATE


def _surviving(state: CheckpointState, folder: str) -> list[str]:
    found = (resolve_state_path(path, folder) for path in state.all_model_checkpoint_paths)
    return list(dict.fromkeys(path for path in found if path is not None))


def _folder_error(path: str, indices: list[str]) -> Exception:
    prefixes = sorted(name.removesuffix(".index") for name in indices) or _single_files(path)
    if prefixes:
        return InvalidArgumentError(
            f"Couldn't find 'checkpoint' file in {path}, and it holds several checkpoints: "
            f"{', '.join(prefixes[:_MOST_SHOWN])}. Open one: {os.path.join(path, prefixes[-1])!r}"
        )
    inner = sorted(name for name in list_folder(path) if is_orbax_folder(os.path.join(path, name)))
    if inner:
        best = max(inner, key=lambda name: (name.isdecimal(), int(name) if name.isdecimal() else 0, name))
        return InvalidArgumentError(
            f"{path} is a folder of Orbax checkpoints: {', '.join(inner[:_MOST_SHOWN])}. "
            f"Open one: {os.path.join(path, best)!r}"
        )
    return NotFoundError(
        f"Couldn't find 'checkpoint' file or checkpoints in given directory {path}: {identify.describe_folder(path)}."
    )


def _nothing_there(path: str) -> NotFoundError:
    folder, base = os.path.split(path)
    if not os.path.isdir(folder):
        return NotFoundError(f"Failed to find any matching files for {path}: there is no folder {folder}.")
    near = nearest_names(base, _prefixes(folder))
    if near:
        hint = f"Did you mean {' or '.join(repr(os.path.join(folder, name)) for name in near)}?"
    else:
        hint = f"({identify.describe_folder(folder)})"
    return NotFoundError(f"Failed to find any matching files for {path}: there is no such checkpoint. {hint}")


def _prefixes(folder: str) -> Iterator[str]:
    for name in list_folder(folder):
        data = _DATA_FILE.match(name)
        yield data[1] if data else name.removesuffix(".index")
