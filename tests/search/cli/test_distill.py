"""The `polish` command and `search --polish`."""

import json
from pathlib import Path

import pytest

from search.study.reading import load_study, outcome
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.tiny_problem import TinyProblem


def test_a_search_that_could_not_polish_says_so_before_it_begins(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    """All of its training sentences are searched with."""
    run = tmp_path / "run"
    settings = ["--model", tiny.model, "--data", tiny.data, "--quantizer", "affine", "--sensitivity", "gradient"]
    result = bitfront("search", *settings, "--run", run, "--trials", 9, "--polish")
    assert result.status == 2
    assert "polishing needs 2 training sentences" in " ".join(result.err.split())
    assert not run.exists()


def test_polished_maps_are_checkpoints_that_score_what_the_table_says(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = ["--model", roomy.model, "--data", roomy.data, "--quantizer", "affine", "--sensitivity", "gradient"]
    result = bitfront("search", *settings, "--run", run, "--trials", 12, "--polish")
    assert result.status == 0, result.err
    polished = rows(run / "polished.csv")
    picks = {row["number"] for row in polished}
    assert picks
    found = outcome(load_study(run / "study.journal"), "run")
    for row in polished:
        trial = found.trials[int(row["number"])]
        assert trial.scores is not None
        assert float(row["damage_before"]) == pytest.approx(trial.scores.damage, abs=1e-6)
        assert float(row["damage_after_low"]) <= float(row["damage_after"]) <= float(row["damage_after_high"])
        assert (float(row["held_out_damage_after"]) < float(row["held_out_damage_before"])) == (row["kept"] == "True")
        assert row["checkpoint"] in (run / "report.html").read_text(encoding="utf-8")

    row = polished[-1]
    said = bitfront("evaluate", "--checkpoint", run / row["checkpoint"], *settings[:4], "--json")
    assert json.loads(said.out)["damage"] == pytest.approx(float(row["damage_after"]), abs=1e-9)
    assert json.loads(said.out)["packed_bytes"] == found.footprint.packed_bytes(
        found.trials[int(row["number"])].bit_map
    )

    # A copy of it, as small and as good.
    export = ("export", "--run", run, "--polished", "--trial", row["number"], "--out", tmp_path / "copy", "--format")
    assert bitfront(*export, "json").status == 2
    result = bitfront(*export, "packed")
    assert result.status == 0, result.err
    copied = bitfront("evaluate", "--checkpoint", tmp_path / "copy", *settings[:4], "--json")
    assert json.loads(copied.out) == json.loads(said.out)
    assert "exists already" in bitfront(*export, "packed").err

    # One more joins the table, and what is there is not polished again.
    before = (run / row["checkpoint"] / "bitfront.json").stat().st_mtime_ns
    other = next(trial.number for trial in found.trials if str(trial.number) not in picks)
    result = bitfront(
        "export", "--run", run, "--polished", "--trial", other, "--out", tmp_path / "x", *export[-1:], "packed"
    )
    assert "is not polished" in " ".join(result.err.split())
    result = bitfront("polish", "--run", run, "--trial", other)
    assert result.status == 0, result.err
    assert "damage" in result.out
    assert result.out.splitlines()[-1].startswith(f"next: bitfront evaluate --checkpoint {run}/polished/")
    assert bitfront("polish", "--run", run).status == 0
    assert {row["number"] for row in rows(run / "polished.csv")} == picks | {str(other)}
    assert (run / row["checkpoint"] / "bitfront.json").stat().st_mtime_ns == before

    result = bitfront("polish", "--run", run, "--epochs", 2)
    assert "was polished with --epochs 1" in " ".join(result.err.split())

    # Broken off between a checkpoint and the table: the checkpoint says it all.
    table = (run / "polished.csv").read_text(encoding="utf-8")
    (run / "polished.csv").unlink()
    assert bitfront("polish", "--run", run).status == 0
    assert {row["number"] for row in rows(run / "polished.csv")} == picks
    assert set((run / "polished.csv").read_text(encoding="utf-8").splitlines()) <= set(table.splitlines())
    assert (run / row["checkpoint"] / "bitfront.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pick", "best@8x", "--trial", "1"], "--pick and --trial each name a map"),
        (["--pick", "best@99x"], "no evaluated map is that small"),
        (["--trial", "999"], "has no such trial"),
    ],
)
def test_what_cannot_be_polished_is_one_message(
    finished_run: Path, bitfront: Command, arguments: list[str], said: str
) -> None:
    result = bitfront("polish", "--run", finished_run, *arguments)
    assert result.status == 2
    assert said in result.err
    assert not (finished_run / "polished").exists()
