"""Rules over names, and what a rule may do to a value on the way: `transpose`, `stack`, `pad` and the like.

A rule is a tuple ``(pattern, replacement)`` or ``(pattern, replacement, transform)``. The transforms here are values:
they print as they are written, join by ``>>``, and tell a restore plan what shape they give before anything is read.
"""

from jaxvars.rules.engine import (
    Match,
    Rule,
    Rules,
    RuleSet,
    glob,
    new_name,
    parse_patterns,
    parse_rules,
    parse_values,
    rename_map,
)
from jaxvars.rules.expression import parse_transform
from jaxvars.rules.layers import stack_layers, unstack_layers
from jaxvars.rules.steps import Target, ValueTransform
from jaxvars.rules.transforms import (
    cast,
    concat,
    pad,
    reshape,
    slice,
    split,
    stack,
    transpose,
    unstack,
)

__all__ = [
    "Match",
    "Rule",
    "RuleSet",
    "Rules",
    "Target",
    "ValueTransform",
    "cast",
    "concat",
    "glob",
    "new_name",
    "pad",
    "parse_patterns",
    "parse_rules",
    "parse_transform",
    "parse_values",
    "rename_map",
    "reshape",
    "slice",
    "split",
    "stack",
    "stack_layers",
    "transpose",
    "unstack",
    "unstack_layers",
]
