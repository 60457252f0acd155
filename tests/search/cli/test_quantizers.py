"""Searches by each quantizer, from the first map to the packed checkpoint."""

import json
import re
from pathlib import Path

import pytest

from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.tiny_problem import TinyProblem


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
    result = bitfront("evaluate", *where, "--checkpoint", packed, "--json")
    assert json.loads(result.out)["damage"] == pytest.approx(float(trial["damage"]), rel=1e-12)
    affine = bitfront("evaluate", *where, "--bitmap", packed / "bitmap.txt", "--json", "--quantizer", "affine")
    assert json.loads(affine.out)["damage"] != pytest.approx(float(trial["damage"]), rel=1e-3)

    # A run of a machine with a GPU, whose calibration rounded a few codes otherwise.
    settings = (run / "run.toml").read_text()
    (run / "run.toml").write_text(re.sub('(device|codes) = ".*"', elsewhere, settings))
    result = bitfront("export", "--run", run, "--trial", 0, "--format", "packed", "--out", tmp_path / "again")
    assert result.status == 0, result.err
    assert "with codes calibrated on another machine" in " ".join(result.err.split())
    (run / "run.toml").write_text(settings)
    result = bitfront(*start, "--quantizer", "affine")
    assert result.status == 2
    assert "quantizer was" in " ".join(result.err.split())


def elsewhere(setting: re.Match[str]) -> str:
    return 'device = "cuda"' if setting[1] == "device" else 'codes = "of others"'


def test_a_codebook_search_counts_and_packs_its_codewords(
    roomy: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run, packed = tmp_path / "run", tmp_path / "packed"
    where = ("--model", roomy.model, "--data", roomy.data)
    start = ("search", *where, "--run", run, "--trials", 14, "--sensitivity", "gradient", "--size", "packed")
    result = bitfront(*start, "--min-compression", 1.5, "--quantizer", "codebook")
    assert result.status == 0, result.err
    trials = rows(run / "trials.csv")
    assert all(float(row["packed_compression"]) >= 1.5 for row in trials if row["feasible"] == "True")
    last = trials[-1]
    assert last["origin"] == "sampler"
    export = ("export", "--run", run, "--trial", last["number"], "--format")
    result = bitfront(*export, "packed", "--out", packed)
    assert result.status == 0, result.err
    assert (packed / "packed.safetensors").stat().st_size == int(last["packed_bytes"])
    scored = json.loads(bitfront("evaluate", "--checkpoint", packed, *where, "--json").out)
    assert scored["packed_bytes"] == int(last["packed_bytes"])
    assert scored["damage"] == pytest.approx(float(last["damage"]), rel=1e-12)
    result = bitfront(*export, "torchao", "--out", tmp_path / "ao")
    assert result.status == 2
    assert "a codebook's codewords" in " ".join(result.err.split())
    distill = ("distill", "--run", run, "--trial", last["number"])
    assert "--train weights needs evenly spaced levels" in bitfront(*distill, "--train", "weights").err
    result = bitfront(*distill)
    assert result.status == 0, result.err
    [distilled] = rows(run / "distilled.csv")
    assert (run / distilled["checkpoint"] / "packed.safetensors").stat().st_size == int(last["packed_bytes"])


def test_groups_of_columns_are_counted_packed_and_part_of_what_a_run_is(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run, packed = tmp_path / "run", tmp_path / "packed"
    where = ("--model", tiny.model, "--data", tiny.data)
    start = ("search", *where, "--run", run, "--trials", 10, "--sensitivity", "gradient", "--group-size")
    result = bitfront(*start, 8)
    assert result.status == 0, result.err
    assert "--group-size 8" in (run / "report.html").read_text(encoding="utf-8")
    last = rows(run / "trials.csv")[-1]
    result = bitfront("export", "--run", run, "--trial", last["number"], "--format", "packed", "--out", packed)
    assert result.status == 0, result.err
    assert (packed / "packed.safetensors").stat().st_size == int(last["packed_bytes"])
    scored = json.loads(bitfront("evaluate", "--checkpoint", packed, *where, "--json").out)
    assert scored["packed_bytes"] == int(last["packed_bytes"])
    assert scored["damage"] == pytest.approx(float(last["damage"]), rel=1e-12)
    evaluate = ("evaluate", *where, "--bitmap", packed / "bitmap.txt", "--json", "--quantizer", "affine")
    grouped, per_row = (json.loads(bitfront(*evaluate, "--group-size", size).out) for size in (8, 0))
    assert grouped["packed_bytes"] == scored["packed_bytes"] > per_row["packed_bytes"]
    assert grouped["damage"] < per_row["damage"]
    result = bitfront(*start, 4)
    assert result.status == 2
    assert "group_size was 8 and is now 4" in " ".join(result.err.split())
    result = bitfront(*evaluate[:-1], "codebook", "--group-size", 8)
    assert result.status == 2
    assert "takes no group_size" in " ".join(result.err.split())
    assert bitfront(*evaluate, "--group-size", -1).status == 2
