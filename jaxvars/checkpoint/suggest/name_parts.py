"""What the name of a tensor says: words in one spelling, numbers and what they count, its role, slot or weight."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

__all__ = ["COUNTER", "Parts", "bare", "kind_of", "mere_letters", "natural_key", "split"]

COUNTER = "counter"
"""The kind of step counts, powers of beta and other bookkeeping."""

# How libraries call the tensors of a layer; the last word of a name that is here is its role.
_ROLES = {
    "kernel": "kernel kernels weight weights w matrix filter filters",
    "bias": "bias biases b beta offset shift",
    "scale": "scale gamma g",
    "mean": "mean means",
    "var": "var variance variances",
    "table": "embedding embeddings embed emb table",
}
_ROLE = {word: role for role, words in _ROLES.items() for word in words.split()}
_OF_AVERAGES = frozenset({"moving", "running", "average", "avg", "ema", "pop"})

# Words that mean the same. A component is looked up whole first ("layer_norm"), then word by word.
_SAME = {
    "norm layernorm": "layernorm ln layernormalization",
    "norm batchnorm": "batchnorm bn batchnormalization",
    "norm groupnorm": "groupnorm gn groupnormalization",
    "norm": "normalization norm",
    "attention": "attention attn att mha multiheadattention multihead",
    "self attention": "selfattention selfattn selfatt",
    "cross attention": "crossattention crossattn encdecattention encoderdecoderattention",
    "query": "query q qproj querys",
    "key": "key k kproj",
    "value": "value v vproj",
    "dense": "dense linear fc fullyconnected lin",
    "conv": "conv convolution convolutional cnn",
    "mlp": "mlp ffn ff feedforward ffw",
    "shortcut": "shortcut downsample",
    "embedding": "embedding embed emb embeddings",
    "position": "position pos positional positions",
    "type": "type segment",
    "word": "word token tok vocab",
    "encoder": "encoder enc",
    "decoder": "decoder dec",
    "generator": "generator gen",
    "discriminator": "discriminator disc discrim critic",
    "output": "output out",
    "input": "input in",
    "predictions": "predictions prediction pred",
    "": "params param state batchstats weightvariable variable value0 multi head",
}
_CANONICAL = {word: tuple(same.split()) for same, words in _SAME.items() for word in words.split()}

_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_DIMENSIONS = re.compile(r"(?<=[a-z_])[123][dD](?![a-zA-Z])")
_VERSION = re.compile(r"(?<![a-zA-Z])[vV]\d+(?![a-zA-Z0-9])")
_ENDING = re.compile(r"(/\.ATTRIBUTES/VARIABLE_VALUE)?(:\d+)?$")

# Optimizers' variables: the last component after the weight's name, or the first before it.
_SLOTS = {
    "m": "adam adamm m mu firstmoment expavg",
    "v": "adam1 adamv v nu secondmoment",
    "momentum": "momentum velocity trace slotv",
    "rms": "rmsprop rms accumulator adagrad",
    "momentum of rms": "rmsprop1",
    "average": "exponentialmovingaverage ema shadow movingaverage",
    "delta": "adadelta",
    "delta 1": "adadelta1",
    "ftrl": "ftrl",
    "ftrl 1": "ftrl1",
    "vr": "vr slotvr",
    "vc": "vc slotvc",
}
_SLOT = {word: slot for slot, words in _SLOTS.items() for word in words.split()}
_LAST_SLOTS = frozenset(_SLOT) - {"m", "v", "mu", "nu", "rms", "trace", "accumulator", "ema", "shadow", "velocity"}
_OPTIMIZERS = frozenset({"optimizer", "optstate", "optimizerstate", "optimizerweights", "opt", "optim", "slots"})
_COUNTERS = frozenset(
    word
    for words in (
        "step steps globalstep localstep counter savecounter beta1power beta2power betapower iter iterations iteration",
        "count numbatchestracked decay learningrate loss examplesseen goodsteps lossscale currentlossscale epoch",
    )
    for word in words.split()
)


class Parts(NamedTuple):
    """A name taken apart.

    Attributes:
      words: its words, each once, in one spelling.
      numbers: (what is counted, the number), from the left.
      role: "kernel", "bias", "scale", "mean", "var", "table", or "" if the last word is none of these.
      unnumbered: components without a number, which may be the first of those that have one.
      layer: the layer that it belongs to: what is left of the name without its role.
    """

    words: tuple[str, ...]
    numbers: tuple[tuple[str, int], ...]
    role: str
    unnumbered: tuple[str, ...]
    layer: str


def bare(name: str) -> str:
    """Return `name` without what a format puts at every name's end."""
    return _ENDING.sub("", name)


def kind_of(name: str, shape: tuple[int, ...], names: Collection[str]) -> tuple[str, str]:
    """Return the kind of tensor and the name that says which one it is.

    Args:
      name: the tensor's name.
      shape: its shape.
      names: the names of all tensors beside it.

    Returns:
      ("", name) for a weight; ("m", name of the weight) for Adam's first moment, and so on; `COUNTER` for counters.
    """
    name = bare(name)
    if ".OPTIMIZER_SLOT" in name:
        weight, _, slot = name.partition("/.OPTIMIZER_SLOT/")
        return _slot_name(slot.rsplit("/", 1)[-1]), weight
    weight, _, last = name.rpartition("/")
    if weight and _joined(last) in _LAST_SLOTS:
        return _slot_name(last), weight
    first, _, rest = name.partition("/")
    if _joined(first) in _OPTIMIZERS and rest:
        return _below_optimizer(rest)
    if not shape and (_joined(last) in _COUNTERS or last.startswith("_CHECKPOINT")):
        return COUNTER, name
    if _joined(last) not in _ROLE:
        for found in re.finditer(r"/|_(?=slot_)", name):
            if name[: found.start()] in names:
                return _slot_name(name[found.end() :]), name[: found.start()]
    return "", name


def _below_optimizer(rest: str) -> tuple[str, str]:
    """Kind and weight of what stands below "optimizer/": "0/mu/conv/kernel", "iter", "conv/kernel/m"."""
    parts = rest.split("/")
    for number, part in enumerate(parts):
        if _joined(part) in _SLOT:
            return _SLOT[_joined(part)], "/".join(parts[number + 1 :] or parts[:number])
    return (COUNTER if _joined(parts[-1]) in _COUNTERS else "optimizer"), rest


def _slot_name(text: str) -> str:
    return _SLOT.get(_joined(text), text)


def split(name: str, shape: tuple[int, ...]) -> Parts:
    """Return the parts of a weight's name."""
    chunks, numbers, unnumbered = _chunks(bare(name))
    role, of = _role(chunks)
    if role == "kernel" and len(shape) < 2:
        role = "scale"
    words: list[str] = []
    for number, chunk in enumerate(chunks):
        if number >= of >= 0:
            left_out = _OF_AVERAGES if role in ("mean", "var") else frozenset[str]()
            chunk = tuple(word for word in chunk if word not in left_out and word not in _ROLE)
        words.extend(_spelled(chunk))
    above = [word for chunk in chunks[: of if of >= 0 else len(chunks) - 1] for word in _spelled(chunk)]
    layer = "/".join([*above, *(f"{counted}{number}" for counted, number in numbers)])
    return Parts(tuple(dict.fromkeys(words)), tuple(numbers), role, tuple(unnumbered), layer)


def _chunks(name: str) -> tuple[list[tuple[str, ...]], list[tuple[str, int]], list[str]]:
    """The words of `name` in runs without a number between them, its numbers, its components without one."""
    chunks: list[tuple[str, ...]] = []
    numbers: list[tuple[str, int]] = []
    unnumbered: list[str] = []
    within = ""  # what is counted further left: the third layer of the second block
    for component in re.split(r"[/.:~]+", name):
        words: list[str] = []
        fresh = bool(chunks)
        for piece in _PIECES.findall(_DIMENSIONS.sub("", _VERSION.sub("", component))):
            if not piece.isdecimal():
                words.append(piece.lower())
                continue
            if words:
                chunks.append(tuple(words))
            within += "/" + ("".join(chunks[-1]) if words or fresh else "")
            words, fresh = [], False
            numbers.append((within, int(piece)))
        if words:
            chunks.append(tuple(words))
            unnumbered.append(f"{within}/{''.join(words)}")
    return chunks, numbers, unnumbered


def _role(chunks: list[tuple[str, ...]]) -> tuple[str, int]:
    """The role that the last word, or "average" below it, tells; and the number of the chunk that tells it."""
    last = len(chunks) - 1
    for number in (last, last - 1):
        found = {_ROLE[word] for word in chunks[number] if word in _ROLE} if number >= 0 else set[str]()
        if number < last:
            found &= {"mean", "var"}
        elif chunks[number:] and chunks[number][-1] in _ROLE:
            found = {_ROLE[chunks[number][-1]]}
        else:
            found = set()
        if found:
            return found.pop(), number
    return "", -1


def _spelled(chunk: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a chunk in one spelling."""
    whole = _CANONICAL.get("".join(chunk))
    if whole is not None:
        return whole
    return tuple(same for word in chunk for same in _CANONICAL.get(word, (word,)))


def _joined(component: str) -> str:
    return "".join(_PIECES.findall(component)).lower()


def mere_letters(names: Collection[str]) -> set[str]:
    """Return the names that end in a letter that says nothing: ``a`` beside ``b``, but not ``w`` beside ``b``."""
    letters: dict[str, set[str]] = defaultdict(set)
    for name in names:
        scope, _, last = bare(name).rpartition("/")
        if len(last) == 1 and last.isalpha():
            letters[scope].add(name)
    known = _ROLE.keys() | _CANONICAL.keys()
    return set().union(*(some for some in letters.values() if not {bare(n)[-1].lower() for n in some} <= known))


def natural_key(name: str) -> list[list[tuple[int, int, str]]]:
    """Return a sort key in which ``layer_2`` is before ``layer_10`` and ``norm/x`` before ``norm_1/x``."""
    return [
        [(0, int(text), "") if text.isdecimal() else (1, 0, text) for text in re.findall(r"\d+|\D+", component)]
        for component in name.split("/")
    ]
