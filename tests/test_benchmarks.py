"""The benchmark suite: how samples become tables and goals, and that RESULTS.md says what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, scale, states
from benchmarks.__main__ import PICTURE, RESULTS, SECTIONS
from benchmarks.measure import AGAIN, Claim, Table, exponent, interleaved, spread
from benchmarks.picture import draw, library
from benchmarks.report import document, section_text, table_text
from benchmarks.results import SectionResult, load, reduced, save

ROOT = Path(__file__).parents[1]
NAN = float("nan")


def _table(**fields: object) -> Table:
    samples = {
        "raw": [10.0, 20.0, 40.0],
        "raw" + AGAIN: [10.0, 22.0, 40.0],
        "ours": [11.0, 21.0, 44.0],
        "slow": [90.0, NAN, NAN],
    }
    return Table(**{"title": "a step", "unit": "us", "samples": samples, "base": "raw", **fields})  # type: ignore[arg-type]


def _section(*tables: Table) -> SectionResult:
    about = ("step", "A title: of steps", "python -m benchmarks", "2026-01-02", "2 cores", "jaxvars 1", 0.5, 3.0)
    return SectionResult(*about, [reduced(table) for table in tables])


# -- figures --------------------------------------------------------------------------------------------------


def test_spread_leaves_out_rounds_without_a_sample():
    assert spread([1.0, NAN, 2.0, 3.0])[0] == 2.0
    middle, low, high = spread(range(11))
    assert (middle, low, high) == (5.0, 1.0, 9.0)


def test_ratios_are_taken_round_by_round():
    # The medians' ratio would be 21 / 20.
    assert _table().ratio("ours")[0] == pytest.approx(1.1)
    assert _table().ratio("slow")[0] == 9.0
    assert _table().ratio("raw", "slow")[0] == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    ("claim", "found", "met"),
    [
        (Claim("ours", "raw", at_most=1.1001), 1.1, True),
        (Claim("ours", "raw", at_most=1.09), 1.1, False),
        (Claim("ours", at_most=21), 21, True),
        (Claim("ours", at_most=20), 21, False),
        (Claim("raw", "slow", faster=9), 9, True),
        (Claim("raw", "slow", faster=9.1), 9, False),
        (Claim("ours", "raw", plus=1), 1, True),
        (Claim("ours", "raw", plus=0.5), 1, False),
    ],
)
def test_claims_are_judged_by_the_median(claim: Claim, found: float, met: bool):
    figures, holds = _table().judge(claim)
    assert figures[0] == pytest.approx(found)
    assert holds is met


@pytest.mark.parametrize("bounds", [{}, {"faster": 2}, {"at_most": 1, "base": "raw", "plus": 1}, {"plus": 1}])
def test_a_claim_has_one_bound(bounds: dict[str, object]):
    with pytest.raises(ValueError, match="a claim has one bound"):
        Claim("ours", **bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.9])
def test_the_exponent_of_a_power(power: float):
    sizes = (100, 1000, 10_000)
    assert exponent(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)


def test_every_case_runs_in_every_round_unless_it_is_slow():
    calls = {"a": 0, "b": 0}

    def count(name: str) -> None:
        calls[name] += 1

    samples = interleaved({"a": lambda: count("a"), "b": lambda: count("b")}, rounds=5, calls=3, every={"b": 3}, warm=1)
    assert calls == {"a": 1 + 5 * 3, "b": 1 + 2 * 3}
    assert np.isnan(samples["b"]).tolist() == [False, True, True, False, True]
    assert not np.isnan(samples["a"]).any()


# -- RESULTS.md -----------------------------------------------------------------------------------------------


def test_a_table_shows_goals_beside_and_below():
    claims = [Claim("ours", "slow", faster=2), Claim("ours", "raw", plus=0.5)]
    text = table_text(reduced(_table(goals={"ours": 1.2}, limits={"ours": 20.0}, note="A note.", claims=claims)))
    assert "| ours | 3 | 21 | 13 | 39.4 | 1.100 | 1.06..1.10 | <= 1.2x: met; <= 20 us: **not met** |" in text
    assert "| slow | 1 | 90 | 90 | 90 | 9.000 | 9.00..9.00 |  |" in text
    assert "A note.\n\n- ours at least 2 times as fast as slow: 8.18 times (8.18..8.18), met.\n" in text
    assert "- ours at most raw + 0.5 us: + 1 (1..3.4) us, **not met**.\n" in text


def test_a_control_of_another_case_than_the_base_is_shown_below():
    samples = {"raw": [1.0, 1.0], "ours": [2.0, 2.0], "ours" + AGAIN: [2.0, 4.0]}
    assert "A/A control of ours: 1.5x (1.1..1.9)." in table_text(reduced(Table("t", "us", samples, "raw")))
    assert "A/A control of raw" not in table_text(reduced(_table()))


def test_all_goals_stand_at_the_top():
    text = document([_section(_table(goals={"ours": 1.2}, limits={"slow": 10.0}))], "picture.svg")
    assert "## Goals: 1 of 2 met" in text
    assert "| a step: ours at most 1.2 x raw | 1.1x (1.06..1.1) | met | [step](#a-title-of-steps) |" in text
    assert text.index("## Goals") < text.index("](picture.svg)") < text.index("## A title: of steps")


def test_a_section_says_how_when_and_where():
    text = section_text(_section(_table()))
    assert "`python -m benchmarks`, 2026-01-02, 3 s, load average before it 0.5.\n2 cores. jaxvars 1.\n" in text


def test_sections_are_kept_and_read_back(tmp_path: Path):
    section = _section(_table(goals={"ours": 1.2}, note='[1, "x"] and\nmore', size=100))
    save(section, tmp_path)
    assert load(["other", "step"], tmp_path) == [section]
    assert "[10.0, 40.0]" not in (tmp_path / "step.json").read_text()  # percentiles, no samples


def test_results_md_is_made_from_what_was_measured():
    assert RESULTS.read_text(encoding="utf-8") == document(load(SECTIONS), PICTURE)
    assert (RESULTS.parent / PICTURE).exists()


def test_every_kept_section_exists_and_every_section_has_a_title():
    kept = {path.stem for path in (RESULTS.parent / "results").glob("*.json")}
    assert kept <= set(SECTIONS)


def test_every_table_with_ratios_has_a_control():
    without = [
        f"{section.name}: {table.title}"
        for section in load(SECTIONS)
        for table in section.tables
        if section.seconds and table.base is not None and not table.controls  # 0 s: from before there were JSON files
    ]
    assert not without


# -- the picture ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("jv.checkpoint (Orbax)", "jaxvars"),
        ("jax.jit(Haiku init)", "Haiku"),
        ("nnx.split, jax.jit, nnx.update", "Flax NNX"),
        ("Equinox modules, filter_jit", "Equinox"),
        ("TensorFlow's Saver", "TensorFlow"),
        ("raw tuple", "raw JAX, dicts"),
    ],
)
def test_a_case_belongs_to_a_library(case: str, name: str):
    assert library(case) == name


def test_the_picture_shows_ratios_and_growth(tmp_path: Path):
    samples = {"raw tuple": [1.0], "jv.Variables": [2.0]}
    grown = [Table(f"of {size}", "us", samples, size=size) for size in (100, 1000)]
    path = tmp_path / "picture.svg"
    draw([_section(Table("ratios", "us", samples, "raw tuple"), *grown)], path)
    first = path.read_bytes()
    draw([_section(Table("ratios", "us", samples, "raw tuple"), *grown)], path)
    assert b"<svg" in first
    assert path.read_bytes() == first  # no dates and no random names: it changes with the figures only


# -- the sections ---------------------------------------------------------------------------------------------


def test_states_of_every_kind_have_the_same_leaves():
    import jax

    kinds = states.all_kinds(20)
    assert {"raw tuple", "raw tuple" + AGAIN, "jv.Variables", "flat dict"} <= set(kinds)
    for kind, state in kinds.items():
        assert sorted(float(leaf) for leaf in jax.tree.leaves(state)) == list(range(20)), kind


def test_operations_that_are_scaled_run(tmp_path: Path):
    subject = scale.Subject(20, tmp_path)
    for name, operation in scale.OPERATIONS.items():
        assert operation.run(subject) is not None or "look up" in name


def test_without_peers_only_jaxvars_is_measured(monkeypatch: pytest.MonkeyPatch):
    for peer in ("haiku", "linen", "equinox"):
        monkeypatch.setattr(peers, peer, lambda: False)
    assert set(states.all_kinds(10)) == {
        "raw tuple", "raw tuple" + AGAIN, "jv.Variables", "flat dict", "nested dict (Haiku, Linen)",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("section", ["dispatch", "trees"])
def test_the_command_measures_a_section_and_writes_nothing_when_quick(section: str):
    before = RESULTS.read_bytes()
    command = [sys.executable, "-m", "benchmarks", section, "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| raw tuple (again: A/A control) | 11 |" in done.stdout
    assert RESULTS.read_bytes() == before


def test_the_command_names_the_sections_there_are():
    command = [sys.executable, "-m", "benchmarks", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no section nonsense; there are import, dispatch" in done.stderr
