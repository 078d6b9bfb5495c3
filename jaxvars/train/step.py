"""`make_step`: one jitted training step of a loss function and an optimizer, and nothing hidden in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import jax

from jaxvars._keys import as_key
from jaxvars.buffers import is_concrete, is_deleted, note_donation
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.gradients import check_variables, differentiate, subset
from jaxvars.train.clipping import gradient_clip
from jaxvars.train.global_steps import find_global_step, get_or_create_global_step
from jaxvars.train.loss_functions import check_loss_function
from jaxvars.train.moving_averages import ExponentialMovingAverage
from jaxvars.train.optimizer import Optimizer
from jaxvars.train.updates import counter_key
from jaxvars.variables import Variables

__all__ = ["Step", "make_step"]

_GLOBAL_STEP = "global_step"


def make_step(
    loss_fn: Callable[..., Any],
    optimizer: Any,
    *,
    clip: Any = None,
    ema: ExponentialMovingAverage | None = None,
    global_step: Any = _GLOBAL_STEP,
    rng: Any = None,
    donate: bool = True,
) -> Step:
    """Make a training step: loss, gradients, clipping, the optimizer's update, the average, jitted as one.

    The counterpart of TF1's ``train_op``: `optimizer.minimize` with `tf.clip_by_global_norm`, `global_step` and
    `tf.train.ExponentialMovingAverage` around it. It is the ten lines of JAX that you would write yourself.

    Args:
      loss_fn: ``loss_fn(variables, *batch)``, which returns the loss, ``(loss, variables)`` when the model assigned
        something, such as moving averages, or ``(loss, variables, metrics)`` with metrics such as
        ``{"accuracy": accuracy}``. Of a model that returns its loss it is ``model.apply``.
      optimizer: one of `jv.train`, or an optax transformation, which becomes a `jv.train.Optimizer`.
      clip: the largest global norm of the gradients, or an optax transformation without state, such as
        ``optax.clip(1.0)``. None clips nothing.
      ema: an average to move after each update; `init` adds its shadows.
      global_step: the name or handle of the step counter, which each step adds 1 to; ``"global_step"`` is made by
        `init` where there is none. None counts nothing.
      rng: for models that draw random numbers: an int seed or a key. `loss_fn` is then called with
        ``rng=jax.random.fold_in(key, global_step)``: a key of its own for each step, and the same in a run that was
        interrupted and resumed. Pass it on: ``model.apply(variables, *batch, rng=rng)``.
      donate: whether a step may overwrite the variables it is given, so that a state is in memory once and not twice.
        Those are then gone, and reading them is an error.

    Returns:
      A `Step`.

    Raises:
      InvalidTypeError: something that is no loss function, optimizer, average or clip; a loss function without
        `rng`, where there is one.
      InvalidArgumentError: `rng` without `global_step`, or a norm that is not positive.
      UnavailableError: optax is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: x @ jv.get_variable("w", [2], initializer=jv.ones_initializer()))
      >>> step = jv.train.make_step(lambda v, x: model(v, x) ** 2, jv.train.GradientDescentOptimizer(0.125), clip=4.0)
      >>> variables = step.init(model.init(0, jnp.ones(2)))
      >>> loss, variables = step(variables, jnp.array([1.0, 0.0]))
      >>> print(loss, variables["w"], variables["global_step"])
      1.0 [0.75 1.  ] 1
    """
    return Step(loss_fn, optimizer, clip=clip, ema=ema, global_step=global_step, rng=rng, donate=donate)


class Step:
    """A jitted training step, made by `make_step`. It holds no array: all state is in the variables.

    Attributes:
      optimizer: the optimizer.
      ema: the average, or None.
      donate: whether a step overwrites the variables it is given.
      jitted: the step as `jax.jit` made it, for ``step.jitted.lower(variables, *batch)``.
    """

    def __init__(
        self,
        loss_fn: Callable[..., Any],
        optimizer: Any,
        *,
        clip: Any,
        ema: ExponentialMovingAverage | None,
        global_step: Any,
        rng: Any,
        donate: bool,
    ) -> None:
        if not callable(loss_fn):
            raise InvalidTypeError(
                f"make_step takes a loss function first, loss_fn(variables, *batch), not {type(loss_fn).__name__}"
            )
        if not (ema is None or isinstance(cast(object, ema), ExponentialMovingAverage)):
            raise InvalidTypeError(
                f"ema is an average, not {type(ema).__name__}. Write: ema=jv.train.ExponentialMovingAverage(0.999)"
            )
        if rng is not None:
            as_key(rng)
            if global_step is None:
                raise InvalidArgumentError(
                    "rng needs the step counter, so that each step draws other numbers. Leave out global_step=None"
                )
            _check_takes_rng(loss_fn)
        self.optimizer = optimizer if isinstance(optimizer, Optimizer) else Optimizer(optimizer)
        self.ema = ema
        self.donate = donate
        self._loss_fn = loss_fn
        self._clip = gradient_clip(clip)
        self._global_step = global_step
        self._rng = rng
        self._first = True
        self.jitted = jax.jit(self._take, donate_argnums=0 if donate else ())

    def __repr__(self) -> str:
        return f"Step({getattr(self._loss_fn, '__name__', 'loss_fn')}, {self.optimizer!r})"

    def init(self, variables: Variables) -> Variables:
        """Add what a step needs: the step counter, the optimizer's slots, the average's shadows.

        What is there keeps its values, so it is harmless to call it again, and right after a restore.

        Args:
          variables: the variables of the model, with values or holes.

        Raises:
          NotFoundError: `global_step` or the optimizer's var_list names what does not exist.
          InvalidArgumentError: nothing to optimize, or a slot or shadow of another shape.
        """
        check_variables(variables, "step.init(variables)")
        if self._global_step == _GLOBAL_STEP:
            variables = get_or_create_global_step(variables)
        elif self._global_step is not None:
            variables._resolve(self._global_step)
        variables = self.optimizer.init(variables)
        return variables if self.ema is None else self.ema.init(variables)

    def __call__(self, variables: Variables, *batch: Any) -> tuple[Any, ...]:
        """Take one step. Returns before the device is done, as every jitted function does.

        Args:
          variables: the variables after `init`. With ``donate=True`` they are gone afterwards.
          *batch: the further arguments of the loss function.

        Returns:
          ``(loss, variables)``, and the metrics third where the loss function returns them: the loss before the update,
          the variables after it.

        Raises:
          FailedPreconditionError: `init` was not called, or the variables were donated to an earlier step.
          InvalidTypeError: the loss function returns something else, or takes no variables.
          InvalidArgumentError: a loss that is not a real scalar; variables on several devices.
        """
        check_variables(variables, "step(variables, *batch)")
        if self._first and self.donate:
            self._first = False
            note_donated(variables, "donated to a step of jv.train.make_step (make_step(..., donate=False) keeps it)")
        try:
            return self.jitted(variables, *batch)
        except (RuntimeError, ValueError) as error:
            _explain(error, variables)
            raise

    def _take(self, variables: Variables, *batch: Any) -> tuple[Any, ...]:
        """The step itself, as it is traced."""
        counter = self._counter(variables)
        kwargs: dict[str, Any] = {}
        if counter is not None and self._rng is not None:
            kwargs["rng"] = jax.random.fold_in(as_key(self._rng), variables[counter])
        check_loss_function("a step", self._loss_fn, batch)
        keys = self.optimizer._managed(variables)
        (loss, (after, *metrics)), gradients = differentiate(
            self._loss_fn, variables, keys, batch, kwargs, _loss_and_rest
        )
        variables = variables if after is None else after
        gradients = self._clip(gradients, subset(variables, keys))
        variables = self.optimizer.apply_gradients(gradients, variables, counter, value=loss)
        if self.ema is not None:
            variables = self.ema.apply(variables)
        return loss, variables, *metrics

    def _counter(self, variables: Variables) -> str | None:
        if self._global_step is None:
            return None
        if self._global_step == _GLOBAL_STEP:
            try:
                return find_global_step(variables, "a training step")
            except FailedPreconditionError:
                raise FailedPreconditionError(
                    "the variables have no step counter: they are not ready for this step. "
                    "Write: variables = step.init(variables)"
                ) from None
        return counter_key(self._global_step, variables)


def note_donated(variables: Variables, text: str) -> None:
    """Remember what these values were donated to, for the error when one is read."""
    for leaf in jax.tree.leaves(variables):
        if is_concrete(leaf):
            note_donation(leaf, text)


def _check_takes_rng(loss_fn: Callable[..., Any]) -> None:
    """Refuse a loss function that has no ``rng`` for the keys of `make_step`."""
    try:
        parameters = inspect.signature(loss_fn).parameters
    except (TypeError, ValueError):  # such as a function of C
        return
    if "rng" not in parameters and not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        name = getattr(loss_fn, "__name__", "")
        name = name if name.isidentifier() else "loss_fn"
        own = [str(each.replace(annotation=each.empty)) for each in parameters.values()]
        raise InvalidTypeError(
            f"make_step(rng=...) gives the loss function a key for each step, and {name} takes no rng. Write:\n"
            f"    def {name}({', '.join([*own, 'rng=None'])}): ... model.apply(variables, ..., rng=rng)"
        )


def _loss_and_rest(result: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split what a loss function returns into the loss and ``(variables or None, metrics where there are any)``."""
    if not isinstance(result, tuple):
        return result, (None,)
    parts = cast("tuple[Any, ...]", result)
    if len(parts) in (2, 3) and isinstance(parts[1], Variables):
        return parts[0], parts[1:]
    kinds = ", ".join(type(part).__name__ for part in parts)
    raise InvalidTypeError(
        f"the loss function of a step returned ({kinds}). It returns the loss, (loss, variables) or "
        "(loss, variables, metrics)"
    )


def _explain(error: Exception, variables: Variables) -> None:
    """Raise our error for XLA's refusal of donated arrays and JAX's of several devices; they name no variable."""
    if "deleted" in str(error):
        for position, leaf in enumerate(variables._leaves):
            if is_deleted(leaf):
                variables._raise_deleted(position, leaf)
    if "incompatible devices" in str(error):
        from jaxvars.placement.edge import devices_error

        raise devices_error(error, variables) from None
