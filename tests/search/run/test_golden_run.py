"""A run that an earlier version wrote (tests/assets/golden_run) is still read, reported, exported and continued."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from search.study.reading import load_study, outcome
from tests.search.conftest import Command
from tests.shared import ROOT

GOLDEN = ROOT / "tests" / "assets" / "golden_run"
TRIALS = 32


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "golden_run"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cell(text: str) -> str | float:
    """Return a table's cell, as a number if it has a decimal point or an exponent."""
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text) and not text.isdigit() else text


def same(text: str, golden: str) -> bool:
    """Return whether two cells are equal; another version of numpy may give other last digits."""
    expected = cell(golden)
    return cell(text) == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected)


def assert_same_table(written: Path, golden: Path) -> None:
    """Compare the columns that both tables have, row by row."""
    new, old = rows(written), rows(golden)
    assert len(new) == len(old)
    shared = [column for column in old[0] if column in new[0]]
    assert {"pick", "number", "label", "damage"} & set(old[0]) <= set(shared)
    for row, before in zip(new, old, strict=True):
        assert not [column for column in shared if not same(row[column], before[column])], before


def test_it_is_reported_with_the_same_figures(run: Path, bitfront: Command) -> None:
    result = bitfront("status", "--run", run)
    assert result.status == 0, result.err
    assert f"{TRIALS}/{TRIALS} trials" in result.out
    tables = ("trials.csv", "front.csv", "picks.csv", "unseen.csv")
    for table in tables:
        (run / table).unlink()
    result = bitfront("report", "--run", run)
    assert result.status == 0, result.err
    for table in (*tables, "polished.csv", "sensitivity.csv"):
        assert_same_table(run / table, GOLDEN / table)
    before, now = (
        {f"bitmaps/{path.name}": path.read_bytes() for path in (where / "bitmaps").glob("*.txt")}
        for where in (GOLDEN, run)
    )
    assert before.items() <= now.items()
    assert now.keys() - before.keys() <= {
        row["bit_map_text"] for row in rows(run / "picks.csv")
    }  # it had files of the front only
    polished = rows(GOLDEN / "polished.csv")[0]
    assert f"{float(polished['damage_after']):.3g}" in (run / "report.html").read_text(encoding="utf-8")


def test_its_maps_are_exported(run: Path, bitfront: Command, tmp_path: Path) -> None:
    for row in rows(GOLDEN / "picks.csv"):
        result = bitfront("export", "--run", run, "--pick", row["pick"], "--format", "json")
        assert result.status == 0, result.err
        assert "".join(map(str, json.loads(result.out)["bits"].values())) == row["bits"]
    out = tmp_path / "polished"
    result = bitfront("export", "--run", run, "--pick", "best@10.67x", "--polished", "--format", "packed", "--out", out)
    assert result.status == 0, result.err
    [checkpoint] = (GOLDEN / "polished").iterdir()
    assert (out / "packed.safetensors").read_bytes() == (checkpoint / "packed.safetensors").read_bytes()


def test_it_is_continued(run: Path, bitfront: Command) -> None:
    before = outcome(load_study(run / "study.journal"), "golden_run")
    result = bitfront("search", "--run", run, "--trials", TRIALS + 3, "--sensitivity", "gradient")  # the quick one
    assert result.status == 0, result.err
    after = outcome(load_study(run / "study.journal"), "golden_run")
    assert len(after.trials) == TRIALS + 3
    assert [(trial.bit_map, trial.scores) for trial in after.trials[:TRIALS]] == [
        (trial.bit_map, trial.scores) for trial in before.trials
    ]
    assert before.holdout is not None and not before.holdout.withdrawn
    assert after.holdout is not None and after.holdout.withdrawn
    assert (run / "search.log").read_bytes().startswith((GOLDEN / "search.log").read_bytes())
