"""What a state costs in a jitted training loop, where the step itself does next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from benchmarks.measure import Table, interleaved
from benchmarks.states import all_kinds

TITLE = "Dispatch of a jitted step"


def tables(quick: bool) -> list[Table]:
    """One table per size and donation."""
    found = [_table(100, False, quick), _table(1000, False, quick)]
    return found if quick else [*found, _table(1000, True, quick)]


def _table(count: int, donate: bool, quick: bool) -> Table:
    cases = {kind: _loop(state, donate) for kind, state in all_kinds(count).items()}
    samples = interleaved(cases, rounds=11 if quick else 101, calls=max(2, 4000 // count), settle=jax.block_until_ready)
    return Table(
        f"state -> state, x + 1 on {count:,} f32 scalars{', donated' if donate else ''}",
        "us",
        samples,
        base="raw tuple",
        goals={} if donate else {"jv.Variables": 1.05},
    )


def _loop(state: Any, donate: bool) -> Callable[[], Any]:
    """A function that makes one more step from where it stands."""

    def add_one(tree: Any) -> Any:
        return jax.tree.map(lambda x: x + 1, tree)

    step = jax.jit(add_one, donate_argnums=0 if donate else ())
    present = [state]

    def call() -> Any:
        present[0] = step(present[0])
        return present[0]

    return call
