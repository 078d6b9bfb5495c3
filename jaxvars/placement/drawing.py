"""`draw`: a picture of who holds what, and how many bytes lie on each device."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jaxvars.errors import InvalidTypeError, UnavailableError
from jaxvars.placement.drawing_holdings import Holding, Place, holdings
from jaxvars.placement.drawing_shares import Share, alike, coarse
from jaxvars.variables import Variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Drawing", "draw"]

_TICKS = 32  # devices whose names fit below a plot
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("bytes", 0))


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Drawing:
    """Who holds what. Printing it gives a picture in text, a notebook shows HTML, `plot` uses matplotlib.

    Bytes are those of the arrays: what XLA adds for alignment is not among them. A device is there when a variable's
    sharding names it, whether it holds bytes or not.

    Attributes:
      places: the devices in their order, then other memories than their own.
      holdings: one per variable, in name order: its name, bytes, and where they lie.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> drawing = jv.placement.draw(jv.Variables({"dense/kernel": jnp.ones((2, 3)), "dense/bias": jnp.ones(3)}))
      >>> drawing.bytes_per_device
      {'cpu:0': 36}
      >>> drawing.imbalance
      1.0
    """

    places: tuple[Place, ...]
    holdings: tuple[Holding, ...]

    @functools.cached_property
    def bytes_per_device(self) -> dict[str, int]:
        """Bytes by device.

        ``"cpu:3"``; ``"tpu:0 pinned_host"`` for a memory that is not the device's own; ``"data=0, model=3"`` on a mesh
        without devices; the device string where there is no such device here.
        """
        return {str(place): int(held) for place, held in zip(self.places, self.table.sum(axis=1), strict=True)}

    @functools.cached_property
    def bytes_per_scope(self) -> dict[str, int]:
        """Bytes by scope, all copies and pieces on all devices, the largest scope first."""
        held: dict[str, int] = {}
        for holding in self.holdings:
            held[holding.scope] = held.get(holding.scope, 0) + holding.held
        return dict(sorted(held.items(), key=lambda item: -item[1]))

    @property
    def nbytes(self) -> int:
        """Bytes of one copy of every variable."""
        return sum(holding.nbytes for holding in self.holdings)

    @property
    def imbalance(self) -> float:
        """The bytes of the fullest device over the mean: 1.0 where all hold the same.

        Memories other than the devices' own are compared with each other; the worst of the kinds counts.
        """
        kinds: dict[str, list[int]] = {}
        for place, held in zip(self.places, self.table.sum(axis=1), strict=True):
            kinds.setdefault(place.memory, []).append(int(held))
        return max((max(held) * len(held) / sum(held) for held in kinds.values() if sum(held)), default=1.0)

    @property
    def unplaced(self) -> dict[str, str]:
        """Variables that are on no device as far as is known, and why: ``"JAX will choose"``, ``"deleted"``, ..."""
        return {holding.name: holding.reason for holding in self.holdings if holding.spread is None}

    @functools.cached_property
    def table(self) -> npt.NDArray[np.int64]:
        """[places, scopes] bytes, in the order of `places` and of `bytes_per_scope`."""
        column = {scope: number for number, scope in enumerate(self.bytes_per_scope)}
        table = np.zeros((len(self.places), len(column)), np.int64)
        for holding in self.holdings:
            if holding.spread is not None:
                # A sharding names a device once only: no place is there twice.
                table[holding.spread.places, column[holding.scope]] += holding.spread.elements * holding.itemsize
        return table

    @functools.cached_property
    def shares(self) -> list[Share]:
        """Places that hold the same bytes of each scope, together; the fullest first."""
        return alike(self.table)

    def to_text(self, *, devices: int = 16, layouts: int = 16, width: int = 40) -> str:
        """Return the picture as text: a bar per device, then how variables are cut, as small grids of devices.

        Args:
          devices: how many bars; the fullest devices come first, and those that hold the same share one.
          layouts: how many ways of laying out variables are shown, that of the most bytes first.
          width: of the longest bar.

        Example:
          >>> import jax.numpy as jnp, jaxvars as jv
          >>> print(jv.placement.draw(jv.Variables({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})).to_text(width=8))
          2 variables, 36 bytes in one copy; 36 bytes on 1 device
          cpu:0  ████████  36 bytes
          <BLANKLINE>
          whole on cpu:0: 36 bytes
            b float32[3]; w float32[2,3]
        """
        from jaxvars.placement.drawing_text import text

        return text(self, devices, layouts, width)

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from jaxvars.placement.drawing_html import page

        return page(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw a bar per device, stacked by scope, with matplotlib.

        Args:
          ax: where to; None makes a new figure.

        Returns:
          The axes, to change or save: ``drawing.plot().figure.savefig("placement.png")``.

        Raises:
          UnavailableError: matplotlib is not installed.
        """
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise UnavailableError(f"plot() needs matplotlib ({error}). Run: pip install matplotlib") from error
            _, ax = pyplot.subplots(layout="constrained")
        largest = int(self.table.sum(axis=1).max(initial=0))
        unit, size = next((unit, max(1, least)) for unit, least in _UNITS if largest >= least)
        positions, bottom = np.arange(len(self.places)), np.zeros(len(self.places))
        for name, color, held in coarse(list(self.bytes_per_scope), self.table):
            ax.bar(positions, held / size, bottom=bottom, color=color, label=name)
            bottom += held / size
        ax.set_ylabel(unit)
        ax.set_title(f"the fullest device has {self.imbalance:.2f} times the mean", fontsize=10)
        if len(self.places) <= _TICKS:
            ax.set_xticks(positions, [str(place) for place in self.places], rotation=90, fontsize=8)
        else:
            ax.set_xlabel(f"{len(self.places):,} devices")
        if self.holdings:
            ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        return ax


def draw(variables: Variables, depth: int = 1) -> Drawing:
    """Return a picture of who holds what, and how many bytes lie on each device.

    Only shardings are asked: values of other processes count as those of this one do, specs say where their values
    will lie, and with shardings over a `jax.sharding.AbstractMesh` the devices need not exist. What a device string
    places is shown on the device that it means here, or under the string where there is none, so that a cluster can be
    looked at from a laptop (TF1 had `log_device_placement`, which printed each op's device).

    Args:
      variables: values, or ``model.specs(...)``; any state, packed or not.
      depth: how many parts of the names make the scopes by which bytes are added up.

    Returns:
      The `Drawing`: print it, show it in a notebook, or ``.plot()`` it. `bytes_per_device` and `imbalance` are numbers.

    Raises:
      InvalidTypeError: not `Variables`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxvars as jv
      >>> mesh = jax.sharding.AbstractMesh((4,), ("data",))
      >>> rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
      >>> specs = jv.Variables({"w": jax.ShapeDtypeStruct((8, 2), jnp.float32, sharding=rows)})
      >>> print(jv.placement.draw(specs).to_text(width=8))
      1 variable, 64 bytes in one copy; 64 bytes on 4 devices, the fullest with 1.00 times the mean
      data=0-3  ████████  16 bytes each
      <BLANKLINE>
      4 x 1 pieces by ('data',) over data=0-3: 64 bytes in all
        w float32[8,2]
        ┌───┐
        │ 0 │
        ├───┤
        │ 1 │
        ├───┤
        │ 2 │
        ├───┤
        │ 3 │
        └───┘
    """
    if not isinstance(variables, Variables):
        raise InvalidTypeError(
            f"jv.placement.draw(variables) takes Variables, not {type(variables).__name__}. For a tree of arrays, "
            "write: jv.placement.draw(jv.Variables.from_nested(tree))"
        )
    places, held = holdings(variables, depth)
    return Drawing(tuple(places), tuple(held))
