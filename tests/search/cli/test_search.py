"""The `search` command: what it leaves, how it is continued and what it refuses."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from objectives.bit_maps import parse_bit_map
from objectives.problem import Problem, load_problem
from objectives.scores import LogOdds
from search.study.reading import load_study, outcome
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.tiny_problem import TinyProblem, make_tiny_problem


def test_a_search_leaves_a_complete_run_directory(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert {
        "run.toml",
        "study.journal",
        "search.log",
        "trials.csv",
        "front.csv",
        "report.html",
        "pareto.png",
        "pareto.svg",
        "bitmaps",
    } <= names
    assert len(rows(finished_run / "trials.csv")) == 20
    log = (finished_run / "search.log").read_text(encoding="utf-8")
    assert sum(": " in line and "nominal, damage" in line for line in log.splitlines()) == 20
    assert "uniform 2: 16.0000x nominal" in log


def test_the_front_is_non_dominated_feasible_and_its_maps_are_what_they_say(
    finished_run: Path, problem: Problem
) -> None:
    trials = {row["number"]: row for row in rows(finished_run / "trials.csv")}
    front = rows(finished_run / "front.csv")
    assert front
    for row in front:
        assert float(row["nominal_compression"]) >= 5.5
        better = [
            other["number"]
            for other in trials.values()
            if float(other["damage"]) < float(row["damage"])
            and float(other["nominal_compression"]) >= float(row["nominal_compression"])
            and other["feasible"] == "True"
        ]
        assert not better
        bit_map = tuple(int(width) for width in trials[row["number"]]["bits"])
        assert problem.footprint.compression(bit_map, "nominal") == float(row["nominal_compression"])
    for path in (finished_run / "bitmaps").glob("*.txt"):
        parsed = parse_bit_map(path.read_text(encoding="utf-8"), problem.layers, path.name)
        assert f"{problem.footprint.compression(parsed, 'nominal'):05.2f}x" in path.name
    named = {row["bit_map_text"] for row in [*front, *rows(finished_run / "picks.csv")]}
    assert {f"bitmaps/{path.name}" for path in (finished_run / "bitmaps").glob("*.txt")} == named


def test_starting_it_again_continues_it(finished_run: Path, bitfront: Command) -> None:
    before = outcome(load_study(finished_run / "study.journal"), "x").trials
    result = bitfront("search", "--run", finished_run, "--trials", 23)
    assert result.status == 0, result.err
    after = outcome(load_study(finished_run / "study.journal"), "x").trials
    assert len(after) == 23
    assert [trial.bit_map for trial in after[:20]] == [trial.bit_map for trial in before]
    result = bitfront("search", "--run", finished_run)  # it has what it was asked for
    assert result.status == 0
    assert len(outcome(load_study(finished_run / "study.journal"), "x").trials) == 23


def test_another_model_data_or_objective_is_refused_before_anything_is_scored(
    finished_run: Path, tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_tiny_problem(tmp_path, seed=1)
    monkeypatch.delattr("objectives.problem.Evaluator")
    result = bitfront("search", "--run", finished_run, "--model", other.model, "--data", other.data)
    assert result.status == 2
    assert "is another search" in result.err
    assert "model was" in result.err
    assert "sentences was" in result.err
    monkeypatch.delattr("objectives.problem.load_classifier")  # settings need no model
    result = bitfront("search", "--run", finished_run, "--quantizer", "affine")
    assert result.status == 2
    assert "quantizer was 'calibrated' and is now 'affine'" in " ".join(result.err.split())
    result = bitfront("search", "--run", finished_run, "--quality", "mcc", "--min-compression", "8", "--widths", "2,4")
    assert result.status == 2
    assert "quality was 'damage' and is now 'mcc'" in result.err
    assert "min_compression was 5.5 and is now 8.0" in result.err
    assert "widths was (2, 3, 4, 5, 6, 7, 8) and is now (2, 4)" in result.err


def test_a_run_whose_journal_is_gone_is_not_begun_anew_over_its_tables(
    finished_run: Path, bitfront: Command, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(finished_run, tmp_path / "copy"))
    (copy / "study.journal").write_bytes(b"")
    before = (copy / "trials.csv").read_bytes()
    for _ in range(2):
        result = bitfront("search", "--run", copy, "--trials", 40)
        assert result.status == 2 and "put it back from a copy" in " ".join(result.err.split())
        (copy / "study.journal").unlink(missing_ok=True)
    assert (copy / "trials.csv").read_bytes() == before


@pytest.mark.parametrize("confirm", ["nowhere", "1.5", "0.3@x"])
def test_what_is_no_share_and_no_directory_is_told_to_be_the_confirmations(
    confirm: str, tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    where = ("--model", tiny.model, "--data", tiny.data, "--run", tmp_path / "run")
    result = bitfront("search", *where, "--confirm", confirm)
    assert result.status == 2 and f"--confirm {confirm}: give none, a share below 1" in " ".join(result.err.split())


def test_reversed_labels_are_refused_before_anything_is_calibrated(
    bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("objectives.problem.make_bank")
    reversed_problem = make_tiny_problem(tmp_path / "reversed")
    path = reversed_problem.model / "model.safetensors"
    tensors = load_file(path)
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, path, {"format": "pt"})
    arguments = ("--model", reversed_problem.model, "--data", reversed_problem.data)
    result = bitfront("search", "--run", tmp_path / "run", *arguments)
    assert result.status == 2
    assert "labels are probably in another order" in " ".join(result.err.split())
    assert not (tmp_path / "run").exists()


def test_maps_whose_scores_are_not_finite_fail_and_the_search_goes_on(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from objectives.evaluation.evaluator import Evaluator

    honest = Evaluator.log_odds

    def broken(self: Evaluator, bit_map: tuple[int, ...], remember: bool = False) -> LogOdds:
        log_odds = honest(self, bit_map, remember)
        if set(bit_map) == {2}:
            log_odds[5] = float("nan")
        return log_odds

    monkeypatch.setattr(Evaluator, "log_odds", broken)
    result = bitfront("search", "--run", tmp_path / "run", "--model", tiny.model, "--data", tiny.data, "--trials", 10)
    assert result.status == 0, result.err
    first, *others = rows(tmp_path / "run" / "trials.csv")
    assert (first["label"], first["state"], first["on_front"]) == ("uniform 2", "failed", "False")
    assert "1 of 80 outputs are not finite" in first["failure"]
    assert {row["state"] for row in others} == {"complete"}


def test_a_seed_reproduces_a_run_exactly(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    maps = []
    for name in ("a", "b"):
        result = bitfront(
            "search",
            "--run",
            tmp_path / name,
            "--model",
            tiny.model,
            "--data",
            tiny.data,
            "--trials",
            15,
            "--sampler",
            "nsga2",
            "--seed",
            5,
        )
        assert result.status == 0, result.err
        maps.append([(row["bits"], row["damage"], row["mcc"]) for row in rows(tmp_path / name / "trials.csv")])
    assert maps[0] == maps[1]


def test_a_read_only_place_is_one_clear_line(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("x")
    result = bitfront("search", "--run", blocker / "run", "--model", tiny.model, "--data", tiny.data)
    assert result.status in (1, 2)
    assert "Traceback" not in result.err
    assert str(blocker) in result.err


def test_an_architecture_without_a_forward_of_ours_is_said_to_have_none(
    bitfront: Command, tmp_path: Path, tiny: TinyProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objectives.evaluation.evaluator.architecture_of", lambda model: None)
    run = tmp_path / "run"
    where = ("--model", tiny.model, "--data", tiny.data, "--run", run, "--trials", 9)
    result = bitfront("search", *where, "--sensitivity", "gradient", "--precision", "bf16")
    assert result.status == 0, result.err
    assert "transformers' forward in FP32 (BertForSequenceClassification has no faster one)" in " ".join(
        result.err.split()
    )
    assert {row["precision"] for row in rows(run / "trials.csv")} == {"fp32"}
    problem = load_problem(str(tiny.model), str(tiny.data), "bf16")
    assert problem.search_evaluator is problem.evaluator  # one copy of the model


def test_a_search_in_bf16_confirms_what_it_shows_in_fp32(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    where = ("--model", roomy.model, "--data", roomy.data, "--run", run)
    # Picks are made by the damage on unseen sentences, so that many are off a front of MCC.
    start = ("search", *where, "--unseen", 20, "--quality", "mcc", "--precision", "bf16")
    with monkeypatch.context() as patched:  # there is no time for the final checks
        patched.setattr("search.run.loop.checks_limit_s", lambda searched_s: 1e-9)
        ended = bitfront(*start, "--trials", 40)
        assert ended.status == 0 and ended.out.splitlines()[1].startswith(
            "Not complete  Its final checks had no time for "
        )
    before = rows(run / "trials.csv")
    assert {row["precision"] for row in before} == {"bf16"}
    assert "not scored again in FP32 yet" in (run / "report.html").read_text()
    assert outcome(load_study(run / "study.journal"), "x").unscored
    result = bitfront(*start, "--trials", 40)  # nothing to search: what is open is confirmed
    assert result.status == 0, result.err
    assert "Not complete" not in result.out and not (run / "phase.json").exists()
    assert "lean BERT forward in bf16" in (run / "search.log").read_text()
    after = rows(run / "trials.csv")
    told = {row["number"] for table in ("picks.csv", "unseen.csv") for row in rows(run / table)}
    on_show = [row for row in after if row["on_front"] == "True" or row["origin"] != "sampler" or row["number"] in told]
    assert any(row["on_front"] == "False" and row["origin"] == "sampler" for row in on_show)
    assert {row["precision"] for row in on_show} == {"fp32"}
    assert {row["precision"] for row in after} == {"fp32", "bf16"}
    assert "all scored again in FP32" in (run / "report.html").read_text()
    problem = load_problem(str(roomy.model), str(roomy.data), quantizer="calibrated")
    for row in on_show[:3]:
        scores = problem.evaluate(tuple(int(width) for width in row["bits"])).scores
        assert float(row["damage"]) == pytest.approx(scores.damage, rel=1e-6)
    assert [row["elapsed_s"] for row in after] == [row["elapsed_s"] for row in before]
    assert bitfront(*start[:-1], "fp32").status == 2  # the run's evaluations are bf16's
