"""docs/scale.md: its tables are those that the measured unit costs give, and what is measured is what is meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import scale_model, units, units_together
from benchmarks.scale_model import PAGE, SCENARIOS, Costs, Scenario

ONE_OF_EACH = {
    value: 1.0 for name, value in vars(units).items() if name.isupper() and isinstance(value, str) and name != "TITLE"
}


def test_the_page_has_what_was_measured():
    text = PAGE.read_text(encoding="utf-8")
    assert scale_model.page(text) == text
    assert set(re.findall(r"<!-- figures: (\w+) -->", text)) == {"costs", "units"}


def test_every_unit_was_measured_and_is_shown():
    unit = scale_model.unit_costs()
    assert set(ONE_OF_EACH) <= set(unit)
    table = scale_model.units_table(unit)
    assert table.count("\n") > 15 and "nan" not in table


def test_values_are_read_and_written_once():
    costs = Costs(ONE_OF_EACH, Scenario("", 10, 64, parameters=1e9, processes=16, devices=8))
    assert costs.on_device() == 4e9 / 64
    assert costs.written() == 4e9 / 16
    assert costs.read() == 8 * 4e9 / 64  # two copies in all
    assert Costs(ONE_OF_EACH, Scenario("", 10, 1, parameters=1e9)).read() == 4e9


def test_what_grows_with_what():
    def costs(**changes: Any) -> Costs:
        return Costs(ONE_OF_EACH, Scenario("", **{"variables": 100, "pieces": 64, "processes": 10, **changes}))

    base, pieces = costs(), costs(pieces=128)
    processes, variables = costs(processes=20), costs(variables=200)
    assert pieces.record() - base.record() == 64 * 100
    assert base.record() == processes.record() == variables.record() / 2
    assert processes.shardings() - base.shardings() == 100 * 10 * 8
    assert processes.array_metadata() == 2 * base.array_metadata()
    one_file_each = costs(parameters=1e7)
    assert one_file_each.files() == 1 + 10  # 4 MB of each process
    assert costs(parameters=1e10).files() == 1 + 10 * (1 + 25)  # 4 GB of a process, in files of 156 MB
    assert base.read_beside() < pieces.read_beside() < variables.read_beside()


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0.5, "0.5 B"), (29.8, "29.8 B"), (999.6, "1 kB"), (1160e6, "1.16 GB"), (320e9, "320 GB"), (16e15, "16000 TB")],
)
def test_bytes_for_people(nbytes: float, text: str):
    assert scale_model._bytes(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(8e-6, "8 us"), (0.002, "2 ms"), (2.04, "2 s"), (90, "1.5 min"), (7200, "2 h")]
)
def test_times_for_people(seconds: float, text: str):
    assert scale_model._time(seconds) == text


def test_a_line_is_found_again():
    sizes = np.array([20.0, 60, 120])
    assert units._fit([np.ones(3), sizes], 7 + 3 * sizes) == pytest.approx([7, 3])


def test_the_files_of_a_checkpoint_are_told_apart(tmp_path: Path):
    (tmp_path / "state" / "d").mkdir(parents=True)
    (tmp_path / "state" / "d" / "0").write_bytes(b"12345")
    (tmp_path / "variables.jaxvars").write_bytes(b"123")
    sizes = units_together.file_sizes(str(tmp_path))
    assert sizes == {"state/d/0": 5, "variables.jaxvars": 3}
    found = [{"variables": 4, "files": sizes, "save": {"gathered": 1}}]
    other = [{"variables": 4, "files": {}, "save": {"gathered": 6}}]
    at = units._Points({(2, 3): [found, other]})
    assert (at.pieces.tolist(), at.files("/d/").tolist(), at.most("save", "gathered").tolist()) == ([24], [5], [6])


def test_the_scenarios_are_those_of_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert all(scenario.title in text and scenario.nbytes == 40e9 for scenario in SCENARIOS)


def test_sizes_are_those_of_the_code():
    from jaxvars.checkpoint import shard_reading
    from jaxvars.checkpoint.formats import orbax_save

    assert (scale_model.TARGET_FILE, scale_model.MOST_FILES) == (
        orbax_save._DATA_FILE_BYTES,
        orbax_save._MOST_DATA_FILES,
    )
    assert (scale_model.AT_ONCE, scale_model.PARTS) == (shard_reading._BYTES_AT_ONCE, shard_reading._PART_AT_ONCE)
