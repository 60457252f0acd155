"""The table of a run's checkpoints as deployed."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, nan
from pathlib import Path

from results.report.deployed import FP32, DeployedModel, add_deployed, deployed_columns, read_deployed
from results.statistics.analysis import analyse
from tests.results.synthetic import made_up_outcome


def test_new_figures_replace_old_ones_and_scores_stay(tmp_path: Path) -> None:
    fp32 = DeployedModel(
        *(FP32, "FP32", False, "FP32 ONNX", 4000, nan, 2.0, 100.0, 3.0, 1, 0.5, 0.0, 1e-6, "2026-01-01 00:00"),
    )
    trial = replace(fp32, number=7, label="trial 7", format="ONNX, int8 activations", metric=0.4, resident_bytes=2e6)
    add_deployed([trial, fp32], tmp_path, "accuracy")
    read = read_deployed(tmp_path, "accuracy")
    assert read[1] == trial and isnan(read[0].resident_bytes)
    timed = replace(fp32, sentence_ms=5.0, resident_bytes=1e6, metric=nan, damage=nan, largest_difference=nan)
    add_deployed([timed, replace(trial, polished=True)], tmp_path, "accuracy")
    first, *others = read_deployed(tmp_path, "accuracy")
    assert first == replace(fp32, sentence_ms=5.0, resident_bytes=1e6)
    assert [(other.number, other.polished) for other in others] == [(7, False), (7, True)]


def test_rows_name_the_picks_that_they_are() -> None:
    analysis = analyse(made_up_outcome(trials=20))
    line = next(line for line in analysis.headlines if line.trial and line.request == "best@8x")
    assert line.trial is not None
    row = DeployedModel(
        *(line.trial.number, line.trial.label, True, "ONNX, int8 activations", 17_300_000, nan, 2.04, 1234.5, 3.0, 1),
        *(0.5, 0.1, nan, "2026-01-01 00:00"),
    )
    texts = {column.heading: column.line(row) for column in deployed_columns(analysis)}
    assert texts["map"] == f"{line.trial.label}, polished" and "8x nominal or more" in texts["pick"]
    assert texts["size on disk"] == "17.3 MB" and texts["one sentence"] == "2.04 ms"
    assert texts["memory"] == texts["largest difference"] == ""
