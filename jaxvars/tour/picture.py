"""The picture at the end of the tour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxvars.tour.finetune import Course

__all__ = ["draw"]

_COLORS = {"restored": "#1f6fb4", "scratch": "#c0504d"}
_LABELS = {"restored": "restored from TensorFlow", "scratch": "from scratch"}


def draw(path: Path, courses: dict[str, Course], resumed_at: int, filters: np.ndarray) -> None:
    """Write a PNG with loss and test accuracy by step, and the filters of the first layer.

    Args:
      path: where the picture goes.
      courses: "restored" and "scratch", each a fine-tuning.
      resumed_at: the step at which the second process went on.
      filters: [height, width, 1, count], the kernel of the first convolution.
    """
    # The object interface with the Agg canvas: no global state, no display, whatever the user's backend.
    figure = Figure(figsize=(10, 3.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 3, width_ratios=[1.15, 1.15, 1])
    _draw_losses(figure.add_subplot(grid[0]), courses, resumed_at)
    _draw_accuracies(figure.add_subplot(grid[1]), courses)
    _draw_filters(figure.add_subplot(grid[2]), filters)
    figure.savefig(path)


def _draw_losses(axes: Axes, courses: dict[str, Course], resumed_at: int) -> None:
    for name, course in courses.items():
        steps = np.arange(1, len(course.losses) + 1)
        axes.semilogy(steps, course.losses, color=_COLORS[name], linewidth=1, label=_LABELS[name])
    axes.axvline(resumed_at, color="gray", linestyle=":", linewidth=1)
    axes.annotate(
        "second process\nresumes here", (resumed_at, 0.97), xycoords=("data", "axes fraction"), fontsize=7,
        color="gray", ha="right", va="top", xytext=(-3, 0), textcoords="offset points",
    )  # fmt: skip
    axes.set_title("training loss: odd or even?", fontsize=10)
    axes.set_xlabel("step")
    axes.legend(fontsize=7, loc="lower left", frameon=False)


def _draw_accuracies(axes: Axes, courses: dict[str, Course]) -> None:
    for name, course in courses.items():
        percent = 100 * np.asarray(course.accuracies)
        axes.plot(course.measured_at, percent, color=_COLORS[name], linewidth=1.5, label=_LABELS[name])
        axes.annotate(f"{percent[-1]:.1f} %", (course.measured_at[-1], percent[-1]), fontsize=7,
                      color=_COLORS[name], ha="right", xytext=(0, 4), textcoords="offset points")  # fmt: skip
    axes.margins(y=0.08)
    axes.set_title("test accuracy, %", fontsize=10)
    axes.set_xlabel("step")
    axes.legend(fontsize=7, loc="lower right", frameon=False)


def _draw_filters(axes: Axes, filters: np.ndarray) -> None:
    """Show the filters side by side in one image, four to a row, with white lines between them."""
    height, width, _, count = filters.shape
    rows = -(-count // 4)
    mosaic = np.full((rows * (height + 1) - 1, 4 * (width + 1) - 1), np.nan)
    for index in range(count):
        top, left = (index // 4) * (height + 1), (index % 4) * (width + 1)
        mosaic[top : top + height, left : left + width] = filters[:, :, 0, index]
    limit = float(np.abs(filters).max())
    axes.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_axis_off()
    axes.set_title("first-layer filters", fontsize=10)
