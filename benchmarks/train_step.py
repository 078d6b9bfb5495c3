"""One step of training with Adam: raw JAX, jaxvars and its peers on the same operations (`benchmarks.train_models`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxvars as jv
from benchmarks import peers, tensorflow_peer
from benchmarks.measure import AGAIN, Table, interleaved
from benchmarks.train_models import Problem, loss_of, problems

TITLE = "Training step"

RAW = "raw dict, optax"
OURS = "model.apply, jv.value_and_grad, optax"
ADAM = "model.apply, jv.train.AdamOptimizer"
TENSORFLOW = "TF1 session.run"
GOAL = 1.03

TX = optax.adam(1e-3)
# A case: (state, inputs, labels) -> (loss, state), and the first state.
Case = tuple[Callable[[Any, Any, Any], tuple[Any, Any]], Any]
Values = Mapping[str, Mapping[str, Any]]


def tables(quick: bool) -> list[Table]:
    """One table per network."""
    with tensorflow_peer.started(Path(__file__).with_name("tensorflow_train.py")) as tensorflow:
        return [_table(name, problem, quick, tensorflow) for name, problem in problems().items()]


def _table(name: str, problem: Problem, quick: bool, tensorflow: tensorflow_peer.Peer | None) -> Table:
    made = cases(problem)
    check_agreement(made, problem)
    running: dict[str, Callable[[], Any]] = {case: _stepping(*made[case], problem) for case in made}
    running |= nnx_jit(problem)
    told: list[float] = []  # by the other process's own clock, without the way there and back
    if tensorflow is not None:
        running[TENSORFLOW] = lambda: told.append(tensorflow("step", name))
    rounds, calls, warm = 7 if quick else 101, 20 if name == "mlp" else 2, 2
    samples = interleaved(running, rounds=rounds, calls=calls, warm=warm)
    if tensorflow is not None:
        samples[TENSORFLOW] = (1e6 * np.reshape(told[warm:], (rounds, calls)).mean(axis=1)).tolist()
    return Table(
        problem.title + ": one step, optax.adam, donated",
        "us",
        samples,
        base=RAW,
        goals={OURS: GOAL, ADAM: GOAL},
        note="Each step is waited for." + (" TensorFlow runs in a process of its own, in turn." if told else ""),
    )


def cases(problem: Problem) -> dict[str, Case]:
    """Every way of writing the step as a pure function of a state; peers where they are installed."""
    values = problem.parameters()
    found = {RAW: raw(problem, values), RAW + AGAIN: raw(problem, values)}
    found |= {OURS: with_optax(problem, values), ADAM: with_our_adam(problem, values)}
    if peers.haiku():
        found["Haiku"] = haiku(problem, values)
    if peers.linen():
        found |= {"Linen": linen(problem, values), "NNX, functional": nnx(problem, values)}
    if peers.equinox():
        found |= equinox(problem, values)
    return found


def check_agreement(made: Mapping[str, Case], problem: Problem) -> None:
    """All of them must compute the same: else what is compared below is not the framework."""
    losses = {}
    for case, (step, state) in made.items():
        state = jax.tree.map(jnp.copy, state)
        for _ in range(3):
            loss, state = step(state, problem.inputs, problem.labels)
        losses[case] = float(loss)
    if max(losses.values()) - min(losses.values()) > 1e-4:
        raise AssertionError(f"{problem.title}: {losses}")


def _stepping(step: Any, state: Any, problem: Problem) -> Callable[[], None]:
    """A function that makes one more step and waits for it."""
    present = [jax.tree.map(jnp.copy, state)]
    inputs, labels = jnp.asarray(problem.inputs), jnp.asarray(problem.labels)

    def call() -> None:
        loss, present[0] = step(present[0], inputs, labels)
        loss.block_until_ready()

    return call


# Ours, and none


def raw(problem: Problem, values: Values) -> Case:
    """A flat dict of arrays."""
    params = {f"{scope}/{name}": jnp.asarray(v) for scope, inner in values.items() for name, v in inner.items()}

    def apply(params: Any, inputs: Any) -> Any:
        def get(scope: str, **shapes: Any) -> Any:
            return {name: params[f"{scope}/{name}"] for name in shapes}

        return problem.network(get, inputs)

    return _with_optax(apply, params)


def _with_optax(apply: Callable[[Any, Any], Any], params: Any, jit: Any = None) -> Case:
    """The step of everything that keeps parameters in a pytree."""

    def step(state: Any, inputs: Any, labels: Any) -> Any:
        params, slots = state
        loss, grads = jax.value_and_grad(lambda p: loss_of(apply(p, inputs), labels))(params)
        updates, slots = TX.update(grads, slots, params)
        return loss, (optax.apply_updates(params, updates), slots)

    return (jit or _donating)(step), (params, TX.init(params))


def _donating(step: Any) -> Any:
    return jax.jit(step, donate_argnums=0)


def _ours(problem: Problem, values: Values) -> tuple[jv.Model, jv.Variables]:
    def network(inputs: Any) -> Any:
        def get(scope: str, **shapes: Any) -> Any:
            with jv.variable_scope(scope):
                return {name: jv.get_variable(name, shape) for name, shape in shapes.items()}

        return problem.network(get, inputs)

    model = jv.transform(network)
    given = {f"{scope}/{name}": jnp.asarray(v) for scope, inner in values.items() for name, v in inner.items()}
    return model, model.init(0, problem.inputs).replace(given)


def with_optax(problem: Problem, values: Values) -> Case:
    """Optax beside, as in the raw step."""
    model, variables = _ours(problem, values)

    def loss_fn(variables: Any, inputs: Any, labels: Any) -> Any:
        logits, variables = model.apply(variables, inputs)
        return loss_of(logits, labels), variables

    def step(state: Any, inputs: Any, labels: Any) -> Any:
        variables, slots = state
        (loss, variables), grads = jv.value_and_grad(loss_fn, has_aux=True)(variables, inputs, labels)
        updates, slots = TX.update(grads, slots, variables)
        return loss, (optax.apply_updates(variables, updates), slots)

    return _donating(step), (variables, TX.init(variables))


def with_our_adam(problem: Problem, values: Values) -> Case:
    """Slots are variables."""
    model, variables = _ours(problem, values)
    optimizer = jv.train.AdamOptimizer(1e-3)

    def loss_fn(variables: Any, inputs: Any, labels: Any) -> Any:
        logits, variables = model.apply(variables, inputs)
        return loss_of(logits, labels), variables

    def step(variables: Any, inputs: Any, labels: Any) -> Any:
        (loss, variables), grads = jv.value_and_grad(loss_fn, has_aux=True)(variables, inputs, labels)
        return loss, optimizer.apply_gradients(grads, variables)

    return _donating(step), optimizer.init(variables)


# Peers


def haiku(problem: Problem, values: Values) -> Case:
    """`hk.get_parameter` in a module per scope."""
    import haiku as hk

    class Scope(hk.Module):
        def __call__(self, shapes: Any) -> Any:
            return {name: hk.get_parameter(name, shape, init=jnp.zeros) for name, shape in shapes.items()}

    def network(inputs: Any) -> Any:
        return problem.network(lambda scope, **shapes: Scope(name=scope)(shapes), inputs)

    model = hk.without_apply_rng(hk.transform(network))
    return _with_optax(model.apply, jax.tree.map(jnp.asarray, dict(values)))


def linen(problem: Problem, values: Values) -> Case:
    """`self.param` in a module per scope."""
    from flax import linen as nn

    class Scope(nn.Module):
        shapes: Any

        @nn.compact
        def __call__(self) -> Any:
            return {name: self.param(name, nn.initializers.zeros, shape) for name, shape in self.shapes.items()}

    class Network(nn.Module):
        @nn.compact
        def __call__(self, inputs: Any) -> Any:
            return problem.network(lambda scope, **shapes: Scope(shapes, name=scope)(), inputs)

    return _with_optax(Network().apply, {"params": jax.tree.map(jnp.asarray, dict(values))})


def equinox(problem: Problem, values: Values) -> dict[str, Case]:
    """A module per scope, with one field per name."""
    import equinox as eqx

    def scope(name: str, inner: Mapping[str, Any]) -> Any:
        kind = type(name, (eqx.Module,), {"__annotations__": dict.fromkeys(inner, Any)})
        return kind(**{key: jnp.asarray(value) for key, value in inner.items()})

    class Network(eqx.Module):
        scopes: dict[str, Any]

        def __call__(self, inputs: Any) -> Any:
            def get(scope: str, **shapes: Any) -> Any:
                return {name: getattr(self.scopes[scope], name) for name in shapes}

            return problem.network(get, inputs)

    network = Network({name: scope(name, inner) for name, inner in values.items()})

    def apply(network: Any, inputs: Any) -> Any:
        return network(inputs)

    return {
        "Equinox, jax.jit": _with_optax(apply, network),
        "Equinox, filter_jit": _with_optax(apply, network, lambda step: eqx.filter_jit(step, donate="all")),
    }


def _nnx_network(problem: Problem, values: Values) -> Any:
    from flax import nnx

    class Scope(nnx.Module):
        def __init__(self, inner: Mapping[str, Any]) -> None:
            for name, value in inner.items():
                setattr(self, name, nnx.Param(jnp.asarray(value)))

    class Network(nnx.Module):
        def __init__(self) -> None:
            for name, inner in values.items():
                setattr(self, name, Scope(inner))

        def __call__(self, inputs: Any) -> Any:
            def get(scope: str, **shapes: Any) -> Any:
                return {name: getattr(getattr(self, scope), name)[...] for name in shapes}

            return problem.network(get, inputs)

    return Network()


def nnx(problem: Problem, values: Values) -> Case:
    """The state split off once, and merged inside the step."""
    from flax import nnx

    graph, state = nnx.split(_nnx_network(problem, values))
    return _with_optax(lambda state, inputs: nnx.merge(graph, state)(inputs), state)


def nnx_jit(problem: Problem) -> dict[str, Callable[[], None]]:
    """`nnx.jit` over the module and its optimizer, which it changes in place."""
    if not peers.linen():
        return {}
    from flax import nnx

    network = _nnx_network(problem, problem.parameters())
    optimizer = nnx.Optimizer(network, TX, wrt=nnx.Param)
    inputs, labels = jnp.asarray(problem.inputs), jnp.asarray(problem.labels)

    @nnx.jit
    def step(network: Any, optimizer: Any, inputs: Any, labels: Any) -> Any:
        loss, grads = nnx.value_and_grad(lambda network: loss_of(network(inputs), labels))(network)
        optimizer.update(network, grads)
        return loss

    return {"nnx.jit (not donated)": lambda: step(network, optimizer, inputs, labels).block_until_ready()}
