"""HDF5 files: weights and models of Keras 1, 2 and 3, and any other file with datasets in it.

HDF5 keeps no checksum of values by default: a flipped bit in a value shows nowhere.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy.typing as npt

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.hdf5_file import Dataset, Hdf5File
from jaxvars.checkpoint.formats.hdf5_text import Octets
from jaxvars.checkpoint.formats.keras_names import keras_aliases
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["Hdf5Source"]

_MODEL_WEIGHTS = "model_weights"
_OPTIMIZER_WEIGHTS = "optimizer_weights"
_TOP_LEVEL_WEIGHTS = "top_level_model_weights"


class Hdf5Source:
    """An HDF5 file, open for reading.

    Weights of Keras 1 and 2 have the names that Keras gave them, ``block1_conv1/kernel``; their paths in the
    file are aliases. All other datasets have their paths as names, ``layers/dense/vars/0``; Keras 3 notes
    the names of its layers beside them, which give aliases such as ``head/kernel``.

    Args:
      path: the file.
      octets: its bytes, where they do not begin with the file's first; closed with the source.
      objects: what a Keras configuration says of the objects in the file (see `keras_aliases`).

    Raises:
      UnavailableError: h5py is not installed.
      NotFoundError: there is no such file.
      DataLossError: it is damaged.
    """

    format = "hdf5"

    def __init__(
        self, path: str, octets: Octets | None = None, objects: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        self.path = path
        octets = RangedFile(path) if octets is None else octets
        try:
            self._file = Hdf5File(octets)
            self._load_names(objects or {})
        except BaseException:
            octets.close()
            raise

    def _load_names(self, objects: Mapping[str, tuple[str, str]]) -> None:
        by_path = {dataset.path: dataset for dataset in self._file.datasets}
        listed = _listed_names(self._file, by_path)
        self._datasets = _named(by_path, listed)
        if len(self._datasets) != len(by_path):
            raise DataLossError(f"{self.path} is damaged: two of its datasets have one name.")
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(name, d.shape, d.dtype, d.type_name, d.problem) for name, d in self._datasets.items()
        }
        aliases = {_readable(d.path): name for name, d in self._datasets.items()}
        if not listed:
            aliases |= keras_aliases(self._file, self._datasets, objects)
        self.aliases: Mapping[str, str] = {a: name for a, name in aliases.items() if a not in self.tensors}

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as a new array in the file's dtype.

        Raises:
          InvalidArgumentError: it has no values that can be read.
          DataLossError: the file is damaged.
        """
        dataset = self._datasets[name]
        if dataset.problem:
            raise InvalidArgumentError(f"Cannot read {name!r} of {self.path}: {dataset.problem}.")
        return self._file.read(dataset)

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) in the order of `names`."""
        for name in names:
            yield name, self.read(name)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _listed_names(file: Hdf5File, by_path: Mapping[str, Dataset]) -> dict[str, str]:
    """Return {path in the file: name} of the weights that Keras 1 or 2 lists in attributes."""
    listed: dict[str, str] = {}
    for where in _listing_groups(file):
        for weight in _long_attribute(file, where, "weight_names"):
            place = posixpath.join(where, weight)
            if place not in by_path:
                raise DataLossError(
                    f"{file.path} is damaged: it lists a weight {weight!r}, but has no dataset {place!r}."
                )
            listed[place] = weight.removesuffix(":0")
    return listed


def _listing_groups(file: Hdf5File) -> list[str]:
    for root in (_MODEL_WEIGHTS, ""):
        if layers := _long_attribute(file, root, "layer_names"):
            inner = [posixpath.join(root, layer) for layer in [*layers, _TOP_LEVEL_WEIGHTS]]
            return [*inner, _OPTIMIZER_WEIGHTS] if root else inner
    return []


def _long_attribute(file: Hdf5File, group: str, name: str) -> list[str]:
    """Return a list of texts, which Keras cuts into pieces ``name0``, ``name1``, ... where it is long."""
    whole = file.text_attribute(group, name) or []
    number = 0
    while part := file.text_attribute(group, f"{name}{number}"):
        whole += part
        number += 1
    return whole


def _named(by_path: Mapping[str, Dataset], listed: Mapping[str, str]) -> dict[str, Dataset]:
    """Give each dataset its listed name where that is its alone, its path otherwise."""
    times = Counter(listed.values())
    # A name that is another dataset's path stays with that path.
    own = {path: name for path, name in listed.items() if times[name] == 1 and by_path.keys().isdisjoint({name})}
    return {own.get(path, _readable(path)): dataset for path, dataset in by_path.items()}


def _readable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
