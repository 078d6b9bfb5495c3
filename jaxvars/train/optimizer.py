"""`Optimizer`: any optax transformation over `Variables`, its whole state kept as variables.

So ``Saver().save(variables)`` is a whole, resumable checkpoint, as in TF1: nothing of a run lives outside of
the variables. An `Optimizer` itself holds no array and may be made anew in each process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxvars._source import user_site
from jaxvars.buffers import unshared
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.gradients import check_variables, differentiate, selected_keys, subset, without_values
from jaxvars.spec import Hole, VariableSpec, is_hole
from jaxvars.train import updates
from jaxvars.train.beside import beside, note_beside
from jaxvars.train.global_steps import find_global_step
from jaxvars.train.loss_functions import check_loss_function, check_minimize
from jaxvars.train.slots import Claim, FieldNames, SlotNames, StateLeaf, state_leaves
from jaxvars.train.transformations import require_optax
from jaxvars.variables import Variables

__all__ = ["Optimizer"]

# State shapes are kept per structure of the optimized variables; a program has one or two.
_MAX_TEMPLATES = 16
# Not Python's answer to TF1's minimize(loss), but ours.
_REQUIRED: Any = None


class Optimizer:
    """An optax transformation whose state is variables (TF1: `tf.train.Optimizer`).

    The state's leaves are named ``<variable>/<name>/<field>``, or ``<name>/<field>`` where one belongs to no
    variable. They are not trainable and are in GLOBAL_VARIABLES, so savers take them along.

    Args:
      optax_tx: the transformation, such as ``optax.adamw(1e-3)`` or a chain.
      name: the name in the variables, "Optimizer" when None.
      var_list: what to optimize: None for all trainable variables of a floating or complex dtype, else a
        name, handle, list, pattern, rules or view, as `wrt` of `jv.value_and_grad`.
      number: which optimizer of this name it is, when several of one name optimize the *same* variables: 0
        for the first, 1 for the second, ... None finds the one whose slots these variables have, so that a
        program or cell that runs again goes on with its slots. Several of one name over different variables
        need no number.
      scope: the variable scope in which TF1 code built the optimizer, for the names of its checkpoints: ``"train"``
        gives ``train/<variable>/<name>`` and ``train/beta1_power``.
      elementwise: promise that the change of an element depends on that element, its gradients and what all share, as
        in ``optax.adam`` or after ``optax.clip_by_global_norm``, and not on its variable, as in ``optax.lars`` or
        ``optax.adafactor``. Packed variables (`Variables.packed`) are then changed buffer by buffer.

    Raises:
      UnavailableError: optax is not installed.
      InvalidTypeError: `optax_tx` is no optax transformation.
      InvalidArgumentError: an empty name or a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import jaxvars as jv
      >>> optimizer = jv.train.Optimizer(optax.sgd(0.5, momentum=0.9), name="SGD")
      >>> variables = optimizer.init(jv.Variables({"w": jnp.array([1.0, 2.0])}))
      >>> sorted(variables)
      ['w', 'w/SGD/trace']
      >>> gradients = jv.grad(lambda v: jnp.sum(v["w"] ** 2))(variables)
      >>> variables = optimizer.apply_gradients(gradients, variables)
      >>> print(variables["w"])
      [0. 0.]
    """

    def __init__(
        self,
        optax_tx: Any,
        name: str | None = None,
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
        elementwise: bool = False,
    ) -> None:
        optax = require_optax()
        if not (callable(getattr(optax_tx, "init", None)) and callable(getattr(optax_tx, "update", None))):
            raise InvalidTypeError(
                f"Optimizer takes an optax transformation, such as optax.adam(1e-3), not {type(optax_tx).__name__}"
            )
        name = "Optimizer" if name is None else name
        if not name or name.startswith("/") or name.endswith("/"):
            raise InvalidArgumentError(f"must specify the optimizer name, without '/' at its ends; got {name!r}")
        if number is not None and number < 0:
            raise InvalidArgumentError(f"number counts optimizers from 0, got {number}")
        self._transformation = optax.with_extra_args_support(optax_tx)
        self._name = name
        self._var_list = without_values(var_list)
        self._prefix = f"{scope.strip('/')}/" if scope.strip("/") else ""
        self._names: SlotNames = FieldNames(name, number, self._prefix)
        self._wants_step = False
        self._elementwise = elementwise
        self._templates: dict[Any, Any] = {}

    @property
    def name(self) -> str:
        """The name under which the state lives."""
        return self._name

    @property
    def transformation(self) -> Any:
        """The optax transformation (``optax.GradientTransformationExtraArgs``)."""
        return self._transformation

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self._name!r})"

    # -- state as variables ------------------------------------------------------------------------------

    def init(self, variables: Variables) -> Variables:
        """Add the slots (TF1 made them in `minimize` and filled them in `global_variables_initializer`).

        Slots that are there keep their values, so it is harmless to call it again, and after a model has
        grown it adds what the new variables need. Where a variable has no value yet, its slots are holes too.

        Args:
          variables: what is to be optimized, and more.

        Returns:
          The variables and the slots: not trainable, in GLOBAL_VARIABLES.

        Raises:
          NotFoundError: `var_list` names what does not exist.
          InvalidArgumentError: nothing to optimize, or a slot of another shape.
          InvalidTypeError: `var_list` selects a variable of an integer or boolean dtype.
        """
        check_variables(variables, "optimizer.init(variables)")
        params = subset(variables, self._managed(variables))
        leaves = state_leaves(self._template(params))
        claims = self._names.claim(variables, leaves)
        _check_shapes(variables, leaves, claims)
        missing = [i for i, claim in enumerate(claims) if is_hole(variables.get(claim.key, _NO_VALUE))]
        if not missing:
            return variables
        values = self._initial_values(params, leaves)
        return variables._alike(_with_slots(variables, [(leaves[i], claims[i], values[i]) for i in missing]))

    def slots(self, variables: Variables) -> Variables:
        """The optimizer's own variables, as a view (TF1: `optimizer.variables()`).

        Args:
          variables: variables after `init`.

        Raises:
          FailedPreconditionError: slots are missing.
        """
        params = subset(variables, self._managed(variables))
        return subset(variables, tuple(sorted(self._found(variables, state_leaves(self._template(params))))))

    def to_optax(self, variables: Variables) -> Any:
        """Return the state as optax has it, for ``optimizer.transformation.update``.

        Args:
          variables: variables after `init`.

        Raises:
          FailedPreconditionError: slots are missing or without value.
        """
        check_variables(variables, "optimizer.to_optax(variables)")
        return self._read_state(variables, subset(variables, self._managed(variables)))[0]

    def from_optax(self, state: Any, variables: Variables) -> Variables:
        """Put an optax state into the variables, the inverse of `to_optax`.

        Args:
          state: a state of ``optimizer.transformation`` over the optimized variables.
          variables: the variables; slots are added where they are missing.

        Returns:
          The variables with the slots set to the state.

        Raises:
          InvalidArgumentError: a state of another structure or other shapes.
        """
        check_variables(variables, "optimizer.from_optax(state, variables)")
        template = self._template(subset(variables, self._managed(variables)))
        if jax.tree.structure(state) != jax.tree.structure(template):
            raise InvalidArgumentError(
                "this is no state of this optimizer over these variables. Expected the structure\n"
                f"  {jax.tree.structure(template)}\ngot\n  {jax.tree.structure(state)}"
            )
        leaves = state_leaves(template)
        claims = self._names.claim(variables, leaves)
        _check_shapes(variables, leaves, claims)
        values = [updates.stored(leaf) for leaf in jax.tree.leaves(state)]
        return variables._alike(_with_slots(variables, list(zip(leaves, claims, values, strict=True))))

    # -- steps -------------------------------------------------------------------------------------------

    def apply_gradients(self, grads: Any, variables: Variables, global_step: Any = None, **extra: Any) -> Variables:
        """Take one step (TF1: `optimizer.apply_gradients`). Works eagerly, inside `jit`, and with donation.

        A variable without gradient is left alone, and so are its slots. After the update each variable's
        `constraint` is applied, then `global_step` goes up by 1.

        Args:
          grads: gradients by name: what `jv.grad` returned, any mapping, or TF1's list of
            ``(gradient, variable or name)`` pairs. A gradient of None counts as absent.
          variables: the variables, with slots.
          global_step: the name or handle of the step counter, or None to count nothing. A learning rate that
            follows the step, such as `jv.train.exponential_decay`, stands still where none is counted.
          **extra: passed on to the transformation, such as ``value=loss`` for
            ``optax.contrib.reduce_on_plateau``.

        Returns:
          The variables after the step, in the same layout.

        Raises:
          FailedPreconditionError: slots are missing, or a variable or slot has no value.
          NotFoundError: a gradient or `global_step` names what does not exist.
          InvalidArgumentError: no gradients, one of another shape, or one outside of `var_list`.
          InvalidTypeError: a gradient for a variable of an integer or boolean dtype.
        """
        check_variables(variables, "optimizer.apply_gradients(grads, variables)")
        if variables._is_packed:
            from jaxvars.train.packed_steps import apply_packed  # here: few programs pack

            return apply_packed(self, grads, variables, global_step, extra)
        given = updates.named_gradients(grads, variables)
        if self._var_list is not None:
            updates.check_within(given, self._managed(variables), self._name)
        counter = None if global_step is None else updates.counter_key(global_step, variables)
        params = subset(variables, tuple(sorted(given)))
        state, slots = self._read_state(variables, params)
        if self._wants_step:
            extra = {"step": variables[counter or find_global_step(variables, self._name)], **extra}
        gradients = params._with_leaves(given[key] for key in params)
        changes, state = self._transformation.update(gradients, state, params, **extra)
        changed = dict(updates.updated(params, changes))
        changed.update(zip(slots, jax.tree.leaves(state), strict=True))
        if counter is not None:
            changed[counter] = variables[counter] + 1
        return updates.replaced(variables, changed)

    def minimize(
        self,
        loss_fn: Callable[..., Any],
        variables: Variables = _REQUIRED,
        *args: Any,
        global_step: Any = None,
        **kwargs: Any,
    ) -> tuple[jax.Array, Variables]:
        """Compute the loss, its gradients, and take one step (TF1: `optimizer.minimize(loss)`).

        Args:
          loss_fn: ``loss_fn(variables, *args, **kwargs)``, which returns the loss, or ``(loss, variables)``
            when the model assigned something, such as moving averages. Of a model that returns its loss it is
            ``model.apply``.
          variables: the variables, with slots.
          *args: further arguments of `loss_fn`.
          global_step: as in `apply_gradients`: without it no step is counted, and a learning rate that follows the
            step stands still.
          **kwargs: further keyword arguments of `loss_fn`.

        Returns:
          ``(loss, variables)``: the loss before the step and the variables after it.

        Raises:
          InvalidTypeError: `loss_fn` is no function, takes no variables, or returns something else.
          As `jv.value_and_grad` and `apply_gradients`.

        Example:
          >>> import jax.numpy as jnp
          >>> import jaxvars as jv
          >>> optimizer = jv.train.GradientDescentOptimizer(0.25)
          >>> variables = jv.Variables({"w": jnp.array(2.0)})
          >>> loss, variables = optimizer.minimize(lambda v: v["w"] ** 2, variables)
          >>> print(loss, variables["w"])
          4.0 1.0
        """
        check_minimize(loss_fn, variables)
        check_loss_function("optimizer.minimize", loss_fn, args)
        (loss, after), gradients = differentiate(
            loss_fn, variables, self._managed(variables), args, kwargs, _loss_and_variables
        )
        current = variables if after is None else after
        return loss, self.apply_gradients(gradients, current, global_step)

    # -- parts -------------------------------------------------------------------------------------------

    def _managed(self, variables: Variables) -> tuple[str, ...]:
        """The keys to optimize."""
        keys = selected_keys(variables, self._var_list, "var_list")
        if not keys:
            raise InvalidArgumentError(
                f"{self._name} has nothing to optimize: "
                + (
                    "no variable is trainable and of a floating or complex dtype"
                    if self._var_list is None
                    else f"var_list={self._var_list!r} selects nothing"
                )
            )
        updates.check_inexact(variables, keys)
        return keys

    def _template(self, params: Variables) -> Any:
        """The state's shapes over these variables."""
        abstract = params._abstract()
        structure = (params._layout, tuple((leaf.shape, str(leaf.dtype)) for leaf in abstract._leaves))
        template = self._templates.get(structure)
        if template is None:
            if len(self._templates) >= _MAX_TEMPLATES:
                self._templates.clear()
            template = self._templates[structure] = jax.eval_shape(self._transformation.init, abstract)
        return template

    def _initial_values(self, params: Variables, leaves: Sequence[StateLeaf]) -> list[Any]:
        """The state's first values, spread as their variables are; holes where a variable has none to start from."""
        if any(is_hole(leaf) for leaf in params._leaves):
            made: list[Any] = [Hole(*updates.stored_shape(leaf.struct)) for leaf in leaves]
        else:
            made = [updates.stored(leaf) for leaf in jax.tree.leaves(self._transformation.init(params.unpacked()))]
        return beside(params, [leaf.primary for leaf in leaves], made)

    def _found(self, variables: Variables, leaves: Sequence[StateLeaf]) -> list[str]:
        """The variables that hold the state, or an error that lists what is missing."""
        keys = self._names.find(variables, leaves)
        if None in keys:
            claims = self._names.claim(variables, leaves)
            names = [claim.key for claim, key in zip(claims, keys, strict=True) if key is None]
            raise FailedPreconditionError(
                f"slots missing for optimizer {self._name}: {updates.shortened(names)}. "
                "Write: variables = optimizer.init(variables)"
            )
        return [key for key in keys if key is not None]

    def _read_state(self, variables: Variables, params: Variables) -> tuple[Any, list[str]]:
        """The optax state over `params`, and the variable of each of its leaves."""
        template = self._template(params)
        leaves = state_leaves(template)
        slots = self._found(variables, leaves)
        values = [variables[key] for key in slots]
        empty = [key for key, value in zip(slots, values, strict=True) if is_hole(value)]
        if empty:
            raise FailedPreconditionError(
                f"slots without value: {updates.shortened(empty)}. Write: variables = optimizer.init(variables)"
            )
        _check_shapes(variables, leaves, [Claim(key) for key in slots])
        live = [updates.live(value, leaf.struct) for value, leaf in zip(values, leaves, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(template), live), slots


_NO_VALUE = jax.ShapeDtypeStruct((), jnp.float32)  # a name that does not exist is as good as a hole


def _loss_and_variables(result: Any) -> tuple[Any, Variables | None]:
    if isinstance(result, tuple):
        pair = cast("tuple[Any, ...]", result)
        if len(pair) == 2 and isinstance(pair[1], Variables):
            return pair[0], pair[1]
        raise InvalidTypeError(
            "the loss function of minimize returns the loss or (loss, variables). For other values write "
            "(loss, aux), grads = jv.value_and_grad(loss_fn, has_aux=True)(variables, ...), then "
            "optimizer.apply_gradients(grads, variables)"
        )
    return result, None


def _check_shapes(variables: Variables, leaves: Sequence[StateLeaf], claims: Sequence[Claim]) -> None:
    problems = [
        f"  {claim.key}: shape {variables[claim.key].shape}, needs {updates.stored_shape(leaf.struct)[0]}"
        for leaf, claim in zip(leaves, claims, strict=True)
        if claim.key in variables and variables[claim.key].shape != updates.stored_shape(leaf.struct)[0]
    ]
    if problems:
        raise InvalidArgumentError(
            "slots of another shape than their variables need (was a variable replaced?):\n"
            + "\n".join(problems)
            + "\nDrop them and call optimizer.init again"
        )


def _with_slots(variables: Variables, slots: Iterable[tuple[StateLeaf, Claim, Any]]) -> Variables:
    """The variables with these slots set or added."""
    specs = variables.variable_specs
    values: Mapping[str, Any] = variables
    pairs: dict[str, tuple[VariableSpec, Any]] = {
        key: (specs[key], values[key]) for key in variables._layout.creation_order
    }
    site = user_site()
    order = {key: i for i, key in enumerate(pairs)}
    # TF1's order of creation: what is shared first, then variable by variable.
    for leaf, claim, value in sorted(slots, key=lambda slot: order.get(slot[0].primary or "", -1)):
        if claim.key in pairs:
            pairs[claim.key] = (pairs[claim.key][0], value)
            continue
        placement = note_beside(specs, leaf.primary, value)
        spec = VariableSpec(claim.key, value.shape, value.dtype, False, claim.collections, placement, site)
        pairs[claim.key] = (spec, value)
    result = Variables.from_specs(pairs.values())
    return result._with_leaves(unshared(result._leaves))
