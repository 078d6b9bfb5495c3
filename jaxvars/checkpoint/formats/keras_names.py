"""TF1-style names for the numbered variables of Keras 3: ``layers/dense_1/vars/0`` is ``head/kernel``.

Keras 3 files its objects under their classes and numbers their variables. Newer versions note each object's
own name beside its variables; a ``.keras`` file has the layers' names in its configuration. The variables'
names follow from the class, where it is one of Keras' own and keeps its variables in one known order. Where
any of this is unsure there is no alias: a wrong name is worse than none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from jaxvars.checkpoint.formats.hdf5_file import Dataset, Hdf5File

__all__ = ["keras_aliases", "objects_of_config", "snake_case"]

_NUMBERED = re.compile(r"(?:(.+)/)?vars/(\d{1,6})\Z")
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_MOST_LEVELS = 50

_KERNEL = (("kernel",), ("kernel", "bias"))
_CELL = (("kernel", "recurrent_kernel"), ("kernel", "recurrent_kernel", "bias"))
_SEPARABLE = (("depthwise_kernel", "pointwise_kernel"), ("depthwise_kernel", "pointwise_kernel", "bias"))
# What a class keeps, in order. One variable of a normalization may be its gamma or its beta: not listed.
_VARIABLES: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("dense", "einsum_dense", "query_dense", "key_dense", "value_dense", "output_dense"), _KERNEL),
    **dict.fromkeys((f"conv{n}d{kind}" for n in (1, 2, 3) for kind in ("", "_transpose")), _KERNEL),
    **dict.fromkeys(("depthwise_conv1d", "depthwise_conv2d"), _KERNEL),
    **dict.fromkeys(("separable_conv1d", "separable_conv2d"), _SEPARABLE),
    **dict.fromkeys(("simple_rnn_cell", "gru_cell", "lstm_cell"), _CELL),
    "embedding": (("embeddings",),),
    "batch_normalization": (("gamma", "beta", "moving_mean", "moving_variance"),),
    "layer_normalization": (("gamma", "beta"),),
    "group_normalization": (("gamma", "beta"),),
    "p_re_lu": (("alpha",),),
}


def snake_case(name: str) -> str:
    """Return a class name as Keras writes it in paths: ``BatchNormalization`` is ``batch_normalization``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def keras_aliases(
    file: Hdf5File, datasets: Mapping[str, Dataset], objects: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    """Return {alias: name} for the numbered variables of a file that Keras 3 wrote.

    Args:
      file: the open file.
      datasets: its datasets by name; the names are paths.
      objects: {path of an object: (its class in snake case, its name)} of the configuration.
    """
    owners: dict[str, dict[int, Dataset]] = {}
    for name, dataset in datasets.items():
        if match := _NUMBERED.match(name):
            owners.setdefault(match[1] or "", {})[int(match[2])] = dataset
    found: list[tuple[str, str]] = []
    for owner, variables in owners.items():
        scope = _scope(file, owner, objects)
        names = _variable_names(owner, scope, variables, objects) if scope else ()
        found += [("/".join([*scope, short]), f"{owner}/vars/{number}") for number, short in enumerate(names)]
    times = Counter(alias for alias, _ in found)
    return {alias: name for alias, name in found if times[alias] == 1}


def _scope(file: Hdf5File, owner: str, objects: Mapping[str, tuple[str, str]]) -> list[str]:
    """The names of an object and of those that own it, outermost first; [] where one has none."""
    names: list[str] = []
    parts = owner.split("/") if owner else []
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        noted = file.text_attribute(f"{path}/vars", "name")
        if noted is None and count < len(parts) and path not in objects:
            continue  # a list of objects, which has no name
        if not noted:
            noted = [objects[path][1]] if path in objects else []
        if len(noted) != 1 or not noted[0]:
            return []
        names.append(noted[0])
    return names


def _variable_names(
    owner: str, scope: list[str], variables: Mapping[int, Dataset], objects: Mapping[str, tuple[str, str]]
) -> tuple[str, ...]:
    if sorted(variables) != list(range(len(variables))) or len({d.dtype for d in variables.values()}) != 1:
        return ()  # variables of several dtypes: a quantized layer keeps other things
    kinds = [_without_counter(owner.rsplit("/", 1)[-1]), _without_counter(scope[-1])]
    if owner in objects:
        kinds = [objects[owner][0]]
    elif kinds[0] != "cell":
        del kinds[1]  # the name of a layer is the user's; of a cell, which is filed under no class, Keras'
    for names in _VARIABLES.get(kinds[-1], ()):
        if len(names) == len(variables):
            return names
    return ()


def _without_counter(name: str) -> str:
    return re.sub(r"_\d+\Z", "", name)


def objects_of_config(config: Any) -> dict[str, tuple[str, str]]:
    """Return {path: (class in snake case, name)} of the layers in a model's configuration.

    Only what is plain in it is taken; nothing in it is ever run.
    """
    found = [layer for container in _CONTAINERS for layer in _layers(config, container, "", 0)]
    times = Counter(path for path, _, _ in found)
    return {path: (kind, name) for path, kind, name in found if times[path] == 1}


def _layers(config: Any, container: str, prefix: str, level: int) -> Iterator[tuple[str, str, str]]:
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else None
    if not isinstance(layers, list) or level > _MOST_LEVELS:
        return
    used: Counter[str] = Counter()
    for layer in layers:
        settings = layer.get("config") if isinstance(layer, dict) else None
        if not isinstance(settings, dict) or not isinstance(layer.get("class_name"), str):
            return
        kind = snake_case(layer["class_name"])
        component = f"{kind}_{used[kind]}" if used[kind] else kind
        used[kind] += 1
        # A class of the user's may share its name with one of Keras' and keep its variables otherwise.
        known = kind if str(layer.get("module", "")).split(".")[0] in ("keras", "tf_keras") else ""
        if isinstance(settings.get("name"), str):
            path = f"{prefix}{container}/{component}"
            yield path, known, settings["name"]
            yield from _layers(layer, container, f"{path}/", level + 1)
