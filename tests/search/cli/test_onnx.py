"""`export --format onnx`, and `evaluate` of what it wrote."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from results.export import costs
from results.export.onnx import check_onnx
from tests.search.commands import rows
from tests.search.conftest import Command

needs_onnx = pytest.mark.skipif(
    not (find_spec("onnx") and find_spec("onnxruntime")), reason="onnx or onnxruntime is not installed; it is an extra"
)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started to measure memory in."""
    if find_spec("onnx"):
        from search.cli import deployment

        monkeypatch.setattr(deployment, "resident_bytes", lambda kind, source: 3 * 2**20)


@needs_onnx
def test_an_export_scores_what_the_search_said(
    finished_run: Path, bitfront: Command, unmeasured: None, tmp_path: Path
) -> None:
    [row] = [row for row in rows(finished_run / "trials.csv") if row["number"] == "2"]
    export = ("export", "--run", finished_run, "--format", "onnx", "--out")
    result = bitfront(*export, tmp_path / "onnx", "--trial", 2)
    assert result.status == 0, result.err
    length = (tmp_path / "onnx" / "onnx" / "model.onnx").stat().st_size
    assert f"onnx/model.onnx of {length:,} bytes" in result.out
    assert f"\nnext: bitfront evaluate --checkpoint {tmp_path / 'onnx'}\n" in result.out
    result = bitfront("evaluate", "--checkpoint", tmp_path / "onnx", "--json")
    assert result.status == 0, result.err
    scored = json.loads(result.out)
    assert scored["mcc"] == pytest.approx(float(row["mcc"]), abs=1e-9)
    assert scored["damage"] == pytest.approx(float(row["damage"]), rel=1e-3, abs=1e-9)
    assert scored["nominal_compression"] == pytest.approx(float(row["nominal_compression"]))
    assert scored["onnx_bytes"] == length
    assert [cost["model"] for cost in scored["costs"]] == ["ONNX, fp32 activations", "FP32 ONNX", "FP32 torch"]
    assert scored["costs"][0]["disk_bytes"] == length
    assert all(cost["sentence_ms"] > 0 and cost["sentences_per_s"] > 0 for cost in scored["costs"])

    assert bitfront(*export, tmp_path / "int8", "--trial", 2, "--activations", "int8").status == 0
    assert bitfront(*export, tmp_path / "fp32", "--pick", "fp32").status == 0
    result = bitfront("evaluate", "--checkpoint", tmp_path / "int8", "--run", finished_run)
    assert "ONNX, int8 activations" in result.out and "FP32 torch" in result.out and "3 MiB" in result.out
    assert f"report: {finished_run / 'report.html'}\n" in result.out
    plain = json.loads(bitfront("evaluate", "--checkpoint", tmp_path / "fp32", "--run", finished_run, "--json").out)
    assert plain["damage"] == pytest.approx(0, abs=1e-9) and plain["mcc"] == plain["fp32_mcc"]
    assert [cost["model"] for cost in plain["costs"]] == ["FP32 ONNX", "FP32 torch"]
    onnx, in_torch, int8 = rows(finished_run / "deployed.csv")
    assert (onnx["format"], in_torch["format"], int8["format"]) == (
        *("FP32 ONNX", "FP32 torch", "ONNX, int8 activations"),
    )
    assert (onnx["number"], in_torch["number"], int8["number"]) == ("-1", "-1", "2")
    assert float(onnx["mcc"]) == float(in_torch["mcc"]) == plain["fp32_mcc"]
    assert float(onnx["largest_difference"]) < 1e-4 < float(int8["largest_difference"])
    assert 'id="deployed"' in (finished_run / "report.html").read_text(encoding="utf-8")


def test_the_figures_of_packed_checkpoints_go_into_the_report_of_their_run(
    finished_run: Path, bitfront: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from search.cli import deployment

    monkeypatch.setattr(deployment, "resident_bytes", lambda kind, source: None)
    best = rows(finished_run / "picks.csv")[0]
    packed, other = tmp_path / "packed", tmp_path / "other"
    shutil.copytree(finished_run, other)
    export = ("export", "--run", finished_run, "--pick", best["pick"], "--format", "packed", "--out", packed)
    assert bitfront(*export).out.endswith(f"with --run {finished_run} too, its figures go into the report\n")
    result = bitfront("evaluate", "--checkpoint", packed, "--run", finished_run)
    assert result.status == 0, result.err
    assert "packed, packed in memory" in result.out and "unknown" in result.out
    table = [row for row in rows(finished_run / "deployed.csv") if row["number"] != "-1"]
    assert [row["format"] for row in table] == ["packed, decoded in memory", "packed, packed in memory"]
    for row in table:
        assert (row["number"], row["disk_bytes"]) == (best["number"], best["packed_bytes"])
        assert row["resident_bytes"] == "" and float(row["sentence_ms"]) > 0
        assert float(row["mcc"]) == pytest.approx(float(best["mcc"]), abs=1e-12)
        assert float(row["largest_difference"]) < 1e-6
    document = json.loads(bitfront("report", "--run", finished_run, "--format", "json").out)
    assert document["deployed"][-1]["format"] == "packed, packed in memory"

    settings = other / "run.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace('sentences = "', 'sentences = "x'), "utf-8")
    evaluate = ("evaluate", "--checkpoint", packed, "--run")
    for words, message in (
        ((*evaluate, other), "was not exported from"),
        ((*evaluate, finished_run, "--data", "miniature"), "leave options of the data out"),
        (("evaluate", "--bitmap", "bitmap.txt", "--run", finished_run), "--run needs --checkpoint"),
    ):
        result = bitfront(*words)
        assert (result.status, message in " ".join(result.err.split())) == (2, True), result.err
    assert not (other / "deployed.csv").exists()
    (finished_run / "deployed.csv").write_text("number\n1\n", "utf-8")
    assert "measure the checkpoints again" in " ".join(bitfront("report", "--run", finished_run).err.split())


def test_what_makes_no_sense_is_refused(finished_run: Path, bitfront: Command, tmp_path: Path) -> None:
    export = ("export", "--run", finished_run, "--out", tmp_path / "x")
    for words, message in (
        (("--trial", 1, "--format", "onnx", "--activations", "fp16"), "--activations must be fp32 or int8"),
        (("--trial", 1, "--format", "packed", "--activations", "int8"), "need --format onnx"),
        (("--pick", "fp32", "--format", "packed"), "need --format onnx"),
        (("--pick", "fp32", "--format", "onnx", "--polished"), "--distilled needs --pick or --trial"),
    ):
        result = bitfront(*export, *words)
        assert (result.status, message in " ".join(result.err.split())) == (2, True), result.err
    assert not (tmp_path / "x").exists()


def test_a_missing_extra_is_named(
    finished_run: Path, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.export.onnx.find_spec", lambda package: None)
    result = bitfront("export", "--run", finished_run, "--trial", 1, "--format", "onnx", "--out", tmp_path / "x")
    assert result.status == 2
    assert "onnx and onnxruntime" in result.err and "pip install -e '.[onnx]'" in " ".join(result.err.split())
    assert "loading" not in result.err  # said first
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "bitfront.json").write_text('{"provenance": {"onnx": {}}, "bits": {}}')
    result = bitfront("evaluate", "--checkpoint", tmp_path / "export")
    assert result.status == 2 and "pip install -e '.[onnx]'" in " ".join(result.err.split())


@needs_onnx
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the resident memory")
def test_memory_is_that_of_the_model_alone(tmp_path: Path) -> None:
    from results.export.onnx.fragments import one_node_model

    (tmp_path / "small.onnx").write_bytes(one_node_model())
    held = costs.resident_bytes("onnx", tmp_path / "small.onnx")
    assert held is not None and held < 8 * 2**20  # the library alone takes several times that


def test_models_take_turns() -> None:
    turns: list[tuple[str, str]] = []

    def computes(name: str) -> object:
        return lambda given: turns.append((name, given))

    models = {name: computes(name) for name in ("a", "b")}
    taken = costs.seconds(models, ["x", "y"], ["z"])  # type: ignore[arg-type]
    assert [given for _, given in turns] == [given for given in "xxy" + "zzzz" for _ in models]
    assert [name for name, _ in turns] == ["a", "b"] * 7
    assert all(single >= 0 and together >= 0 for single, together in taken.values())


def test_packages_are_only_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.export.onnx.find_spec", lambda package: object())
    check_onnx()
