import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from objectives.bit_maps import parse_bit_map
from objectives.layers import WIDTHS
from objectives.problem import Problem, load_problem
from objectives.scores import LogOdds
from search.cli import main
from search.reading import load_study, outcome
from search.run_directory import RunDirectory
from tests.search.conftest import Command
from tests.search.forks import fork
from tests.search.tiny_problem import TinyProblem, make_tiny_problem


def command_line(*arguments: object) -> list[str]:
    """Return the command line for a process of its own."""
    return [sys.executable, "-m", "search.cli", *(str(argument) for argument in arguments)]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished_run(tiny: TinyProblem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "tiny"
    command = command_line(
        "search", "--model", tiny.model, "--data", tiny.data, "--trials", 20, "--run", run, "--seed", 3
    )
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"report: {run}/report.html" in ended.stdout
    return run


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
        bits = tuple(int(width) for width in trials[row["number"]]["bits"])
        assert problem.footprint.compression(bits, "nominal") == float(row["nominal_compression"])
    for path in (finished_run / "bitmaps").glob("*.txt"):
        parsed = parse_bit_map(path.read_text(encoding="utf-8"), problem.layers, path.name)
        assert f"{problem.footprint.compression(parsed, 'nominal'):05.2f}x" in path.name
    assert len(list((finished_run / "bitmaps").glob("*.txt"))) == len(front)


def test_starting_it_again_continues_it(finished_run: Path, bitfront: Command) -> None:
    before = outcome(load_study(finished_run / "study.journal"), "x").trials
    spoken = bitfront("search", "--run", finished_run, "--trials", 23)
    assert spoken.status == 0, spoken.err
    after = outcome(load_study(finished_run / "study.journal"), "x").trials
    assert len(after) == 23
    assert [trial.bits for trial in after[:20]] == [trial.bits for trial in before]
    spoken = bitfront("search", "--run", finished_run)  # it has what it was asked for
    assert spoken.status == 0
    assert len(outcome(load_study(finished_run / "study.journal"), "x").trials) == 23


def test_another_model_data_or_objective_is_refused(
    finished_run: Path, tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    other = make_tiny_problem(tmp_path, seed=1)
    spoken = bitfront("search", "--run", finished_run, "--model", other.model, "--data", other.data)
    assert spoken.status == 2
    assert "is another search" in spoken.err
    assert "model was" in spoken.err
    assert "sentences was" in spoken.err
    spoken = bitfront("search", "--run", finished_run, "--quality", "mcc", "--min-compression", "8")
    assert spoken.status == 2
    assert "quality was 'damage' and is now 'mcc'" in spoken.err
    assert "min_compression was 5.5 and is now 8.0" in spoken.err


def test_report_writes_the_files_anew_without_the_model(finished_run: Path, bitfront: Command) -> None:
    (finished_run / "report.html").unlink()
    (finished_run / "front.csv").unlink()
    spoken = bitfront("report", "--run", finished_run)
    assert spoken.status == 0, spoken.err
    assert (finished_run / "report.html").is_file()
    assert (finished_run / "front.csv").is_file()
    assert not [path for path in finished_run.rglob(".*") if path.suffix in (".csv", ".html", ".png", ".svg", ".txt")]


def test_export_and_evaluate_agree_with_the_search(
    finished_run: Path, tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    for row in rows(finished_run / "trials.csv")[:3]:
        path = tmp_path / f"{row['number']}.json"
        assert (
            bitfront(
                "export", "--run", finished_run, "--trial", row["number"], "--format", "json", "--out", path
            ).status
            == 0
        )
        spoken = bitfront("evaluate", "--bitmap", path, "--model", tiny.model, "--data", tiny.data, "--json")
        assert spoken.status == 0, spoken.err
        figures = json.loads(spoken.out)
        for key in ("mcc", "damage", "agreement", "nominal_compression", "packed_compression"):
            assert figures[key] == pytest.approx(float(row[key]), abs=1e-12), key
        assert figures["mcc_low"] <= figures["mcc"] <= figures["mcc_high"]


def test_evaluating_a_map_by_another_quantiser_than_it_was_found_with_says_so(
    finished_run: Path, tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    path = tmp_path / "map.json"
    bitfront("export", "--run", finished_run, "--pick", "best@8x", "--format", "json", "--out", path)
    where = ("--bitmap", path, "--model", tiny.model, "--data", tiny.data)
    alike, other = bitfront("evaluate", *where), bitfront("evaluate", *where, "--group-size", 8)
    assert "note:" not in alike.err and "quantiser    " in alike.out
    assert "note: the run that found this map quantised by" in " ".join(other.err.split())
    assert "in groups of 8" in other.out
    assert bitfront("evaluate", "--checkpoint", tmp_path, "--group-size", 8).status == 2


def test_a_run_whose_journal_is_gone_is_not_begun_anew_over_its_tables(
    finished_run: Path, bitfront: Command, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(finished_run, tmp_path / "copy"))
    (copy / "study.journal").write_bytes(b"")
    before = (copy / "trials.csv").read_bytes()
    for _ in range(2):
        spoken = bitfront("search", "--run", copy, "--trials", 40)
        assert spoken.status == 2 and "put it back from a copy" in " ".join(spoken.err.split())
        (copy / "study.journal").unlink(missing_ok=True)
    assert (copy / "trials.csv").read_bytes() == before


@pytest.mark.parametrize("confirm", ["nowhere", "1.5", "0.3@x"])
def test_what_is_no_share_and_no_directory_is_told_to_be_the_confirmations(
    confirm: str, tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    where = ("--model", tiny.model, "--data", tiny.data, "--run", tmp_path / "run")
    spoken = bitfront("search", *where, "--confirm", confirm)
    assert spoken.status == 2 and f"--confirm {confirm}: is neither none, nor a share" in " ".join(spoken.err.split())


def test_export_to_standard_output_round_trips(
    finished_run: Path, bitfront: Command, problem: Problem, tmp_path: Path
) -> None:
    spoken = bitfront("export", "--run", finished_run, "--pick", "best@8x")
    bits = parse_bit_map(spoken.out, problem.layers, "standard output")
    assert problem.footprint.compression(bits, "nominal") >= 8
    (tmp_path / "map.txt").write_text(spoken.out, encoding="utf-8")
    again = bitfront("export", "--run", finished_run, "--bitmap", tmp_path / "map.txt", "--format", "json")
    assert json.loads(again.out)["bits"] == {
        layer.name: width for layer, width in zip(problem.layers, bits, strict=True)
    }


def test_mistakes_are_one_message_and_status_2(
    finished_run: Path, tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_text("Layer: nonsense | bit: 11\n")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    where = ("--model", tiny.model, "--data", tiny.data)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("search", "--run", tmp_path / "new", *where, "--min-compression", 17), "every layer at 2 bits is 16.0000x"),
        (("search", "--run", tmp_path / "thesis", *where), "is no run directory"),
        (
            ("search", "--run", tmp_path / "new", *where, "--sampler", "grid"),
            "sampler must be one of guided, nsga2, tpe, random",
        ),
        (("search", "--run", tmp_path / "new", "--profile", "night"), "no profile 'night'"),
        (("search", "--run", tmp_path / "new", "--model", tmp_path / "nowhere", "--data", tiny.data), "nowhere"),
        (("search", "--run", tmp_path / "new", "--model", tiny.model, "--data", tmp_path / "nowhere"), "nowhere"),
        (("report", "--run", tmp_path / "nowhere"), "there is no run here"),
        (("export", "--run", finished_run), "say which map to export"),
        (
            ("export", "--run", finished_run, "--trial", 1, "--format", "png"),
            "--format must be text, json, packed or torchao",
        ),
        (("export", "--run", finished_run, "--trial", 9999), "9999"),
        (("export", "--run", finished_run, "--pick", "best@99x"), "best@99x"),
        (("evaluate", "--bitmap", tmp_path / "bad.txt", *where), "not a layer of this model"),
        (("search",), "--run"),
        (("search", "--run", tmp_path / "new", "--trials", "many"), "Invalid value for '--trials'"),
    ]
    for arguments, complaint in cases:
        spoken = bitfront(*arguments)
        assert spoken.status == 2, arguments
        assert complaint in spoken.err.replace("\n", " "), (arguments, spoken.err)
        assert "Traceback" not in spoken.err
    assert not (tmp_path / "new").exists()


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
    spoken = bitfront("search", "--run", tmp_path / "run", *arguments)
    assert spoken.status == 2
    assert "labels are probably reversed" in spoken.err
    assert not (tmp_path / "run").exists()


def test_maps_whose_scores_are_not_finite_fail_and_the_search_goes_on(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from objectives.evaluate import Evaluator

    honest = Evaluator.log_odds

    def broken(self: Evaluator, bits: tuple[int, ...], remember: bool = False) -> LogOdds:
        log_odds = honest(self, bits, remember)
        if set(bits) == {2}:
            log_odds[5] = float("nan")
        return log_odds

    monkeypatch.setattr(Evaluator, "log_odds", broken)
    spoken = bitfront("search", "--run", tmp_path / "run", "--model", tiny.model, "--data", tiny.data, "--trials", 10)
    assert spoken.status == 0, spoken.err
    first, *others = rows(tmp_path / "run" / "trials.csv")
    assert (first["label"], first["state"], first["on_front"]) == ("uniform 2", "failed", "False")
    assert "1 of 80 log-odds are not finite" in first["failure"]
    assert {row["state"] for row in others} == {"complete"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("unrendered")
def test_a_signal_ends_the_search_with_everything_written(
    tiny: TinyProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run = tmp_path / "run"
    words = ("bitfront", "search", "--model", tiny.model, "--data", tiny.data, "--run", run)
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    search = fork(main)
    deadline = time.monotonic() + 120
    while not (run / "search.log").is_file() or "uniform 8" not in (run / "search.log").read_text():
        assert search.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert search.pid is not None
    os.kill(search.pid, number)
    search.join(timeout=60)
    assert search.exitcode == 0
    recorded = outcome(load_study(run / "study.journal"), "x").trials
    assert len(rows(run / "trials.csv")) == len(recorded) >= 7
    assert "stopped by a signal" in (run / "search.log").read_text()


def test_a_stop_while_sensitivities_are_measured_leaves_a_report(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    where = ("--model", tiny.model, "--data", tiny.data, "--run", run)
    spoken = bitfront("search", *where, "--hours", 1e-9)
    assert spoken.status == 0, spoken.err
    assert rows(run / "trials.csv") == []
    assert (run / "report.html").is_file()
    spoken = bitfront("search", *where, "--hours", 0, "--trials", 17)
    assert spoken.status == 0, spoken.err
    labels = [row["label"] for row in rows(run / "trials.csv")]
    assert len(set(labels)) == 17
    assert any(label.startswith("plain") for label in labels)


@pytest.mark.parametrize(
    ("compression", "asked"),
    [
        (16, ("--sensitivity", "gradient")),
        (15.5, ("--sensitivity", "none", "--sampler", "random", "--workers", 2)),
    ],
)
def test_a_search_ends_once_no_further_map_meets_the_constraint(
    tiny: TinyProblem,
    problem: Problem,
    bitfront: Command,
    tmp_path: Path,
    compression: float,
    asked: tuple[object, ...],
) -> None:
    sizes = Counter({0: 1})  # how many maps there are of each size
    for layer in problem.layers:
        wider = [(size + layer.elements * width, ways) for size, ways in sizes.items() for width in WIDTHS]
        sizes = sum((Counter({size: ways}) for size, ways in wider), Counter())
    within = sum(ways for size, ways in sizes.items() if size * compression <= problem.footprint.fp32_nominal_bits)
    run = tmp_path / "run"
    where = ("--model", tiny.model, "--data", tiny.data, "--run", run, "--quantizer", "affine")
    for _ in range(2):  # starting it again finds nothing either
        spoken = bitfront("search", *where, "--min-compression", compression, *asked, "--hours", 1)
        assert spoken.status == 0, spoken.err
        assert spoken.err.count("no further map meets the constraint") == 1
        assert ": ended by running out of maps, " in bitfront("status", "--run", run).out
        with RunDirectory(run).locked():  # another start, before it has told of itself
            assert ": starting again" in bitfront("status", "--run", run).out
        trials = rows(run / "trials.csv")
        assert len({row["bits"] for row in trials}) == len(trials)
        assert sum(row["feasible"] == "True" for row in trials) == within
        assert rows(run / "front.csv")
        assert (run / "report.html").is_file()


def test_help_needs_neither_torch_nor_optuna() -> None:
    code = "import sys, search.cli; assert not {'torch', 'optuna', 'transformers'} & set(sys.modules), 'slow imports'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_seed_reproduces_a_run_exactly(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    maps = []
    for name in ("a", "b"):
        spoken = bitfront(
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
        assert spoken.status == 0, spoken.err
        maps.append([(row["bits"], row["damage"], row["mcc"]) for row in rows(tmp_path / name / "trials.csv")])
    assert maps[0] == maps[1]


def test_a_read_only_place_is_one_clear_line(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("x")
    spoken = bitfront("search", "--run", blocker / "run", "--model", tiny.model, "--data", tiny.data)
    assert spoken.status in (1, 2)
    assert "Traceback" not in spoken.err
    assert str(blocker) in spoken.err


@pytest.mark.parametrize(("source", "said"), [("measured", {"measured", "gradient"}), ("gradient", {"gradient"})])
def test_sensitivities_as_a_table_and_a_heat_map(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, source: str, said: set[str]
) -> None:
    out = tmp_path / "found"
    spoken = bitfront("sensitivity", "--model", tiny.model, "--data", tiny.data, "--source", source, "--out", out)
    assert spoken.status == 0, spoken.err
    assert {path.name for path in out.iterdir()} == {"sensitivity.csv", "sensitivity.png", "sensitivity.svg"}
    table = rows(out / "sensitivity.csv")
    assert {row["source"] for row in table} == said
    heading, *lines, written = spoken.out.splitlines()
    assert heading.split()[-2:] == ["8", "bit"]
    assert len(lines) == len(table) / 7
    assert lines[0].startswith("bert.embeddings.word_embeddings ")
    assert written.startswith("written: ")


def test_a_search_without_sensitivities_has_no_plain_allocations(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    where = ("--model", tiny.model, "--data", tiny.data, "--sampler", "nsga2", "--trials", 16)
    for source, plain in (("none", False), ("gradient", True)):
        run = tmp_path / source
        assert bitfront("search", *where, "--run", run, "--sensitivity", source).status == 0
        origins = [row["origin"] for row in rows(run / "trials.csv")]
        assert ("plain" in origins) == plain
        assert (run / "sensitivity.csv").exists() == plain
    spoken = bitfront("search", *where[:4], "--run", tmp_path / "x", "--sensitivity", "none")
    assert spoken.status == 2
    assert "guided sampler needs sensitivities" in spoken.err
    spoken = bitfront("sensitivity", *where[:4], "--source", "none")
    assert spoken.status == 2
    assert "measured or gradient" in spoken.err


def test_a_search_in_bf16_confirms_what_it_shows_in_fp32(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    where = ("--model", roomy.model, "--data", roomy.data, "--run", run)
    # Picks are made by the damage on unseen sentences, so that many are off a front of MCC.
    start = ("search", *where, "--unseen", 20, "--quality", "mcc", "--precision", "bf16")
    with monkeypatch.context() as patched:  # a signal comes before anything is confirmed
        patched.setattr("search.closing._confirm_shown", lambda *_: None)
        assert bitfront(*start, "--trials", 40).status == 0
    before = rows(run / "trials.csv")
    assert {row["precision"] for row in before} == {"bf16"}
    assert "not scored again in FP32 yet" in (run / "report.html").read_text()
    spoken = bitfront(*start, "--trials", 40)  # nothing to search: what is open is confirmed
    assert spoken.status == 0, spoken.err
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


def test_an_architecture_without_a_forward_of_ours_is_said_to_have_none(
    bitfront: Command, tmp_path: Path, tiny: TinyProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objectives.evaluate.is_plain_bert", lambda model: False)
    run = tmp_path / "run"
    where = ("--model", tiny.model, "--data", tiny.data, "--run", run, "--trials", 9)
    spoken = bitfront("search", *where, "--sensitivity", "gradient", "--precision", "bf16")
    assert spoken.status == 0, spoken.err
    assert "transformers' forward in FP32, for want of one of our own" in " ".join(spoken.err.split())
    assert {row["precision"] for row in rows(run / "trials.csv")} == {"fp32"}


def test_a_packed_checkpoint_has_the_claimed_size_and_scores_what_the_search_said(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run, packed = tmp_path / "run", tmp_path / "packed"
    where = ("--model", tiny.model, "--data", tiny.data)
    assert bitfront("search", *where, "--run", run, "--trials", 12, "--sensitivity", "gradient").status == 0
    best = min((row for row in rows(run / "front.csv")), key=lambda row: float(row["damage"]))
    spoken = bitfront("export", "--run", run, "--trial", best["number"], "--format", "packed", "--out", packed)
    assert spoken.status == 0, spoken.err
    assert (packed / "packed.safetensors").stat().st_size == int(best["packed_bytes"])
    spoken = bitfront("evaluate", "--checkpoint", packed, *where, "--json")
    assert spoken.status == 0, spoken.err
    scored = json.loads(spoken.out)
    for key in ("damage", "mcc", "packed_bytes"):
        assert scored[key] == pytest.approx(float(best[key]), abs=0, rel=1e-12)
    other = make_tiny_problem(tmp_path / "other", seed=7)  # of the same shapes
    spoken = bitfront("evaluate", "--checkpoint", packed, "--model", other.model, "--data", other.data)
    assert spoken.status == 2
    assert "was made from another model than" in " ".join(spoken.err.split())
    again = bitfront("export", "--run", run, "--trial", best["number"], "--format", "packed", "--out", packed)
    assert again.status == 2
    assert "there already" in again.err
    assert bitfront("export", "--run", run, "--trial", 1, "--format", "packed").status == 2
    assert bitfront("evaluate", *where).status == 2
    assert bitfront("evaluate", *where, "--checkpoint", packed, "--bitmap", packed / "bitmap.txt").status == 2
    assert bitfront("evaluate", *where, "--bitmap", packed / "bitmap.txt").status == 0


def test_another_model_than_the_runs_is_not_packed(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    own = make_tiny_problem(tmp_path / "own")
    run = tmp_path / "run"
    where = ("--model", own.model, "--data", own.data)
    assert bitfront("search", *where, "--run", run, "--trials", 9, "--sensitivity", "gradient").status == 0
    weights = own.model / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"] += 1
    save_file(tensors, weights, {"format": "pt"})
    spoken = bitfront("export", "--run", run, "--trial", 1, "--format", "packed", "--out", tmp_path / "packed")
    assert spoken.status == 2
    assert "is not the model of this run any more" in " ".join(spoken.err.split())
    assert not (tmp_path / "packed").exists()


def test_a_calibrated_search_scores_and_packs_its_own_codes(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path / "cache"))
    run, packed = tmp_path / "run", tmp_path / "packed"
    where = ("--model", tiny.model, "--data", tiny.data)
    start = ("search", *where, "--run", run, "--trials", 10, "--sensitivity", "gradient")
    assert bitfront(*start, "--quantizer", "calibrated").status == 0
    trial = rows(run / "trials.csv")[0]
    assert trial["label"] == "uniform 2"
    assert bitfront("export", "--run", run, "--trial", 0, "--format", "packed", "--out", packed).status == 0
    spoken = bitfront("evaluate", *where, "--checkpoint", packed, "--json")
    assert json.loads(spoken.out)["damage"] == pytest.approx(float(trial["damage"]), rel=1e-12)
    affine = bitfront("evaluate", *where, "--bitmap", packed / "bitmap.txt", "--json", "--quantizer", "affine")
    assert json.loads(affine.out)["damage"] != pytest.approx(float(trial["damage"]), rel=1e-3)

    # A run of a machine with a GPU, whose calibration rounded a few codes otherwise.
    settings = (run / "run.toml").read_text()
    (run / "run.toml").write_text(re.sub('(device|codes) = ".*"', elsewhere, settings))
    spoken = bitfront("export", "--run", run, "--trial", 0, "--format", "packed", "--out", tmp_path / "again")
    assert spoken.status == 0, spoken.err
    assert "were calibrated on another machine" in " ".join(spoken.err.split())
    (run / "run.toml").write_text(settings)
    spoken = bitfront(*start, "--quantizer", "affine")
    assert spoken.status == 2
    assert "quantizer was" in " ".join(spoken.err.split())


def elsewhere(setting: re.Match[str]) -> str:
    return 'device = "cuda"' if setting[1] == "device" else 'codes = "of others"'


def test_a_codebook_search_counts_and_packs_its_codewords(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run, packed = tmp_path / "run", tmp_path / "packed"
    where = ("--model", roomy.model, "--data", roomy.data)
    start = ("search", *where, "--run", run, "--trials", 14, "--sensitivity", "gradient", "--size", "packed")
    spoken = bitfront(*start, "--min-compression", 1.5, "--quantizer", "codebook")
    assert spoken.status == 0, spoken.err
    trials = rows(run / "trials.csv")
    assert all(float(row["packed_compression"]) >= 1.5 for row in trials if row["feasible"] == "True")
    last = trials[-1]
    assert last["origin"] == "sampler"
    export = ("export", "--run", run, "--trial", last["number"], "--format")
    spoken = bitfront(*export, "packed", "--out", packed)
    assert spoken.status == 0, spoken.err
    assert (packed / "packed.safetensors").stat().st_size == int(last["packed_bytes"])
    scored = json.loads(bitfront("evaluate", "--checkpoint", packed, *where, "--json").out)
    assert scored["packed_bytes"] == int(last["packed_bytes"])
    assert scored["damage"] == pytest.approx(float(last["damage"]), rel=1e-12)
    spoken = bitfront(*export, "torchao", "--out", tmp_path / "ao")
    assert spoken.status == 2
    assert "a codebook's codewords" in " ".join(spoken.err.split())
    spoken = bitfront("polish", "--run", run, "--trial", last["number"])
    assert spoken.status == 0, spoken.err
    [polished] = rows(run / "polished.csv")
    assert (run / polished["checkpoint"] / "packed.safetensors").stat().st_size == int(last["packed_bytes"])


def test_groups_of_columns_are_counted_packed_and_part_of_what_a_run_is(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run, packed = tmp_path / "run", tmp_path / "packed"
    where = ("--model", tiny.model, "--data", tiny.data)
    start = ("search", *where, "--run", run, "--trials", 10, "--sensitivity", "gradient", "--group-size")
    spoken = bitfront(*start, 8)
    assert spoken.status == 0, spoken.err
    assert "--group-size 8" in (run / "report.html").read_text(encoding="utf-8")
    last = rows(run / "trials.csv")[-1]
    spoken = bitfront("export", "--run", run, "--trial", last["number"], "--format", "packed", "--out", packed)
    assert spoken.status == 0, spoken.err
    assert (packed / "packed.safetensors").stat().st_size == int(last["packed_bytes"])
    scored = json.loads(bitfront("evaluate", "--checkpoint", packed, *where, "--json").out)
    assert scored["packed_bytes"] == int(last["packed_bytes"])
    assert scored["damage"] == pytest.approx(float(last["damage"]), rel=1e-12)
    evaluate = ("evaluate", *where, "--bitmap", packed / "bitmap.txt", "--json", "--quantizer", "affine")
    grouped, per_row = (json.loads(bitfront(*evaluate, "--group-size", size).out) for size in (8, 0))
    assert grouped["packed_bytes"] == scored["packed_bytes"] > per_row["packed_bytes"]
    assert grouped["damage"] < per_row["damage"]
    spoken = bitfront(*start, 4)
    assert spoken.status == 2
    assert "quantizer was 'calibrated-2 in groups of 8" in " ".join(spoken.err.split())
    spoken = bitfront(*evaluate[:-1], "codebook", "--group-size", 8)
    assert spoken.status == 2
    assert "takes no group_size" in " ".join(spoken.err.split())
    assert bitfront(*evaluate, "--group-size", -1).status == 2


def test_a_search_that_could_not_polish_says_so_before_it_begins(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    """All of its training sentences are searched with."""
    run = tmp_path / "run"
    settings = ["--model", tiny.model, "--data", tiny.data, "--quantizer", "affine", "--sensitivity", "gradient"]
    spoken = bitfront("search", *settings, "--run", run, "--trials", 9, "--polish")
    assert spoken.status == 2
    assert "too few training sentences to polish on" in " ".join(spoken.err.split())
    assert not run.exists()


def test_polished_maps_are_checkpoints_that_score_what_the_table_says(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = ["--model", roomy.model, "--data", roomy.data, "--quantizer", "affine", "--sensitivity", "gradient"]
    spoken = bitfront("search", *settings, "--run", run, "--trials", 12, "--polish")
    assert spoken.status == 0, spoken.err
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
    assert json.loads(said.out)["packed_bytes"] == found.footprint.packed_bytes(found.trials[int(row["number"])].bits)

    # A copy of it, as small and as good.
    export = ("export", "--run", run, "--polished", "--trial", row["number"], "--out", tmp_path / "copy", "--format")
    assert bitfront(*export, "json").status == 2
    spoken = bitfront(*export, "packed")
    assert spoken.status == 0, spoken.err
    copied = bitfront("evaluate", "--checkpoint", tmp_path / "copy", *settings[:4], "--json")
    assert json.loads(copied.out) == json.loads(said.out)
    assert "there already" in bitfront(*export, "packed").err

    # One more joins the table, and what is there is not polished again.
    before = (run / row["checkpoint"] / "bitfront.json").stat().st_mtime_ns
    other = next(trial.number for trial in found.trials if str(trial.number) not in picks)
    spoken = bitfront(
        "export", "--run", run, "--polished", "--trial", other, "--out", tmp_path / "x", *export[-1:], "packed"
    )
    assert "is not polished" in " ".join(spoken.err.split())
    spoken = bitfront("polish", "--run", run, "--trial", other)
    assert spoken.status == 0, spoken.err
    assert "damage" in spoken.out
    assert bitfront("polish", "--run", run).status == 0
    assert {row["number"] for row in rows(run / "polished.csv")} == picks | {str(other)}
    assert (run / row["checkpoint"] / "bitfront.json").stat().st_mtime_ns == before

    spoken = bitfront("polish", "--run", run, "--epochs", 2)
    assert "was polished with --epochs 1" in " ".join(spoken.err.split())

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
        (["--pick", "best@8x", "--trial", "1"], "one of --pick best@8x and --trial N"),
        (["--pick", "best@99x"], "no evaluated map is that small"),
        (["--trial", "999"], "has no such trial"),
    ],
)
def test_what_cannot_be_polished_is_one_message(
    finished_run: Path, bitfront: Command, arguments: list[str], said: str
) -> None:
    spoken = bitfront("polish", "--run", finished_run, *arguments)
    assert spoken.status == 2
    assert said in spoken.err
    assert not (finished_run / "polished").exists()


def test_a_torchao_checkpoint_needs_torchao_and_no_line_of_ours(
    finished_run: Path, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ("export", "--run", finished_run, "--trial", 1, "--format", "torchao")
    assert "--out DIR" in bitfront(*export).err
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "torchao.core.config", None)
        spoken = bitfront(*export, "--out", tmp_path / "ao")
    assert spoken.status == 2
    assert "pip install -e '.[torchao]'" in spoken.err
    assert not (tmp_path / "ao").exists()
    pytest.importorskip("torchao")
    spoken = bitfront(*export, "--out", tmp_path / "ao")
    assert spoken.status == 0, spoken.err
    assert f"weights of {(tmp_path / 'ao' / 'model.safetensors').stat().st_size:,} bytes" in spoken.out
    assert bitfront(*export, "--out", tmp_path / "ao").status == 2


def test_runs_are_compared_on_one_page(finished_run: Path, bitfront: Command, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    spoken = bitfront("report", "--compare", finished_run, copy, "--out", tmp_path / "out")
    assert spoken.status == 0, spoken.err
    assert "tiny against copy" in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert {row["run"] for row in rows(tmp_path / "out" / "comparison.csv")} == {"tiny", "copy"}
    for arguments in (("--compare", finished_run), ("--compare", copy, copy), (), ("--run", copy, finished_run)):
        assert bitfront("report", *arguments).status == 2, arguments
    assert bitfront("report", "--compare", copy, tmp_path / "nowhere").status == 2


def test_the_margin_and_the_command_are_the_runs(finished_run: Path, bitfront: Command) -> None:
    spoken = bitfront("report", "--run", finished_run, "--margin", 0.25)
    assert "within 0.25 MCC of FP32" in spoken.out
    assert "within 0.01 MCC" in bitfront("report", "--run", finished_run).out
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    count = len(rows(finished_run / "trials.csv"))
    assert f"bitfront search --run {finished_run}" in page
    assert f"--seed 3 --trials {count}" in page
    assert bitfront("report", "--run", finished_run, "--margin", 2).status == 2
    assert bitfront("export", "--run", finished_run, "--pick", "smallest@0.9").status == 0
