"""`ExponentialMovingAverage`: shadow variables that follow others, for evaluation.

A shadow is a variable like any other, ``<variable>/ExponentialMovingAverage``: it is saved and restored with the rest.
All that is known of the averages is in the variables themselves, so a resumed run goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars._source import user_site
from jaxvars.buffers import is_concrete
from jaxvars.edits import in_collections
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.frame import open_frame
from jaxvars.gradients import selected_keys
from jaxvars.keeping import kept
from jaxvars.spec import Hole, VariableSpec, is_hole
from jaxvars.state import key_of
from jaxvars.train.averaging import check_decay, is_averaged_dtype, moved, rest_of
from jaxvars.train.frame_averages import FrameAverages
from jaxvars.train.updates import combined, shortened
from jaxvars.variable import Variable
from jaxvars.variables import Variables

__all__ = ["ExponentialMovingAverage"]

_GLOBAL = "variables"
_MEMBERS = "moving_average_variables"
_serials = itertools.count()
_moved = jax.jit(moved)


class ExponentialMovingAverage:
    """Averages of variables that decay exponentially (`tf.train.ExponentialMovingAverage`).

    Beside a model, as a step of training: `init` adds the shadows, `apply` moves each by
    ``shadow -= (1 - decay) * (shadow - variable)``, `averaged` puts them in place of the variables to evaluate.
    Inside a model, as TF1 code did: ``ema.apply([v, loss])`` makes what is missing and moves it at once, and
    ``ema.average(v)`` is the shadow's handle. The names are the same.

    Args:
      decay: a number between 0 and 1, such as 0.999; or a scalar array, or the name or handle of a variable.
      num_updates: the number of steps so far: a number, a traced value, or the name or handle of a variable such as
        ``"global_step"``. The decay is then ``min(decay, (1 + n) / (10 + n))``, so that early averages move faster.
      zero_debias: correct averages of values (not of variables) for their start from 0; inside a model.
      name: the name of each shadow below its variable.
      scope: the variable scope in which TF1 code called `apply`: ``"train"`` gives ``train/w/<name>``. Inside a model
        the open scope counts instead.
      number: which average of this name it is over one state: 1 takes ``<name>_1``, as TF1 named the second. Inside a
        model further ones are numbered by themselves.

    Raises:
      InvalidArgumentError: a decay outside of [0, 1], or an illegal name.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> ema = jv.train.ExponentialMovingAverage(0.75)
      >>> variables = ema.init(jv.Variables({"w": jnp.array([8.0])}))
      >>> variables = ema.apply(jv.assign(variables, "w", [0.0]))
      >>> print(variables["w/ExponentialMovingAverage"], ema.averaged(variables)["w"])
      [6.] [6.]
    """

    def __init__(
        self,
        decay: Any,
        num_updates: Any = None,
        zero_debias: bool = False,
        name: str = "ExponentialMovingAverage",
        *,
        scope: str = "",
        number: int = 0,
    ) -> None:
        check_decay(decay)
        if not name or name.startswith("/") or name.endswith("/"):
            raise InvalidArgumentError(f"must specify the name of the average, without '/' at its ends; got {name!r}")
        if number < 0:
            raise InvalidArgumentError(f"number counts averages of one name from 0, got {number}")
        self._decay = decay
        self._num_updates = num_updates
        self._name = name
        self._prefix = f"{scope.strip('/')}/" if scope.strip("/") else ""
        self._label = f"{name}_{number}" if number else name
        self._in_frame = FrameAverages(name, zero_debias, f"jaxvars/averages/{next(_serials)}")

    @property
    def name(self) -> str:
        """The name of the shadows, without number."""
        return self._name

    def __repr__(self) -> str:
        return f"ExponentialMovingAverage({self._decay!r}, name={self._label!r})"

    # Beside a model: states in, states out

    def init(self, variables: Variables, var_list: Any = None) -> Variables:
        """Add the shadows, equal to their variables (TF1 made them in `apply` and filled them in the initializer).

        Shadows that are there keep their values, so a restored state goes on where it was. Where a variable has no
        value yet, its shadow has none either: call it again when it has.

        Args:
          variables: what is to be averaged, and more.
          var_list: what to average: names, handles, a pattern or a view, as in `jv.grad`; None for all trainable
            variables.

        Returns:
          The variables and the shadows: not trainable, in GLOBAL_VARIABLES. Their variables join
          MOVING_AVERAGE_VARIABLES. No shadow shares a buffer with its variable.

        Raises:
          InvalidTypeError: a variable that is not of a floating dtype.
          InvalidArgumentError: nothing to average, or a shadow of another shape.
        """
        _check(variables, "init")
        keys = self._chosen(variables, var_list)
        specs = variables.variable_specs
        _check_dtypes(specs, keys)
        pairs = {key: (specs[key], variables[key]) for key in variables._layout.creation_order}
        wrong: list[str] = []
        for key in (key for key in variables._layout.creation_order if key in set(keys)):
            name, value = self._shadow(key), variables[key]
            present = pairs.get(name)
            if present is None:
                spec = specs[key]
                shadow = VariableSpec(name, spec.shape, spec.dtype, False, (_GLOBAL,), spec.placement, user_site())
                pairs[name] = (shadow, kept(spec.placement, value, _own(value)))
            elif present[0].shape != specs[key].shape:
                wrong.append(f"  {name}: shape {present[0].shape}, {key} has {specs[key].shape}")
            elif is_hole(present[1]):
                pairs[name] = (present[0], kept(present[0].placement, value, _own(value)))
        if wrong:
            raise InvalidArgumentError("shadows of another shape than their variables:\n" + "\n".join(wrong))
        added = Variables.from_specs(pairs.values())
        return variables._alike(in_collections(added, [(key, _MEMBERS) for key in keys]))

    @overload
    def apply(self, variables: Variables, var_list: Any = None) -> Variables: ...
    @overload
    def apply(self, variables: Sequence[Any] | dict[str, Any] | None = None) -> list[jax.Array]: ...
    def apply(self, variables: Any = None, var_list: Any = None) -> Any:
        """Move the averages one step. Works eagerly, inside ``jit``, ``scan`` and with donation.

        Args:
          variables: the variables, with shadows. Inside a model, TF1's `var_list`: a list of handles and values, or a
            dict of values by name (``{"total_loss": loss}`` is averaged as ``total_loss/<name>``; values without a name
            are called ``tensor``); None for the trainable variables made so far.
          var_list: which of the averages to move, as in `init`; None for all.

        Returns:
          The variables after the step, in the same layout. Inside a model, the new averages.

        Raises:
          FailedPreconditionError: shadows are missing, or a variable or shadow has no value.
          InvalidTypeError: inside a model, a variable or value that is not of a floating dtype; nothing was made.
        """
        if not isinstance(variables, Variables):
            if var_list is not None:
                _check(variables, "apply")
            return self._in_frame.apply(variables, lambda look_up: self._rest(lambda ref: look_up(_text(ref))))
        keys = self._members(variables) if var_list is None else self._chosen(variables, var_list)
        missing = [self._shadow(key) for key in keys if self._shadow(key) not in variables]
        if missing or not keys:
            raise FailedPreconditionError(
                f"shadows missing for {self!r}: {shortened(missing) or 'there are none'}. "
                "Write: variables = ema.init(variables)"
            )
        self._check_values(variables, keys)
        rest = self._rest(lambda ref: _scalar(variables, ref))
        if is_concrete(rest) and rest.committed:
            rest = np.asarray(rest)  # the counter may lie on another device than the variables
        return combined(variables, {self.average_name(key): key for key in keys}, lambda s, v: _moved(s, v, rest))

    def averaged(self, variables: Variables) -> Variables:
        """Return the state with the shadows' values in place of those of their variables, to evaluate with.

        The shadows stay; no buffer is shared. Go on training with the state that was given.

        Raises:
          FailedPreconditionError: there are no shadows, or one has no value.
        """
        _check(variables, "averaged")
        keys = self._members(variables)
        if not keys:
            raise FailedPreconditionError(
                f"shadows missing for {self!r}: there are none. Write: variables = ema.init(variables)"
            )
        self._check_values(variables, keys, shadows_only=True)
        return combined(variables, {key: self._shadow(key) for key in keys}, lambda _, shadow: jnp.copy(shadow))

    # Both

    @overload
    def average(self, variables: Variables, ref: Any) -> jax.Array | None: ...
    @overload
    def average(self, variables: Any) -> Variable | None: ...
    def average(self, variables: Any, ref: Any = None) -> Any:
        """Return the average of one variable, None where none is kept.

        Args:
          variables: the variables. Inside a model the handle or value itself.
          ref: the variable's name or handle.

        Returns:
          The value of the shadow; inside a model its handle.

        Raises:
          NotFoundError: no such variable.
        """
        if not isinstance(variables, Variables):
            return self._in_frame.average(variables)
        return variables.get(self._shadow(variables._resolve(ref)))

    def average_name(self, ref: Any) -> str:
        """Return the name of a variable's shadow, whether it has been made or not.

        Args:
          ref: the variable's name or handle; inside a model also an averaged value.
        """
        if open_frame() is not None and not isinstance(ref, str):
            return self._in_frame.average_name(ref)
        key = key_of(ref)
        if key is None:
            raise InvalidTypeError(f"average_name takes the name or handle of a variable, got {type(ref).__name__}.")
        return self._shadow(key.removesuffix(":0"))

    def variables_to_restore(self, variables: Any = None, moving_avg_variables: Any = None) -> dict[str, Any]:
        """Return what to give a `Saver` so that it restores the averages into the variables themselves.

        Args:
          variables: the variables of the evaluation, such as ``model.specs(...)``; they need no shadows. Inside a model
            this is TF1's only argument, `moving_avg_variables`.
          moving_avg_variables: names or handles of those that take their averages; None for the trainable ones and
            those in MOVING_AVERAGE_VARIABLES.

        Returns:
          Name in the checkpoint -> name of the variable, inside a model its handle: the shadow's name for those above,
          the own name for every other global variable, such as ``global_step``.

        Example:
          >>> import jaxvars as jv
          >>> ema = jv.train.ExponentialMovingAverage(0.9)
          >>> ema.variables_to_restore(jv.train.create_global_step(jv.Variables({"w": 1.0})))
          {'w/ExponentialMovingAverage': 'w', 'global_step': 'global_step'}
        """
        if not isinstance(variables, Variables):
            return self._in_frame.variables_to_restore(variables)
        order = variables._layout.creation_order
        if moving_avg_variables is None:
            averaged = {*variables.trainable, *variables.collection(_MEMBERS)}
        else:
            averaged = {variables._resolve(ref) for ref in moving_avg_variables}
        names = {self._shadow(key): key for key in order if key in averaged}
        others = variables.collection(_GLOBAL)
        return names | {key: key for key in order if key in others and key not in averaged and key not in names}

    # Parts

    def _chosen(self, variables: Variables, var_list: Any) -> tuple[str, ...]:
        if var_list is None:
            # A state made of a plain dict is trainable as a whole, shadows too: those are not averaged again.
            shadows = {self._shadow(key) for key in variables}
            keys = tuple(key for key in variables.trainable if key not in shadows)
        else:
            keys = selected_keys(variables, var_list, "var_list")
        if not keys:
            what = "no variable is trainable" if var_list is None else f"var_list={var_list!r:.60} selects nothing"
            raise InvalidArgumentError(f"{self!r} has nothing to average: {what}")
        return keys

    def _members(self, variables: Variables) -> tuple[str, ...]:
        """The variables that have a shadow of this average."""
        layout = variables._layout
        marked = zip(layout.keys, layout.collections, strict=True)
        return tuple(key for key, names in marked if _MEMBERS in names and self._shadow(key) in layout.index)

    def _shadow(self, key: str) -> str:
        return f"{self._prefix}{key}/{self._label}"

    def _rest(self, look_up: Callable[[Any], Any]) -> Any:
        """``1 - decay`` of this step; `look_up` reads a variable that is given by name or handle."""
        decay = look_up(self._decay) if key_of(self._decay) is not None else self._decay
        if self._num_updates is None:
            return rest_of(decay)
        updates = look_up(self._num_updates) if key_of(self._num_updates) is not None else self._num_updates
        n = jnp.asarray(updates).astype(jnp.float32)
        return rest_of(jnp.minimum(jnp.asarray(decay, jnp.float32), (1 + n) / (10 + n)))

    def _check_values(self, variables: Variables, keys: Iterable[str], shadows_only: bool = False) -> None:
        names = [name for key in keys for name in (self._shadow(key), key)[: 1 if shadows_only else 2]]
        empty = [name for name in names if is_hole(variables[name])]
        if empty:
            raise FailedPreconditionError(
                f"variables without value: {shortened(empty)}. Fill them, then write: variables = ema.init(variables)"
            )


def _own(value: Any) -> Any:
    """The value in a buffer of its own; of a hole, a hole that waits for `init` to be called again."""
    return Hole(value.shape, value.dtype, sharding=value.sharding) if is_hole(value) else jnp.copy(value)


def _check(variables: Any, call: str) -> None:
    if not isinstance(variables, Variables):
        raise InvalidTypeError(
            f"ema.{call} takes jv.Variables first, got {type(variables).__name__}. "
            f"Write: variables = ema.{call}(variables)"
        )


def _check_dtypes(specs: Mapping[str, VariableSpec], keys: Iterable[str]) -> None:
    wrong = [f"{key}:0 is {specs[key].dtype}" for key in keys if not is_averaged_dtype(specs[key].dtype)]
    if wrong:
        raise InvalidTypeError(
            f"The variables must be half, float, or double: {shortened(wrong)}. Choose others: "
            "ema.init(variables, var_list=...)"
        )


def _text(ref: Any) -> str:
    return cast(str, key_of(ref))


def _scalar(variables: Variables, ref: Any) -> Any:
    """The value of a decay or of a number of updates."""
    try:
        value = variables[ref]
    except NotFoundError as error:
        raise NotFoundError(f"ExponentialMovingAverage: {error}") from None
    if is_hole(value) or value.shape != ():
        problem = "has no value" if is_hole(value) else f"is not scalar: {value.shape}"
        raise FailedPreconditionError(f'ExponentialMovingAverage: "{key_of(ref)}" {problem}.')
    return value
