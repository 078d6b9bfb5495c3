"""Tables and the machine, as Markdown."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform

from benchmarks.measure import Table

PACKAGES = (
    "jaxvars", "jax", "jaxlib", "numpy", "dm-haiku", "flax", "equinox", "optax", "orbax-checkpoint", "safetensors",
    "google-crc32c",
)  # fmt: skip


def table_text(table: Table) -> str:
    """A table as Markdown, with ratios, spread and whether each goal is met."""
    head = ["case", f"median {table.unit}", "p10", "p90"]
    with_ratio, with_goal = table.base is not None, bool(table.goals or table.limits)
    if with_ratio:
        head += [f"x {table.base}", "p10..p90"]
    if with_goal:
        head += ["goal"]
    lines = [f"### {table.title}", "", _row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for case, samples in table.samples.items():
        low, middle, high = _percentiles(samples)
        cells = [case, _figure(middle), _figure(low), _figure(high)]
        if with_ratio:
            ratio, least, most = table.ratio(case)
            cells += [f"{ratio:.3f}", f"{least:.2f}..{most:.2f}"]
        if with_goal:
            cells += [_goal(table, case, middle)]
        lines.append(_row(cells))
    if table.note:
        lines += ["", table.note]
    return "\n".join(lines) + "\n"


def _goal(table: Table, case: str, median: float) -> str:
    if case in table.goals:
        met = table.ratio(case)[0] <= table.goals[case]
        return f"<= {table.goals[case]:g}x: {'met' if met else 'not met'}"
    if case in table.limits:
        met = median <= table.limits[case]
        return f"<= {table.limits[case]:g} {table.unit}: {'met' if met else 'not met'}"
    return ""


def _percentiles(samples: list[float]) -> tuple[float, float, float]:
    import numpy as np

    low, middle, high = np.percentile(samples, [10, 50, 90])
    return float(low), float(middle), float(high)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def header(command: str, loads: list[float]) -> str:
    """The title of RESULTS.md: command, date, machine, versions, and how busy the machine was."""
    versions = [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    load = ", ".join(f"{value:.1f}" for value in loads)
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Command: `{command}`. Date: {today}.",
            "",
            f"Machine: {os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.machine()}, "
            f"Python {platform.python_version()}. {', '.join(versions)}.",
            "",
            f"Load average (1 minute) before each section: {load}. A value above 1 before the first section is other "
            "work on the machine: spreads are then wide, and ratios within a few per cent of 1 are a tie.",
            "",
            "Each section runs in a process of its own. Cases take turns in a shuffled order; a ratio is taken within "
            'a round, and the median over the rounds is shown with its 10th and 90th percentile. "Again" is the same '
            "code measured as a second case: what it differs from 1 by is noise.",
            "",
        ]
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
