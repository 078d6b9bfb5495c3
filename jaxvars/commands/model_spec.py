"""What variables a model has, as a command line can say it: a checkpoint, a JSON or graph file, ``module:name``."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Generator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars import checkpoint
from jaxvars.checkpoint.formats.orbax_record import named_dtype
from jaxvars.checkpoint.rules_file import read_json
from jaxvars.commands.output import use_cpu
from jaxvars.errors import InvalidArgumentError, JaxvarsError
from jaxvars.spec import DEFAULT_COLLECTIONS, Hole, VariableSpec
from jaxvars.state import checked_key
from jaxvars.variables import Variables

__all__ = ["MODEL_HELP", "read_model"]

MODEL_HELP = (
    "what the model's variables are: another checkpoint; a JSON file {name: {shape, dtype}}, or what `inspect --json` "
    "prints (- reads standard input); a TensorFlow .meta file; or module:name, a jv.Variables or a function without "
    "arguments that returns one, such as model.specs(...) does"
)
_PYTHON = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(\.[^\W\d]\w*)*)")
_HEAD = 64  # bytes


def read_model(text: str) -> Variables:
    """Return the variables that `text` means; where it has no values for them they are holes.

    Raises:
      NotFoundError: there is no such file.
      InvalidArgumentError: it is nothing of what can be meant.
    """
    python = _PYTHON.fullmatch(text)
    if python and not os.path.exists(text):
        return _from_python(python["module"], python["name"])
    use_cpu()
    if text.endswith(".meta") and os.path.isfile(text):
        from jaxvars.checkpoint.graph_variables import graph_variables

        return graph_variables(text)
    if text == "-" or _is_json(text):
        return _from_json(*read_json(text))
    module = text.removesuffix(".py")
    if os.path.isfile(f"{module}.py") and (text != module or not os.path.exists(text)):
        name = module.removeprefix("./").replace("/", ".")
        raise InvalidArgumentError(
            f"{text} is a Python module: write {name}:NAME, where NAME is a jv.Variables in it, or a function without "
            "arguments that returns one, such as model.specs(...) does"
        )
    return _from_checkpoint(text)


def _from_checkpoint(path: str) -> Variables:
    with checkpoint.open(path) as reader:
        specs = reader.variable_specs.values()
        return Variables.from_specs((spec, Hole(spec.shape, spec.dtype)) for spec in specs)


def _is_json(path: str) -> bool:
    """Whether the file begins as JSON text does."""
    if not os.path.isfile(path):
        return False
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))
    return False


def _from_json(content: Any, what: str) -> Variables:
    """The variables of a JSON file: ``{name: {"shape", "dtype"}}``, ``{name: [shape, dtype]}`` or an inspection."""
    if not isinstance(content, dict):
        raise InvalidArgumentError(f'{what} describes no model: write {{"name": {{"shape": [2], "dtype": "float32"}}}}')
    listed = cast("dict[str, Any]", content).get("variables")
    if isinstance(listed, list):  # what `inspect --json` prints; it lists strings and what cannot be read, too
        items = [
            _listed(item, f"{what}, variable {number}") for number, item in enumerate(cast("list[Any]", listed), 1)
        ]
        pairs = [
            (name, fields) for name, fields in items if fields.get("dtype") != "string" and "problem" not in fields
        ]
    else:
        pairs = [(name, _named(name, fields, what)) for name, fields in cast("dict[str, Any]", content).items()]
    specs = [_spec(name, fields, f"{what}: {name!r}") for name, fields in pairs]
    try:
        return Variables.from_specs((spec, Hole(spec.shape, spec.dtype)) for spec in specs)
    except InvalidArgumentError as error:  # a name twice
        raise InvalidArgumentError(f"{what}: {error}") from None


def _listed(item: Any, what: str) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(item, dict) or not isinstance(cast("dict[str, Any]", item).get("name"), str):
        raise InvalidArgumentError(f"{what} has no name.")
    fields = cast("dict[str, Any]", item)
    return fields["name"], fields


def _named(name: str, fields: Any, what: str) -> Mapping[str, Any]:
    if isinstance(fields, list) and len(cast("list[Any]", fields)) == 2:
        return dict(zip(("shape", "dtype"), cast("list[Any]", fields), strict=True))
    if isinstance(fields, dict):
        return cast("dict[str, Any]", fields)
    raise InvalidArgumentError(f'{what}: {name!r} is described as {{"shape": [2, 3], "dtype": "float32"}}.')


def _spec(name: str, fields: Mapping[str, Any], what: str) -> VariableSpec:
    shape, text = fields.get("shape"), fields.get("dtype")
    dims = cast("list[Any]", shape) if isinstance(shape, list) else [-1]
    if not all(isinstance(dim, int) and not isinstance(dim, bool) and 0 <= dim < 2**63 for dim in dims):
        raise InvalidArgumentError(f"{what}: the shape is a list of sizes such as [2, 3], not {shape!r:.80}")
    trainable = fields.get("trainable", True) is not False
    collections = fields.get("collections", DEFAULT_COLLECTIONS if trainable else DEFAULT_COLLECTIONS[:1])
    if not isinstance(collections, list | tuple) or not all(isinstance(each, str) for each in collections):
        raise InvalidArgumentError(f"{what}: the collections are a list of names.")
    try:
        return VariableSpec(checked_key(name), tuple(dims), _dtype(text), trainable, tuple(collections))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{what}: {error}") from None


def _dtype(text: Any) -> Any:
    try:
        dtype = named_dtype(text) if isinstance(text, str) else None
    except (TypeError, ValueError, AttributeError):
        dtype = None
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.extended) or dtype.kind == "b" or _is_number(dtype)):
        raise InvalidArgumentError(f"{text!r:.80} is not a dtype such as 'float32'")
    return dtype


def _is_number(dtype: np.dtype[Any]) -> bool:
    return jnp.issubdtype(dtype, np.number)


def _from_python(module: str, name: str) -> Variables:
    """The variables that a user's module holds, or a function in it returns."""
    what = f"{module}:{name}"
    with _surroundings(), _calling(what):
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        if callable(found) and not isinstance(found, Variables):
            found = found()
    if not isinstance(found, Variables):
        raise InvalidArgumentError(
            f"{what} is {type(found).__name__}: it should be jv.Variables, such as model.specs(...), or a function "
            "without arguments that returns them"
        )
    return found


@contextlib.contextmanager
def _surroundings() -> Generator[None, None, None]:
    """Modules of the current folder can be imported, and what they print does not mix with the results."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


@contextlib.contextmanager
def _calling(what: str) -> Generator[None, None, None]:
    """Turn whatever a user's module raises into one error that says where."""
    try:
        yield
    except JaxvarsError:
        raise
    except (Exception, SystemExit) as error:
        ours = (__file__, importlib.__file__)
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if frame.filename not in ours and os.path.isfile(frame.filename)]
        where = f" ({os.path.basename(theirs[-1].filename)}:{theirs[-1].lineno})" if theirs else ""
        raise InvalidArgumentError(f"{what}: {type(error).__name__}: {error}{where}") from error
