"""Why the file has nothing for a variable, and what to write where it has it the other way round."""

from __future__ import annotations

from collections.abc import Mapping

from jaxvars.checkpoint.suggest.name_parts import COUNTER, kind_of
from jaxvars.checkpoint.suggest.pairs import Shapes, pair_names, squeezed
from jaxvars.rules import Rule, transpose

__all__ = ["why_left"]

# How PyTorch's kernels, of dense layers and of convolutions in one and two dimensions, become those of TensorFlow.
_TURNS = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}


def why_left(left: Shapes, targets: Shapes, sources: Shapes, pairs: Mapping[str, str]) -> dict[str, str]:
    """Return for each variable that gets nothing the reason, as a clause.

    Args:
      left: shapes of the variables that get nothing.
      targets: shapes of all variables.
      sources: shapes of the file's tensors.
      pairs: the tensors that the other variables get.
    """
    turned = _turned(left, targets, sources, pairs) if left else {}
    shapes, file_shapes = squeezed(left), squeezed(sources)
    used = set(pairs.values())
    of_shape = set(file_shapes.values())
    free = {shape for name, shape in file_shapes.items() if name not in used}
    reasons: dict[str, str] = {}
    for name, shape in shapes.items():
        if name in turned:
            rule = Rule(name, turned[name])
            turn = transpose(*_TURNS[len(left[name])])
            reasons[name] = f"the file has it the other way round; write {str(rule)[:-1]}, jv.rules.{turn})"
        elif shape not in of_shape:
            reasons[name] = f"nothing in the file has its shape, {list(left[name])}"
        elif shape not in free:
            reasons[name] = f"other variables get what has its shape, {list(left[name])}"
        elif kind_of(name, shape, targets)[0] == COUNTER:
            reasons[name] = "nothing in the file counts the same"
        else:
            reasons[name] = f"what else has its shape, {list(left[name])}, is of another kind (weight, slot, counter)"
    return reasons


def _turned(left: Shapes, targets: Shapes, sources: Shapes, pairs: Mapping[str, str]) -> dict[str, str]:
    """The tensors that would fit if they were turned, by the variable."""
    before = {name: _before(shape) for name, shape in left.items() if len(shape) in _TURNS}
    used = set(pairs.values())
    free = {name: shape for name, shape in sources.items() if name not in used}
    if not set(before.values()) & set(free.values()):
        return {}
    others = {name: targets[name] for name in pairs}
    return {pair.target: pair.source for pair in pair_names({**others, **before}, sources, pairs)}


def _before(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that becomes `shape`."""
    before = dict(zip(_TURNS[len(shape)], shape, strict=True))
    return tuple(before[axis] for axis in range(len(shape)))
