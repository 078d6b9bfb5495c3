"""Costs of a model of 10 billion parameters on 1,000 processes, computed from the unit costs of the section `units`.

`python -m benchmarks.scale_model` writes the tables into docs/scale.md again; a test compares them.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import units as u
from benchmarks.results import load

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# How `orbax_save` chooses the size of data files, up to how many devices it lets Orbax list, and how much
# `shard_reading` loads at once.
TARGET_FILE, MOST_FILES = 1 << 24, 256
MOST_LISTED_DEVICES = 1 << 20
AT_ONCE, PARTS = 1 << 24, 8


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A model, spread.

    Attributes:
      title: heading of its column.
      variables: how many.
      pieces: into how many each is cut; every piece is held by as many devices as are left.
      parameters: elements of all variables, float32.
      processes: how many.
      devices: of each process.
    """

    title: str
    variables: int
    pieces: int
    parameters: float = 10e9
    processes: int = 1000
    devices: int = 8

    @property
    def nbytes(self) -> float:
        """One copy of all values."""
        return 4 * self.parameters


SCENARIOS = (
    Scenario("500 variables, 8,000 pieces", 500, 8000),
    Scenario("10,000 variables, 8,000 pieces", 10_000, 8000),
    Scenario("500 variables, 64 pieces", 500, 64),
    Scenario("10,000 variables, 64 pieces", 10_000, 64),
)


class Costs:
    """What a scenario costs.

    Args:
      unit: case of the section `units` -> its median.
      of: the scenario.
    """

    def __init__(self, unit: dict[str, float], of: Scenario) -> None:
        self._unit, self._of = unit, of
        self.pieces = of.variables * of.pieces
        self.all_devices = of.processes * of.devices

    def description(self) -> float:
        """Bytes of specs in each process."""
        return self._of.variables * self._unit[u.IN_MEMORY]

    def specs_time(self) -> float:
        """Seconds for `model.specs` under a rule."""
        return self._of.variables * self._unit[u.SPECS] / 1e6

    def fingerprint_time(self) -> float:
        """Seconds for the fingerprint that processes compare."""
        return self._of.variables * self._unit[u.FINGERPRINT] / 1e6

    def on_device(self) -> float:
        """Bytes of values on a device."""
        return self._of.nbytes / self._of.pieces

    def written(self) -> float:
        """Bytes of values that each process writes: every piece is written once."""
        return self._of.nbytes / self._of.processes

    def read(self) -> float:
        """Bytes of values that each process reads."""
        return min(self._of.devices, self._of.pieces) * self.on_device()

    def gathered(self) -> float:
        """Bytes of checksums that each process receives in a save."""
        return self.pieces * (self._unit[u.GATHERED] + self._of.processes * self._unit[u.GATHERED_PROCESS])

    def record(self) -> float:
        """Bytes of our own file, without small variables."""
        return self._of.variables * self._unit[u.RECORD] + self.pieces * self._unit[u.RECORD_PIECE]

    def memory(self) -> float:
        """Bytes that a process holds beside its values, once it saves: process 0, which writes the record."""
        return self.description() + self.gathered() + self.record()

    def shardings(self) -> float:
        """Bytes of the file in which Orbax writes every variable's devices, where it does."""
        if self._of.variables * self.all_devices > MOST_LISTED_DEVICES:
            return 0
        return self._of.variables * (self._unit[u.SHARDING] + self.all_devices * self._unit[u.SHARDING_DEVICE])

    def names(self) -> float:
        """Bytes of the file in which Orbax writes the names."""
        return self._of.variables * self._unit[u.NAMES]

    def array_metadata(self) -> float:
        """Bytes of the files in which each process describes all arrays."""
        return self._of.variables * self._of.processes * self._unit[u.ARRAYS]

    def index(self) -> float:
        """Bytes of OCDBT's index of pieces."""
        return self._of.variables * self._unit[u.INDEX] + self.pieces * self._unit[u.INDEX_PIECE]

    def loads(self) -> float:
        """How often a restore asks Orbax, which reads its metadata each time."""
        return min(self._of.variables, -(-self.read() // max(AT_ONCE, self.read() // PARTS)))

    def read_beside(self) -> float:
        """Bytes that each process reads beside its values."""
        once = self.names() + self.shardings() + self.array_metadata() / self._of.processes + self.index()
        return self.record() + self.loads() * once

    def told(self) -> float:
        """Bytes that the coordination service sends to each process in a restore."""
        each = self._of.variables * self._unit[u.TOLD] + self.pieces * self._unit[u.TOLD_PIECE]
        return self._of.processes * each

    def files(self) -> float:
        """Files of a checkpoint."""
        target = max(TARGET_FILE, self._of.nbytes / MOST_FILES)
        more = max(0, -(-self.written() // target) - 1)
        return self._unit[u.FILES] + self._of.processes * (self._unit[u.FILES_PROCESS] + more)

    def save_time(self) -> float:
        """Seconds for a process to write its values."""
        return self.written() / 1e9 * self._unit[u.SAVE_GB]

    def save_calls_time(self) -> float:
        """Seconds that a save takes for the number of its arrays, whatever their size."""
        return self._of.variables * self._of.devices * self._unit[u.SAVE_PIECE]

    def restore_time(self) -> float:
        """Seconds for a process to read its values."""
        return self.read() / 1e9 * self._unit[u.RESTORE_GB]


def costs_table(every: Sequence[Costs], scenarios: Sequence[Scenario] = SCENARIOS) -> str:
    """All costs, a column per scenario."""
    rows: list[tuple[str, Callable[[Costs], float], Callable[[float], str]]] = [
        ("**Names.** Specs in each process", Costs.description, _bytes),
        ("`model.specs` under a rule, on one core", Costs.specs_time, _time),
        ("Fingerprint for `check_processes`, on one core", Costs.fingerprint_time, _time),
        ("**Values** on a device", Costs.on_device, _bytes),
        ("**Save.** Values that a process writes", Costs.written, _bytes),
        ("Checksums that a process receives", Costs.gathered, _bytes),
        ("`variables.jaxvars`, the record", Costs.record, _bytes),
        ("Memory of process 0 beside its values: the above", Costs.memory, _bytes),
        ("`_sharding` of Orbax", Costs.shardings, _bytes),
        ("`_METADATA` of Orbax, the names", Costs.names, _bytes),
        ("`array_metadatas` of Orbax, all files", Costs.array_metadata, _bytes),
        ("Index of OCDBT", Costs.index, _bytes),
        ("Files", Costs.files, _count),
        ("Time for the bytes, if the disk were ours alone", Costs.save_time, _time),
        ("Time for the number of arrays", Costs.save_calls_time, _time),
        ("**Restore.** Values that a process reads", Costs.read, _bytes),
        ("What it reads beside them", Costs.read_beside, _bytes),
        ("What all processes read beside them", lambda costs: 1000 * costs.read_beside(), _bytes),
        ("Answers of the coordination service to a process", Costs.told, _bytes),
        ("Time for the bytes, if the disk were ours alone", Costs.restore_time, _time),
    ]
    head = ["", *(scenario.title for scenario in scenarios)]
    lines = [_row(head), _row(["---", *["---:"] * len(scenarios)])]
    lines += [_row([title, *(form(cost(costs)) for costs in every)]) for title, cost, form in rows]
    return "\n".join(lines)


def units_table(unit: dict[str, float]) -> str:
    """The unit costs, as they were measured."""
    rows = [
        ("specs in memory, per variable", u.IN_MEMORY, _bytes),
        ("specs, pickled, per variable", u.PICKLED, _bytes),
        ("`model.specs` under a rule, per variable", u.SPECS, _microseconds),
        ("fingerprint, per variable", u.FINGERPRINT, _microseconds),
        (u.RECORD, u.RECORD, _bytes),
        (u.RECORD_PIECE, u.RECORD_PIECE, _bytes),
        (u.NAMES, u.NAMES, _bytes),
        (u.SHARDING, u.SHARDING, _bytes),
        (u.SHARDING_DEVICE, u.SHARDING_DEVICE, _bytes),
        (u.ARRAYS, u.ARRAYS, _bytes),
        (u.INDEX, u.INDEX, _bytes),
        (u.INDEX_PIECE, u.INDEX_PIECE, _bytes),
        (u.GATHERED, u.GATHERED, _bytes),
        (u.GATHERED_PROCESS, u.GATHERED_PROCESS, _bytes),
        (u.TOLD, u.TOLD, _bytes),
        (u.TOLD_PIECE, u.TOLD_PIECE, _bytes),
        (u.FILES, u.FILES, _count),
        (u.FILES_PROCESS, u.FILES_PROCESS, _count),
        (u.COLLECTIVES, u.COLLECTIVES, _count),
        (u.BARRIERS, u.BARRIERS, _count),
        (u.RESTORE_BARRIERS, u.RESTORE_BARRIERS, _count),
        (u.SAVE_PIECE, u.SAVE_PIECE, _time),
        (u.SAVE_GB, u.SAVE_GB, _time),
        (u.RESTORE_GB, u.RESTORE_GB, _time),
    ]
    lines = [_row(["unit", "cost"]), _row(["---", "---:"])]
    return "\n".join([*lines, *(_row([title, form(unit[case])]) for title, case, form in rows)])


def unit_costs() -> dict[str, float]:
    """Case of the section `units` -> its median."""
    (section,) = load(["units"])
    return {name: case.figure[0] for table in section.tables for name, case in table.cases.items()}


def page(text: str) -> str:
    """The text of docs/scale.md with the tables of what was measured."""
    unit = unit_costs()
    tables = {
        "units": units_table(unit),
        "costs": costs_table([Costs(unit, scenario) for scenario in SCENARIOS]),
    }
    return _BLOCK.sub(lambda found: f"{found[1]}{tables[found[2]]}\n{found[3]}", text)


def _bytes(value: float) -> str:
    """Three digits: ``29.8 B``, ``1.16 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
        value /= 1000
    raise AssertionError


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
    return _microseconds(seconds * 1e6)


def _microseconds(value: float) -> str:
    return f"{value:.3g} us"


def _count(value: float) -> str:
    return f"{round(value, 1):,.4g}" if value < 1000 else f"{value:,.0f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Write the page again."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
