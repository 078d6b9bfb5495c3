"""`jv.checkpoint.open`: any checkpoint as a mapping from names to arrays that are read when they are used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.base import Source, TensorInfo
from jaxvars.checkpoint.formats.registry import open_source
from jaxvars.checkpoint.paths import locate
from jaxvars.errors import FailedPreconditionError, InvalidTypeError, NotFoundError, nearest_names
from jaxvars.spec import DEFAULT_COLLECTIONS, VariableSpec

__all__ = ["CheckpointReader", "LazyArray", "open"]


class LazyArray:
    """One tensor of a checkpoint: name, shape and dtype now, the values when they are asked for.

    ``np.asarray(lazy)`` reads the values, in the file's dtype, and checks them against their checksum.

    Attributes:
      name: the name in the file.
      shape: the shape.
      dtype: the file's dtype; `object` for strings, whose elements are bytes.
    """

    __slots__ = ("_info", "_reader", "dtype", "name", "shape")

    def __init__(self, reader: CheckpointReader, info: TensorInfo) -> None:
        self._reader = reader
        self._info = info
        self.name: str = info.name
        self.shape: tuple[int, ...] = info.shape
        self.dtype: np.dtype[Any] = info.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._info.size

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self._info.nbytes

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        values = self._reader._read(self.name)
        return values if dtype is None else values.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self)[index]

    def __len__(self) -> int:
        if not self.shape:
            raise InvalidTypeError(f"len() of {self.name!r}, which is a scalar.")
        return self.shape[0]

    def __repr__(self) -> str:
        problem = f", unreadable: {self._info.problem}" if self._info.problem else ""
        return f"<{self.name}: {self._info.type_name} {list(self.shape)}{problem}>"


class CheckpointReader(Mapping[str, LazyArray]):
    """An open checkpoint of any format (TF1: `tf.train.NewCheckpointReader`). Made by `jv.checkpoint.open`.

    A mapping from names, in sorted order, to `LazyArray`. A name may end in ``:0``, and may be one of `aliases`. It is
    a context manager; without ``with`` its files are closed when it is collected.

    Attributes:
      format: "tf" (V2), "tf_v1", "orbax", "safetensors", "npz", "msgpack" (Flax), "hdf5" or "keras".
      path: the path that opens this very checkpoint again.
    """

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self.format: str = source.format
        self.path: str = source.path
        self._tensors = source.tensors
        self._names = sorted(source.tensors)
        self._aliases: Mapping[str, str] | None = None

    @property
    def source(self) -> Source:
        """The format's own reader.

        Raises:
          FailedPreconditionError: the reader was closed.
        """
        if self._source is None:
            raise FailedPreconditionError(f"This reader of {self.path} is closed. Open the checkpoint again.")
        return self._source

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What is known of each tensor without reading it."""
        return self._tensors

    @property
    def variable_specs(self) -> dict[str, VariableSpec]:
        """A `VariableSpec` for each tensor, by name.

        Checkpoints that jaxvars saved give the specs of the saved variables. TensorFlow's do not say what is
        trainable: there floating and complex tensors count as trainable. Strings have no spec.
        """
        saved: Mapping[str, VariableSpec] | None = getattr(self.source, "specs", None)
        if saved is not None:
            return {name: saved[name] for name in self._names}
        return {name: _guessed_spec(self._tensors[name]) for name in self._names if not _is_text(self._tensors[name])}

    @property
    def aliases(self) -> Mapping[str, str]:
        """Other names of tensors, where the file knows some: in TensorFlow 2's those that TF1 gave."""
        if self._aliases is None:
            found: Mapping[str, str] = getattr(self.source, "aliases", {})
            self._aliases = {alias: name for alias, name in found.items() if alias not in self._tensors}
        return self._aliases

    def resolve(self, name: str) -> str:
        """Return the tensor's name in the file for that name, an alias, or either as TF1 writes it (``a/b:0``).

        Raises:
          NotFoundError: there is no such tensor; the text has the nearest names.
        """
        found = self._find(name)
        if found is None:
            raise NotFoundError(_missing_text(name, self))
        return found

    def _find(self, name: str) -> str | None:
        plain = name.removesuffix(":0")
        for candidate in (name, plain):
            if candidate in self._tensors:
                return candidate
        return self.aliases.get(name) or self.aliases.get(plain)

    def __getitem__(self, name: str) -> LazyArray:
        return LazyArray(self, self._tensors[self.resolve(name)])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<CheckpointReader {self.format} {self.path!r}: {len(self)} tensors>"

    # TF1's names of the same questions.

    def has_tensor(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self

    def get_tensor(self, name: str) -> npt.NDArray[Any]:
        """Return the values of a tensor, in the file's dtype."""
        return self._read(self.resolve(name))

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Return the shape of each tensor."""
        return {name: list(self._tensors[name].shape) for name in self._names}

    def get_variable_to_dtype_map(self) -> dict[str, np.dtype[Any]]:
        """Return the dtype of each tensor (`object` for strings)."""
        return {name: self._tensors[name].dtype for name in self._names}

    def _read(self, name: str) -> npt.NDArray[Any]:
        return self.source.read(name)

    def close(self) -> None:
        """Close the files. Names, shapes and dtypes stay known."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open(path: str | os.PathLike[str]) -> CheckpointReader:
    """Open a checkpoint of any format, found by its content, without TensorFlow (TF1: `load_checkpoint`).

    Args:
      path: the prefix of a TensorFlow checkpoint (``run/model.ckpt-1000``), its ``.index`` file, a V1 file, a
        folder with a `checkpoint` state file (its latest checkpoint), a SavedModel, an Orbax folder; a file of
        safetensors (or the index of several), NumPy (.npz), Flax (msgpack) or Keras (.h5, .weights.h5, .keras), or
        a folder with one of these. A string, a `pathlib.Path` or a ``file://`` URL.

    Returns:
      A `CheckpointReader`. No values are read yet.

    Raises:
      NotFoundError: there is no checkpoint.
      InvalidArgumentError: what is there is something else, and what it is.
      DataLossError: it is damaged.

    Example:
      >>> import tempfile, numpy as np, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"dense/kernel": np.ones((2, 3), np.float32)})
      >>> path = jv.checkpoint.save(variables, folder.name + "/model.ckpt")
      >>> with jv.checkpoint.open(path) as reader:
      ...     print(list(reader), reader["dense/kernel"].shape, np.asarray(reader["dense/kernel"]).sum())
      ['dense/kernel'] (2, 3) 6.0
      >>> folder.cleanup()
    """
    return CheckpointReader(open_source(locate(path)))


def _missing_text(name: str, reader: CheckpointReader) -> str:
    near = nearest_names(name.removesuffix(":0"), [*reader, *reader.aliases])
    hint = f" Nearest: {', '.join(near)}." if near else ""
    return f"Key {name} not found in checkpoint {reader.path}, which has {len(reader)} tensors.{hint}"


def _is_text(info: TensorInfo) -> bool:
    return info.dtype == np.dtype(object)


def _guessed_spec(info: TensorInfo) -> VariableSpec:
    trainable = info.dtype.kind in "fcV"  # bfloat16 and float8 are of kind "V"
    collections = DEFAULT_COLLECTIONS if trainable else DEFAULT_COLLECTIONS[:1]
    return VariableSpec(info.name, info.shape, info.dtype, trainable, collections)
