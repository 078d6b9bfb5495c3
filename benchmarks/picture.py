"""RESULTS.svg: ratios of every table on one axis, and how costs grow with the number of variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.measure import AGAIN
from benchmarks.results import SectionResult, TableResult

# The first word that a case's name holds says whose it is.
LIBRARIES = {
    "jaxvars": ("#d1495b", ("jv", "jaxvars")),
    "Haiku": ("#2e86ab", ("haiku", "hk.")),
    "Flax Linen": ("#3caea3", ("linen", "frozendict")),
    "Flax NNX": ("#7b5ea7", ("nnx",)),
    "Equinox": ("#e9a23b", ("equinox", "eqx")),
    "TensorFlow": ("#f26419", ("tensorflow", "tf1", "sess.run")),
    "Orbax, safetensors": ("#5c6b73", ("orbax", "safetensors")),
    "raw JAX, dicts": ("#9aa5ab", ("",)),
}
INK, FAINT, PAPER = "#22303a", "#d8dee2", "#ffffff"


def library(case: str) -> str:
    """Whose a case is."""
    text = case.lower()
    return next(name for name, (_, words) in LIBRARIES.items() if any(word in text for word in words))


def draw(sections: list[SectionResult], path: Path) -> None:
    """Write the picture; the format is that of the suffix."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    style = {
        "svg.hashsalt": "jaxvars", "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK,
        "axes.edgecolor": FAINT, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    }  # fmt: skip
    compared = [(section, table) for section in sections for table in section.tables if _compares(table)]
    # The sizes of other sections count layers, not variables.
    grown = [
        table for section in sections if section.name == "scale" for table in section.tables if table.size is not None
    ]
    with plt.rc_context(style):
        rows = len(compared) + len({section.name for section, _ in compared})
        heights = [0.25 * rows + 1.2, *([6.6] if grown else [])]
        figure = plt.figure(figsize=(11, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        _draw_ratios(parts[0][0].subplots(), compared)
        if grown:
            _draw_growth(parts[1][0].subplots(), grown)
        figure.savefig(path, facecolor=PAPER, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _compares(table: TableResult) -> bool:
    """Whether jaxvars stands beside something else in it."""
    kinds = {library(case) for case in table.cases}
    return table.base is not None and table.size is None and "jaxvars" in kinds and len(kinds) > 1


def _draw_ratios(axes: Any, compared: list[tuple[SectionResult, TableResult]]) -> None:
    """One row per table; a dot per case at its ratio to the base, a line over its spread."""
    position, labels, headings = 0, {}, {}
    named = ""
    for section, table in compared:
        if section.name != named:
            named = section.name
            headings[position] = section.title
            position += 1
        labels[position] = f"{_short(table.title)}  (1 = {_short(table.base or '', 26)})"
        axes.axhline(position, color=FAINT, linewidth=0.6, zorder=0)
        for case in sorted(table.cases, key=lambda case: library(case) == "jaxvars"):
            ratio = table.cases[case].ratio
            if ratio is not None and AGAIN not in case:
                _dot(axes, ratio, position, library(case))
        position += 1
    axes.axvline(1, color=INK, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    axes.set_ylim(position - 0.3, -0.9)
    axes.set_yticks([*labels], [*labels.values()])
    beside_axis = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right", "va": "center"}
    for height, heading in headings.items():
        axes.annotate(heading, (0, height), xytext=(-4, -1), fontweight="bold", **beside_axis)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.tick_params(axis="both", length=0, labeltop=True)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("cost beside the base of each row; left is cheaper; lines: p10 to p90")
    _legend(axes, {library(case) for _, table in compared for case in table.cases})
    _bare(axes)


def _dot(axes: Any, ratio: list[float], position: int, kind: str) -> None:
    ours = kind == "jaxvars"
    color = LIBRARIES[kind][0]
    middle, low, high = ratio
    axes.plot([low, high], [position, position], color=color, linewidth=2, alpha=0.35, solid_capstyle="round", zorder=2)
    size, marker, order = (62, "D", 4) if ours else (34, "o", 3)
    axes.scatter([middle], [position], s=size, marker=marker, color=color, zorder=order, edgecolor=PAPER, linewidth=0.8)


def _draw_growth(axes: Any, tables: list[TableResult]) -> None:
    """A line per operation: cost per variable over the number of variables, flat where growth is linear."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for table in tables:
        for case, figures in table.cases.items():
            if AGAIN not in case:
                lines.setdefault(case, []).append((table.size or 0, figures.figure[0]))
    ends = sorted(((points[-1][1], case) for case, points in lines.items()), reverse=True)
    colors = _colors(len(ends))
    for (_, case), color in zip(ends, colors, strict=True):
        sizes, costs = zip(*lines[case], strict=True)
        axes.plot(sizes, costs, marker="o", markersize=4, linewidth=1.6, color=color, label=case)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted({size for points in lines.values() for size, _ in points}))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.tick_params(length=0)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("variables")
    axes.set_ylabel(f"{tables[0].unit}")
    axes.set_title(
        "Cost per variable as their number grows: flat is linear growth", loc="left", fontweight="bold", fontsize=11
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelspacing=0.5, fontsize=8)
    _bare(axes)


def _colors(count: int) -> list[Any]:
    import matplotlib

    ramp = matplotlib.colormaps["turbo"]
    return [ramp(0.05 + 0.9 * number / max(1, count - 1)) for number in range(count)]


def _legend(axes: Any, kinds: set[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="D" if name == "jaxvars" else "o", markersize=7, color=color, label=name)
        for name, (color, _) in LIBRARIES.items()
        if name in kinds
    ]
    # Two rows, right above the axes: beside the long names at the left there is no room for one.
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=(len(handles) + 1) // 2,
                frameon=False, columnspacing=1.4, handletextpad=0.2, borderaxespad=2.2)  # fmt: skip


def _bare(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _short(text: str, length: int = 62) -> str:
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."
