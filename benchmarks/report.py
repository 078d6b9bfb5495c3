"""RESULTS.md: the goals, then the tables of every section, as Markdown."""

from __future__ import annotations

import re

from benchmarks.results import Case, Judged, SectionResult, TableResult

INTRODUCTION = """\
Written by `python -m benchmarks`, which measures all sections, or by `python -m benchmarks SECTION ...`, which replaces
those.

Each section runs in a process of its own. Cases take turns in an order shuffled anew each round; a ratio is taken
within a round, and the median over the rounds is shown with its 10th and 90th percentile. What happens once in a
process (an import, a first initialization) is measured in a fresh process per sample. An "A/A control" is the same code
measured as a second case: what its ratio differs from 1 by is noise. A load average above 1 before a section is other
work on the machine: spreads are then wide, and ratios within a few per cent of 1 are a tie.
"""


def document(sections: list[SectionResult], picture: str) -> str:
    """The whole of RESULTS.md."""
    parts = ["# Benchmarks", "", INTRODUCTION, *_goals(sections), f"![Ratios, and growth with size]({picture})", ""]
    return "\n".join(parts) + "\n" + "\n".join(map(section_text, sections))


def _goals(sections: list[SectionResult]) -> list[str]:
    """Every goal, with its figure and where it comes from."""
    every = [(section, table, item) for section in sections for table in section.tables for item in table.judged]
    met = sum(item.met for _, _, item in every)
    rows = [
        [
            f"{table.title}: {_goal_text(table, item)}",
            _found_text(table, item),
            _judgement(item),
            f"[{section.name}](#{_anchor(section.title)})",
        ]
        for section, table, item in every
    ]
    head = ["goal", "measured (p10..p90)", "", "section"]
    return [f"## Goals: {met} of {len(rows)} met", "", *map(_row, [head, ["---"] * 4, *rows]), ""]


def section_text(section: SectionResult) -> str:
    """A section as Markdown."""
    took = f", {section.seconds:.0f} s" if section.seconds else ""
    about = f"`{section.command}`, {section.date}{took}, load average before it {section.load:.1f}."
    head = f"## {section.title}\n\n{about}\n{section.machine}. {section.versions}.\n"
    return head + "\n" + "\n".join(map(table_text, section.tables))


def table_text(table: TableResult) -> str:
    """A table as Markdown, with ratios, spread and whether each goal is met."""
    beside = {case: [item for item in table.judged if _is_beside(table, item, case)] for case in table.cases}
    head = ["case", "rounds", f"median {table.unit}", "p10", "p90"]
    if table.base is not None:
        head += [f"x {table.base}", "p10..p90"]
    if any(beside.values()):
        head += ["goal"]
    lines = [f"### {table.title}", "", _row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for name, case in table.cases.items():
        cells = [name, *_case_cells(case)]
        if any(beside.values()):
            cells += ["; ".join(f"{_bound(table, item)}: {_judgement(item)}" for item in beside[name])]
        lines.append(_row(cells))
    shown = [item for items in beside.values() for item in items]
    below = [
        f"- {_goal_text(table, item)}: {_found_text(table, item)}, {_judgement(item)}."
        for item in table.judged
        if item not in shown
    ]
    below += [
        f"- A/A control of {case}: {figure(middle)}x ({figure(low)}..{figure(high)})."
        for case, (middle, low, high) in table.controls.items()
        if case != table.base
    ]
    for paragraph in (table.note, "\n".join(below)):
        lines += ["", paragraph] if paragraph else []
    return "\n".join(lines) + "\n"


def _is_beside(table: TableResult, item: Judged, case: str) -> bool:
    """Whether a goal can be read off the row of its case."""
    claim = item.claim
    return claim.case == case and claim.at_most is not None and claim.base in (None, table.base)


def _case_cells(case: Case) -> list[str]:
    middle, low, high = case.figure
    cells = [str(case.rounds), figure(middle), figure(low), figure(high)]
    if case.ratio is not None:
        ratio, least, most = case.ratio
        cells += [f"{ratio:.3f}", f"{least:.2f}..{most:.2f}"]
    return cells


def _bound(table: TableResult, item: Judged) -> str:
    claim = item.claim
    return f"<= {claim.at_most:g}{'x' if claim.base is not None else _unit(table)}"


def _goal_text(table: TableResult, item: Judged) -> str:
    """A goal in words."""
    claim = item.claim
    if claim.faster is not None:
        return f"{claim.case} at least {claim.faster:g} times as fast as {claim.base}"
    if claim.plus is not None:
        return f"{claim.case} at most {claim.base} + {claim.plus:g}{_unit(table)}"
    if claim.base is not None:
        return f"{claim.case} at most {claim.at_most:.3g} x {claim.base}"
    return f"{claim.case} at most {claim.at_most:g}{_unit(table)}"


def _found_text(table: TableResult, item: Judged) -> str:
    """What was found: a ratio, how many times as fast, or a figure with its unit."""
    middle, low, high = map(figure, item.found)
    claim = item.claim
    if claim.faster is not None:
        return f"{middle} times ({low}..{high})"
    if claim.plus is not None:
        return f"+ {middle} ({low}..{high}){_unit(table)}"
    return f"{middle}x ({low}..{high})" if claim.base is not None else f"{middle} ({low}..{high}){_unit(table)}"


def _judgement(item: Judged) -> str:
    return "met" if item.met else "**not met**"


def _unit(table: TableResult) -> str:
    return f" {table.unit}" if table.unit else ""


def figure(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _anchor(title: str) -> str:
    """The id that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
