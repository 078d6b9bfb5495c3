"""Draws docs/placement.png: bytes per device of one small transformer, placed in three ways.

    python tools/placement_picture.py docs/placement.png

Nothing is initialized: the specs say where values would lie. It needs matplotlib.
"""

import sys
from collections.abc import Callable
from typing import Any

from jax.sharding import AbstractMesh
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxvars as jv

WIDTH, LAYERS, WORDS, SERVERS = 512, 6, 16_384, 8


def transformer() -> None:
    """Its variables, which is all that a picture of them needs."""
    with jv.variable_scope("embedding"):
        jv.get_variable("table", [WORDS, WIDTH])
    for layer in range(LAYERS):
        with jv.variable_scope("attention"):
            jv.get_variable(f"in_{layer}", [WIDTH, 3 * WIDTH])
            jv.get_variable(f"out_{layer}", [WIDTH, WIDTH])
        with jv.variable_scope("mlp"):
            jv.get_variable(f"in_{layer}", [WIDTH, 4 * WIDTH])
            jv.get_variable(f"out_{layer}", [4 * WIDTH, WIDTH])


def on_servers(strategy: Any = None) -> jv.Variables:
    """The specs on TF1's parameter servers."""

    def placed() -> None:
        with jv.device(jv.train.replica_device_setter(ps_tasks=SERVERS, ps_strategy=strategy)):
            transformer()

    return jv.transform(placed).specs()


def over_mesh() -> jv.Variables:
    """The specs in equal pieces over a mesh of as many devices."""
    specs = jv.transform(transformer).specs()
    return jv.placement.apply(specs, AbstractMesh((SERVERS,), ("data",)), jv.placement.fsdp("data"))


def main(path: str) -> None:
    """Write the picture."""
    greedy = jv.train.GreedyLoadBalancingStrategy(SERVERS, jv.train.byte_size_load_fn)
    ways: dict[str, Callable[[], jv.Variables]] = {
        "replica_device_setter, round robin": on_servers,
        "replica_device_setter, greedy by bytes": lambda: on_servers(greedy),
        'jv.placement.fsdp("data")': over_mesh,
    }
    figure = Figure(figsize=(11, 3.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(ways), sharey=True)
    for ax, (title, specs) in zip(axes, ways.items(), strict=True):
        drawing = jv.placement.draw(specs())
        drawing.plot(ax)
        ax.set_title(f"{title}\n{drawing.imbalance:.2f} times the mean", fontsize=9)
        if ax is not axes[-1]:
            ax.get_legend().remove()
        if ax is not axes[0]:
            ax.set_ylabel("")
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1])
