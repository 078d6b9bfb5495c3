"""What was measured, as it is kept: one JSON file per section, from which RESULTS.md and RESULTS.svg are made."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure import AGAIN, Claim, Table, spread

FOLDER = Path(__file__).parent / "results"

Spread = list[float]  # median, 10th and 90th percentile


@dataclasses.dataclass
class Case:
    """One row of a table: its samples, their ratios to the base, and how many rounds there were."""

    figure: Spread
    ratio: Spread | None
    rounds: int


@dataclasses.dataclass
class Judged:
    """A claim, what was found, and whether it holds."""

    claim: Claim
    found: Spread
    met: bool


@dataclasses.dataclass
class TableResult:
    """A table without its samples."""

    title: str
    unit: str
    base: str | None
    size: int | None
    note: str
    cases: dict[str, Case]
    controls: dict[str, Spread]  # per case that was measured twice: the second over the first
    judged: list[Judged]


@dataclasses.dataclass
class SectionResult:
    """The tables of one section, and where, when and how they were measured."""

    name: str
    title: str
    command: str
    date: str
    machine: str
    versions: str
    load: float
    seconds: float
    tables: list[TableResult]


def reduced(table: Table) -> TableResult:
    """The percentiles of a table, and its goals judged."""
    return TableResult(
        table.title,
        table.unit,
        table.base,
        table.size,
        table.note,
        {
            case: Case(
                _rounded(spread(samples)),
                None if table.base is None else _rounded(table.ratio(case)),
                sum(sample == sample for sample in samples),  # NaN: a round without it
            )
            for case, samples in table.samples.items()
        },
        {
            case: _rounded(table.ratio(control, case))
            for control in table.samples
            if (case := control.removesuffix(AGAIN)) != control
        },
        [Judged(claim, _rounded(found), met) for claim in table.all_claims() for found, met in [table.judge(claim)]],
    )


def _rounded(figures: Iterable[float]) -> Spread:
    return [float(f"{figure:.4g}") for figure in figures]


def table_from(fields: dict[str, Any]) -> TableResult:
    """A table read back from JSON."""
    cases = {name: Case(**case) for name, case in fields["cases"].items()}
    judged = [Judged(Claim(**item["claim"]), item["found"], item["met"]) for item in fields["judged"]]
    return TableResult(**{**fields, "cases": cases, "judged": judged})


def save(section: SectionResult, folder: Path = FOLDER) -> None:
    """Write one section in the place of its earlier figures."""
    folder.mkdir(exist_ok=True)
    text = json.dumps(dataclasses.asdict(section), indent=1, ensure_ascii=False)
    # A list of figures on one line: no string holds the line break that is looked for.
    text = re.sub(r"\[\n([^\[\]{}\"]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    (folder / f"{section.name}.json").write_text(text + "\n", encoding="utf-8")


def load(names: Iterable[str], folder: Path = FOLDER) -> list[SectionResult]:
    """The sections of these names that were ever measured, in this order."""
    found: list[SectionResult] = []
    for name in names:
        path = folder / f"{name}.json"
        if path.exists():
            fields = json.loads(path.read_text(encoding="utf-8"))
            found.append(SectionResult(**{**fields, "tables": [table_from(table) for table in fields["tables"]]}))
    return found
