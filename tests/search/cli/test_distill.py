"""The `distill` command, its older name `polish`, and `search --polish`."""

import json
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

from objectives.training import distillation
from objectives.training.distillation import loss_of
from results.report.distilled import read_distilled
from results.statistics.analysis import analyse, select
from search.cli.app import main
from search.run.distilling import maps_to_distil
from search.samplers.guided import GuidedSampler
from search.study.reading import load_study, outcome
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.forks import fork
from tests.search.tiny_problem import TinyProblem
from tests.waiting import wait_until


def quick_search(problem: TinyProblem) -> tuple[object, ...]:
    """Return the settings of a search that calibrates and measures as little as it can."""
    return ("--model", problem.model, "--data", problem.data, "--quantizer", "affine", "--sensitivity", "gradient")


def test_a_search_that_could_not_distil_says_so_before_it_begins(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    """All of its training sentences are searched with."""
    run = tmp_path / "run"
    result = bitfront("search", *quick_search(tiny), "--run", run, "--trials", 9, "--polish")
    assert result.status == 2
    assert "distillation needs 2 training sentences" in " ".join(result.err.split())
    assert not run.exists()


def test_distilled_maps_are_checkpoints_that_score_what_the_table_says(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "_BATCH_TOKENS", 64)
    run = tmp_path / "run"
    result = bitfront("search", *quick_search(roomy), "--run", run, "--trials", 12, "--unseen", 10, "--polish")
    assert result.status == 0, result.err
    distilled = rows(run / "distilled.csv")
    picks = {row["number"] for row in distilled}
    assert picks
    found = outcome(load_study(run / "study.journal"), "run")
    assert found.unseen is not None
    for row in distilled:
        trial = found.trials[int(row["number"])]
        assert trial.scores is not None
        assert float(row["damage_before"]) == pytest.approx(trial.scores.damage, abs=1e-6)
        assert float(row["damage_after_low"]) <= float(row["damage_after"]) <= float(row["damage_after_high"])
        change = float(row["damage_after"]) - float(row["damage_before"])
        assert float(row["damage_change"]) == pytest.approx(change, abs=1e-9)
        assert float(row["damage_change_low"]) <= change <= float(row["damage_change_high"])
        on_unseen = found.head.divergences(found.unseen.log_odds[trial.number], found.unseen.fp32_log_odds).mean()
        assert float(row["unseen_before"]) == pytest.approx(on_unseen, abs=1e-6)
        assert float(row["unseen_after_low"]) <= float(row["unseen_after"]) <= float(row["unseen_after_high"])
        assert row["holdout_damage_after"] == ""  # this run has no holdout set
        assert (float(row["held_out_damage_after"]) < float(row["held_out_damage_before"])) == (row["kept"] == "True")
        assert (row["trained"], row["epochs"]) == ("scales", "1")
        assert row["checkpoint"] in (run / "report.html").read_text(encoding="utf-8")

    row = distilled[-1]
    number = row["number"]
    said = bitfront("evaluate", "--checkpoint", run / row["checkpoint"], *quick_search(roomy)[:4], "--json")
    assert json.loads(said.out)["damage"] == pytest.approx(float(row["damage_after"]), abs=1e-9)
    packed_bytes = found.footprint.packed_bytes(found.trials[int(number)].bit_map)
    assert json.loads(said.out)["packed_bytes"] == packed_bytes

    # A copy of it, as small and as good. Without --distilled it is the map as searched.
    export = ("export", "--run", run, "--polished", "--trial", number, "--out", tmp_path / "copy", "--format")
    assert bitfront(*export, "json").status == 2
    result = bitfront(*export, "packed")
    assert result.status == 0, result.err
    copied = bitfront("evaluate", "--checkpoint", tmp_path / "copy", *quick_search(roomy)[:4], "--json")
    assert json.loads(copied.out) == json.loads(said.out)
    assert "exists already" in bitfront(*export, "packed").err

    # Another map, with its codes, joins the table; what is there is not distilled again.
    before = (run / row["checkpoint"] / "bitfront.json").stat().st_mtime_ns
    other = next(trial.number for trial in found.trials if str(trial.number) not in picks)
    result = bitfront(
        "export", "--run", run, "--distilled", "--trial", other, "--out", tmp_path / "x", *export[-1:], "packed"
    )
    assert "is not distilled" in " ".join(result.err.split())
    weights = ("distill", "--run", run, "--trial", other, "--train", "weights")
    result = bitfront(*weights, "--epochs", 2)
    assert result.status == 0, result.err
    assert result.out.splitlines()[-1].startswith(f"next: bitfront evaluate --checkpoint {run}/distilled/")
    result = bitfront("polish", "--run", run)
    assert "`polish` is now `distill`" in result.err
    assert {row["number"] for row in rows(run / "distilled.csv")} == picks | {str(other)}
    assert (run / row["checkpoint"] / "bitfront.json").stat().st_mtime_ns == before
    assert "was distilled with --epochs 2" in " ".join(bitfront(*weights, "--epochs", 3).err.split())
    [trained] = [one for one in read_distilled(run) if one.number == other]
    said = bitfront("evaluate", "--checkpoint", run / trained.checkpoint, *quick_search(roomy)[:4], "--json")
    assert json.loads(said.out)["damage"] == pytest.approx(trained.damage_after, abs=1e-9)
    assert json.loads(said.out)["packed_bytes"] == found.footprint.packed_bytes(found.trials[other].bit_map)

    # Broken off between a checkpoint and the table: the checkpoint says it all.
    table = (run / "distilled.csv").read_text(encoding="utf-8")
    (run / "distilled.csv").unlink()
    assert bitfront("distill", "--run", run).status == 0
    assert {row["number"] for row in rows(run / "distilled.csv")} == picks
    assert set((run / "distilled.csv").read_text(encoding="utf-8").splitlines()) <= set(table.splitlines())
    assert (run / row["checkpoint"] / "bitfront.json").stat().st_mtime_ns == before


def test_what_was_stopped_is_kept_and_continued(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "_BATCH_TOKENS", 16)
    run = tmp_path / "run"
    search = ("search", *quick_search(roomy), "--run", run, "--trials", 9, "--unseen", 10, "--confirm", 0.3)
    assert bitfront(*search).status == 0
    distill = ("distill", "--run", run, "--trial", 8, "--train", "weights")
    assert bitfront(*distill).status == 0
    [whole] = rows(run / "distilled.csv")
    assert whole["holdout_damage_after"] and whole["holdout_mcc_after_low"]
    (run / whole["checkpoint"]).rename(tmp_path / "whole")

    def interrupted(*arguments: Any) -> Tensor:
        if next(steps) == 9:
            signal.raise_signal(signal.SIGINT)
        return loss_of(*arguments)

    steps = iter(range(1000))
    monkeypatch.setattr(distillation, "loss_of", interrupted)
    result = bitfront(*distill)
    assert result.status == 0, result.err
    assert "the best model so far is kept, and the same command continues" in " ".join(result.err.split())
    stopped = json.loads((run / whole["checkpoint"] / "bitfront.json").read_text(encoding="utf-8"))
    assert not stopped["provenance"]["distilled"]["finished"]
    assert "unseen_after" in stopped["provenance"]["distilled"]
    assert "holdout_damage_after" not in stopped["provenance"]["distilled"]  # that waits for the map as it ends
    assert bitfront(*distill).status == 0
    assert rows(run / "distilled.csv") == [whole]
    packed = [where / "packed.safetensors" for where in (run / whole["checkpoint"], tmp_path / "whole")]
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert sorted(path.name for path in (run / "distilled").iterdir()) == [Path(whole["checkpoint"]).name]


@pytest.mark.slow
def test_a_distillation_stopped_and_killed_ends_in_the_same_bytes(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    """Each start is a process of its own, which is told to stop, or is killed, in the middle of its training."""
    run = tmp_path / "run"
    assert bitfront("search", *quick_search(roomy), "--run", run, "--trials", 9, "--unseen", 10).status == 0

    def start(save_every_s: float) -> BaseProcess:
        def distil() -> None:
            distillation._SAVE_EVERY_S = save_every_s
            words = ("distill", "--run", run, "--trial", 8, "--train", "weights", "--epochs", 30)
            sys.argv = ["bitfront", *map(str, words)]
            main()

        return fork(distil)

    def ended(process: BaseProcess) -> int | None:
        process.join(timeout=300)
        return process.exitcode

    assert ended(start(180.0)) == 0
    [whole] = rows(run / "distilled.csv")
    checkpoint, undisturbed = run / whole["checkpoint"], tmp_path / "undisturbed"
    checkpoint.rename(undisturbed)
    state = checkpoint.with_name(f"{checkpoint.name}.training.safetensors")

    def step() -> int:
        if not state.exists():
            return 0
        with safe_open(state, framework="pt") as file:
            return int(file.metadata()["step"])

    def after(steps: int, number: signal.Signals) -> int | None:
        """Start, send a signal once so many steps are saved, and return the exit code."""
        process = start(0.0)
        wait_until(lambda: step() >= steps or not process.is_alive(), timeout_s=300, pause_s=0.001)
        assert process.pid is not None
        os.kill(process.pid, number)
        return ended(process)

    assert after(5, signal.SIGKILL) == -signal.SIGKILL
    assert not checkpoint.exists()
    killed_at = step()
    assert after(killed_at + 15, signal.SIGINT) == 0
    # What was stopped is a checkpoint that loads and scores, and says that it is not finished.
    assert step() >= killed_at + 15
    manifest = json.loads((checkpoint / "bitfront.json").read_text(encoding="utf-8"))
    assert not manifest["provenance"]["distilled"]["finished"]
    evaluate = ("evaluate", "--checkpoint", checkpoint, *quick_search(roomy)[:4], "--json")
    said = bitfront(*evaluate).out
    [stopped] = rows(run / "distilled.csv")
    assert json.loads(said)["damage"] == pytest.approx(float(stopped["damage_after"]), abs=1e-9)
    assert after(step() + 15, signal.SIGKILL) == -signal.SIGKILL
    assert bitfront(*evaluate).out == said

    assert ended(start(180.0)) == 0
    assert not state.exists()
    assert rows(run / "distilled.csv") == [whole]
    for name in ("packed.safetensors", "bitfront.json"):
        assert (checkpoint / name).read_bytes() == (undisturbed / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pick", "best@8x", "--trial", "1"], "--pick and --trial each name a map"),
        (["--pick", "best@99x"], "no evaluated map is that small"),
        (["--trial", "999"], "has no such trial"),
        (["--train", "both"], "--train must be scales or weights, not 'both'"),
    ],
)
def test_what_cannot_be_distilled_is_one_message(
    finished_run: Path, bitfront: Command, arguments: list[str], said: str
) -> None:
    result = bitfront("distill", "--run", finished_run, *arguments)
    assert result.status == 2
    assert said in result.err
    assert not (finished_run / "distilled").exists()


def test_the_rest_of_the_hours_goes_into_distilling(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picks from the smallest up, then maps of sizes in between."""
    monkeypatch.setattr(GuidedSampler, "_nothing_left", lambda sampler, trials: True)
    run = tmp_path / "run"
    limits = ("--hours", 1, "--unseen", 10, "--confirm", 0.3)
    result = bitfront("search", *quick_search(roomy), "--run", run, *limits, "--distill", "scales")
    assert result.status == 0, result.err
    found = outcome(load_study(run / "study.journal"), "run")
    selection = select(found)
    picks, night = maps_to_distil(selection), maps_to_distil(selection, between=True)
    assert {trial.number for trial in night} == {int(row["number"]) for row in rows(run / "distilled.csv")}
    sizes = [trial.nominal_compression for trial in picks]
    assert picks == night[: len(picks)] and sizes == sorted(sizes, reverse=True)
    assert len(night) > len(picks) and {trial.number for trial in night[len(picks) :]} <= selection.front_numbers
    # On the holdout set the figures as searched are those of the final checks, for all maps that these scored.
    checked = analyse(found).holdout
    distilled = [one for one in read_distilled(run) if one.number in checked]
    assert len(distilled) > 1
    for one in distilled:
        known = checked[one.number]
        assert one.holdout_damage_before == pytest.approx(known.damage, abs=1e-6)
        assert one.holdout_damage_before_low == pytest.approx(known.damage_interval.low, abs=1e-6)
        assert one.holdout_metric_before == pytest.approx(known.metric, abs=1e-6)
        assert one.holdout_metric_before_low == pytest.approx(known.metric_interval.low, abs=1e-6)
