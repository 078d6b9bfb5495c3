r"""Which tensor of a PyTorch or Flax file is which variable: rules for a restore, made from a few rules over scopes."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.interop.hugging_face_roles import ROLES, role_of
from jaxvars.rules import Rule, RuleSet, parse_rules
from jaxvars.variables import Variables

__all__ = ["BERT", "GPT2", "ModelNames", "Place", "flax_rules", "torch_rules"]


class Place(NamedTuple):
    """What a variable is called elsewhere.

    Attributes:
      module: the module it belongs to, parts separated by ``/``; of a lone parameter its whole name.
      role: what it is to that module, a key of `ROLES`.
      guessed: whether only its name, by no rule and no usual last part, says so.
    """

    module: str
    role: str
    guessed: bool = False


@dataclasses.dataclass(frozen=True)
class ModelNames:
    r"""What the modules of a model are called in the files of PyTorch or Flax. Names here, modules there.

    Of each variable the last part says what it is (``kernel``, ``bias``, ``gamma``, ``beta``, ``moving_mean``,
    ``moving_variance``, TF-Slim's ``weights`` and ``biases``, ``..._embeddings``), and so what it is called and how it
    is laid out there. The rest is the module, which `rules` rename.

    Attributes:
      rules: as for `Variables.rename`: the pattern matches the name here, the replacement is the name there, with
        ``/`` between the parts, and with the last part as it is here.
      tensors: (pattern, module, role) for variables whose names do not tell. The roles: "kernel"; "transposed_kernel",
        a matrix ``[outputs, inputs]`` here; "plain_kernel", a matrix ``[inputs, outputs]`` there too (GPT-2);
        "depthwise_kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "embedding"; and "parameter", a
        tensor of its own, whose name `module` is.
      base: the first module of all names, which files of the model without a head leave out.
      allow_unmatched: accept patterns that match nothing, for rules of a whole family of models.

    Raises:
      InvalidArgumentError: a role that does not exist.
      InvalidTypeError: `tensors` are no triples.

    Example:
      >>> import jax, jaxvars as jv
      >>> names = jv.interop.hugging_face.ModelNames(rules=[(r"block_(\d+)/(.*)", r"features/\1/\2")])
      >>> holes = jv.Variables({"block_0/kernel": jax.ShapeDtypeStruct((3, 3, 8, 16), "float32")})
      >>> print(*jv.interop.hugging_face.torch_rules(holes, names))
      ("block_0/kernel", "features.0.weight", transpose(2, 3, 1, 0))
    """

    rules: Any = ()
    tensors: Sequence[tuple[str, str, str]] = ()
    base: str = ""
    allow_unmatched: bool = False

    def __post_init__(self) -> None:
        for row in self.tensors:
            if not isinstance(row, tuple) or len(row) != 3:
                raise InvalidTypeError(f"ModelNames: a row of tensors is (pattern, module, role), not {row!r:.80}")
            if row[2] not in ROLES:
                raise InvalidArgumentError(f"ModelNames: there is no role {row[2]!r}. Roles: {', '.join(ROLES)}.")

    def places(self, names: Iterable[str]) -> dict[str, Place]:
        """Return where each variable is.

        Raises:
          NotFoundError: a pattern matches nothing.
        """
        names = list(names)
        direction = "The pattern matches the name here, the replacement is the name in the file."
        renaming = parse_rules(self.rules, op="ModelNames.rules", direction=direction)
        tensors = parse_rules([row[:2] for row in self.tensors], op="ModelNames.tensors", direction=direction)
        for rules in (renaming, tensors):
            rules.resolve(names, allow_unmatched=self.allow_unmatched)
        return {name: self._place(name, renaming, tensors) for name in names}

    def _place(self, name: str, renaming: RuleSet, tensors: RuleSet) -> Place:
        own = tensors.match(name)
        if own is not None:
            return Place(own.replacement, self.tensors[own.number][2])
        found = renaming.match(name)
        there = name if found is None or found.replacement is None else found.replacement
        role = role_of(name)
        if role in ("embedding", "parameter"):
            return Place(there, role, guessed=role == "parameter")
        return Place(there.rpartition("/")[0], role)


def torch_rules(into: Variables, names: ModelNames | None = None, among: Container[str] | None = None) -> list[Rule]:
    """Return the rules that restore variables from a file of PyTorch's, one for each; print them to see them.

    They go to `jv.checkpoint.restore`, `plan` and `convert`, with any safetensors file whose tensors PyTorch made.
    Kernels change their layout: of a Linear they are transposed, of a convolution (transposed or not) ``OIHW`` becomes
    ``HWIO``. Batch normalization's ``num_batches_tracked`` has no counterpart.

    Args:
      into: the variables, or ``model.specs(...)``.
      names: what their modules are called there; None where "/" for "." is all that differs.
      among: the names in the file, where several spellings are possible.

    Raises:
      NotFoundError: a pattern of `names` matches nothing.

    Example:
      >>> import jax, jaxvars as jv
      >>> holes = jv.Variables({"fc/kernel": jax.ShapeDtypeStruct((8, 4), "float32")})
      >>> print(*jv.interop.hugging_face.torch_rules(holes))
      ("fc/kernel", "fc.weight", transpose(1, 0))
    """
    names = names or ModelNames()
    result: list[Rule] = []
    specs = into.variable_specs
    for name, place in names.places(into).items():
        role, shape = ROLES[place.role], specs[name].shape
        result.append(Rule(name, torch_name(place, names.base, among), role.from_torch(shape)))
    return result


def torch_name(place: Place, base: str, among: Container[str] | None = None) -> str:
    """Return the first spelling of a name in PyTorch that is among those of the file, the usual one where none is."""
    modules = [place.module, *([place.module.removeprefix(f"{base}/")] if base else [])]
    spellings = [
        f"{module}/{last}".strip("/").replace("/", ".") for module in modules for last in ROLES[place.role].torch
    ]
    return next((name for name in spellings if among is None or name in among), spellings[0])


def flax_rules(into: Variables, names: ModelNames | None = None, among: Container[str] | None = None) -> list[Rule]:
    """Return the rules that restore variables from a file of Flax's, such as ``flax_model.msgpack``.

    Args:
      into: the variables, or ``model.specs(...)``.
      names: what their modules are called there, the same as for `torch_rules`.
      among: the names in the file, which may begin with ``params/`` and may leave out ``names.base``.

    Raises:
      NotFoundError: a pattern of `names` matches nothing.

    Example:
      >>> import jax, jaxvars as jv
      >>> holes = jv.Variables({"norm/gamma": jax.ShapeDtypeStruct((8,), "float32")})
      >>> print(*jv.interop.hugging_face.flax_rules(holes))
      ("norm/gamma", "norm/scale")
    """
    names = names or ModelNames()
    result: list[Rule] = []
    specs = into.variable_specs
    for name, place in names.places(into).items():
        role, shape = ROLES[place.role], specs[name].shape
        plain = f"{place.module}/{role.flax}".strip("/")
        bare = [plain, *([plain.removeprefix(f"{names.base}/")] if names.base else [])]
        tree = "batch_stats" if role.averaged else "params"
        spellings = [*bare, *(f"{tree}/{each}" for each in bare)]
        there = next((each for each in spellings if among is None or each in among), spellings[0])
        result.append(Rule(name, there, role.from_flax(shape)))
    return result


BERT = ModelNames(
    rules=[(r"(.*/)?layer_(\d+)/(.*)", r"\1layer/\2/\3")],
    tensors=[
        ("cls/predictions/output_bias", "cls/predictions/bias", "parameter"),
        ("cls/seq_relationship/output_weights", "cls/seq_relationship", "transposed_kernel"),
        ("cls/seq_relationship/output_bias", "cls/seq_relationship", "bias"),
        ("output_weights", "classifier", "transposed_kernel"),
        ("output_bias", "classifier", "bias"),
        ("cls/squad/output_weights", "qa_outputs", "transposed_kernel"),
        ("cls/squad/output_bias", "qa_outputs", "bias"),
    ],
    base="bert",
    allow_unmatched=True,
)

GPT2 = ModelNames(
    rules=[(r"model/h(\d+)/(.*)", r"transformer/h/\1/\2"), ("model/", "transformer/")],
    tensors=[
        (r"model/(wte|wpe)", r"transformer/\1", "embedding"),
        (r"model/h(\d+)/(.*)/w", r"transformer/h/\1/\2", "plain_kernel"),
    ],
    base="transformer",
    allow_unmatched=True,
)
