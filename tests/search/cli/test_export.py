"""The `export` and `evaluate` commands: maps and checkpoints that score what the search said."""

import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
from safetensors.torch import load_file, save_file

from objectives.bit_maps import parse_bit_map
from objectives.problem import Problem
from tests.results.checkpoints import hash_anew
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.tiny_problem import TinyProblem, make_tiny_problem


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
        result = bitfront("evaluate", "--bitmap", path, "--model", tiny.model, "--data", tiny.data, "--json")
        assert result.status == 0, result.err
        figures = json.loads(result.out)
        for key in ("mcc", "damage", "agreement", "nominal_compression", "packed_compression"):
            assert figures[key] == pytest.approx(float(row[key]), abs=1e-12), key
        assert figures["mcc_low"] <= figures["mcc"] <= figures["mcc_high"]
    result = bitfront("evaluate", "--bitmap", path, "--model", tiny.model, "--data", tiny.data, "--metric", "accuracy")
    assert f"\naccuracy     {float(row['accuracy']):.4f}  (95% interval " in result.out


def test_evaluating_a_map_by_another_quantiser_than_it_was_found_with_says_so(
    finished_run: Path, tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    path = tmp_path / "map.json"
    bitfront("export", "--run", finished_run, "--pick", "best@8x", "--format", "json", "--out", path)
    where = ("--bitmap", path, "--model", tiny.model, "--data", tiny.data)
    alike, other = bitfront("evaluate", *where), bitfront("evaluate", *where, "--group-size", 8)
    assert "note:" not in alike.err and "quantiser    " in alike.out
    assert "note: this map was searched with the quantiser" in " ".join(other.err.split())
    assert "in groups of 8" in other.out
    assert bitfront("evaluate", "--checkpoint", tmp_path, "--group-size", 8).status == 2


def test_export_to_standard_output_round_trips(
    finished_run: Path, bitfront: Command, problem: Problem, tmp_path: Path
) -> None:
    result = bitfront("export", "--run", finished_run, "--pick", "best@8x")
    bit_map = parse_bit_map(result.out, problem.layers, "standard output")
    assert problem.footprint.compression(bit_map, "nominal") >= 8
    (tmp_path / "map.txt").write_text(result.out, encoding="utf-8")
    again = bitfront("export", "--run", finished_run, "--bitmap", tmp_path / "map.txt", "--format", "json")
    assert json.loads(again.out)["bits"] == {
        layer.name: width for layer, width in zip(problem.layers, bit_map, strict=True)
    }


def test_a_packed_checkpoint_has_the_claimed_size_and_scores_what_the_search_said(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run, packed = tmp_path / "run", tmp_path / "packed"
    where = ("--model", tiny.model, "--data", tiny.data)
    assert bitfront("search", *where, "--run", run, "--trials", 12, "--sensitivity", "gradient").status == 0
    best = min((row for row in rows(run / "front.csv")), key=lambda row: float(row["damage"]))
    result = bitfront("export", "--run", run, "--trial", best["number"], "--format", "packed", "--out", packed)
    assert result.status == 0, result.err
    assert (packed / "packed.safetensors").stat().st_size == int(best["packed_bytes"])
    assert f"\nnext: bitfront evaluate --checkpoint {packed}\n" in result.out
    assert "scoring the FP32 model" not in result.err  # the run has its scores
    card = (packed / "README.md").read_text(encoding="utf-8")
    assert f"{float(best['mcc']):.3f} ({float(best['mcc_low']):.3f} to {float(best['mcc_high']):.3f})" in card
    assert str(tmp_path) not in card and "base_model" not in card  # they are this machine's
    result = bitfront("evaluate", "--checkpoint", packed, "--json")  # its manifest names the model and the data
    assert result.status == 0, result.err
    assert bitfront("evaluate", "--checkpoint", packed, *where, "--json").out == result.out
    scored = json.loads(result.out)
    for key in ("damage", "mcc", "packed_bytes"):
        assert scored[key] == pytest.approx(float(best[key]), abs=0, rel=1e-12)
    other = make_tiny_problem(tmp_path / "other", seed=7)  # of the same shapes
    result = bitfront("evaluate", "--checkpoint", packed, "--model", other.model, "--data", other.data)
    assert result.status == 2
    assert "was made from another model than" in " ".join(result.err.split())
    assert "scoring the FP32 model" not in result.err  # said before any work
    again = bitfront("export", "--run", run, "--trial", best["number"], "--format", "packed", "--out", packed)
    assert again.status == 2
    assert "exists already" in again.err
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
    result = bitfront("export", "--run", run, "--trial", 1, "--format", "packed", "--out", tmp_path / "packed")
    assert result.status == 2
    assert "changed since this run" in " ".join(result.err.split())
    assert not (tmp_path / "packed").exists()


def test_a_run_is_used_from_another_directory(
    finished_run: Path, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cron job, say, that starts in a directory with another model of the same name, or with none."""
    settings = tomllib.loads((finished_run / "run.toml").read_text(encoding="utf-8"))
    tiny = TinyProblem(Path(settings["profile"]["model"]), Path(settings["profile"]["data"]))
    resolved = {"model": str(tiny.model.resolve()), "data": str(tiny.data.resolve())}
    assert settings["resolved"] == resolved
    settings["profile"] |= {"model": "model", "data": "data"}

    def write() -> None:
        (finished_run / "run.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")

    write()
    elsewhere, packed = tmp_path / "elsewhere", tmp_path / "packed in words"
    make_tiny_problem(elsewhere, seed=7)
    monkeypatch.chdir(elsewhere)
    export = ("export", "--run", finished_run, "--trial", 1, "--format", "packed", "--out")
    result = bitfront(*export, packed)
    assert result.status == 0, result.err
    assert f"next: bitfront evaluate --checkpoint '{packed}'" in result.out
    manifest = json.loads((packed / "bitfront.json").read_text(encoding="utf-8"))["provenance"]
    assert manifest["resolved"] == resolved
    manifest["model"], manifest["data"] = "model", "data"
    hash_anew(packed, manifest)
    result = bitfront("evaluate", "--checkpoint", packed, "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["damage"] == pytest.approx(float(rows(finished_run / "trials.csv")[1]["damage"]))

    text = ("export", "--run", finished_run, "--trial", 1, "--out", tmp_path / "map.txt")
    named = f"--model {resolved['model']} --data {resolved['data']} --quantizer"
    assert named in bitfront(*text).out  # the names are others' directories here
    assert "--model there --data " + resolved["data"] in bitfront(*text, "--model", "there").out
    with monkeypatch.context() as home:
        home.chdir(tiny.model.parent)
        assert "--model model --data data --quantizer" in bitfront(*text).out
    shutil.rmtree(elsewhere / "model")
    shutil.copytree(tiny.model, elsewhere / "model")  # the right model beside other sentences
    assert bitfront("evaluate", "--checkpoint", packed, "--json").out == result.out
    del manifest["resolved"]
    hash_anew(packed, manifest)
    result = bitfront("evaluate", "--checkpoint", packed)
    assert result.status == 2
    assert "made with other sentences than those of data" in " ".join(result.err.split())
    assert "other sentences" not in bitfront("evaluate", "--checkpoint", packed, "--data", "data").err

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    result = bitfront("search", "--run", finished_run, "--trials", 21)
    assert result.status == 0, result.err
    continued = tomllib.loads((finished_run / "run.toml").read_text(encoding="utf-8"))
    assert (continued["profile"]["model"], continued["resolved"]) == ("model", resolved)

    del settings["resolved"]  # a run of an older version
    settings["profile"] |= {"model": "./model", "data": "./data"}
    write()
    result = bitfront(*export, tmp_path / "old")
    assert result.status == 2
    assert "there is no such directory" in " ".join(result.err.split())
    assert bitfront(*export, tmp_path / "old", "--model", tiny.model, "--data", tiny.data).status == 0


def test_a_torchao_checkpoint_needs_torchao_and_no_line_of_ours(
    finished_run: Path, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ("export", "--run", finished_run, "--trial", 1, "--format", "torchao")
    assert "--out DIR" in bitfront(*export).err
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "torchao.core.config", None)
        result = bitfront(*export, "--out", tmp_path / "ao")
    assert result.status == 2
    assert "pip install -e '.[torchao]'" in result.err
    assert "loading" not in result.err  # said first
    assert not (tmp_path / "ao").exists()
    pytest.importorskip("torchao")
    result = bitfront(*export, "--out", tmp_path / "ao")
    assert result.status == 0, result.err
    assert f"weights of {(tmp_path / 'ao' / 'model.safetensors').stat().st_size:,} bytes" in result.out
    assert "several times slower than FP32" in result.out
    assert "is a torchao checkpoint" in bitfront("evaluate", "--checkpoint", tmp_path / "ao").err
    assert bitfront(*export, "--out", tmp_path / "ao").status == 2
