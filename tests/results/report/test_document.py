"""The report for other programs: as JSON, and as what the page's script draws."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from math import inf, nan

import numpy as np
import pandas as pd
import pytest

from objectives.heads import Numbers
from objectives.packing.footprint import SizeAxis
from results.outcome import Quality
from results.pareto import front
from results.report.document import SCHEMA, as_json, report_document
from results.report.page_data import page_data, page_json
from results.report.tables import front_table, picks_table, trials_table
from results.report.verdict import verdict_of
from results.statistics.analysis import Analysis, analyse
from tests.results.synthetic import empty_outcome, failed, made_up_outcome, with_trials, with_unseen


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    outcome = made_up_outcome(trials=30, size_axis="onnx")
    outcome = with_trials(outcome, [*outcome.trials[:-1], failed(outcome.trials[-1])])
    return analyse(with_unseen(outcome, front(outcome)))


def test_numbers_stay_numbers_and_what_json_lacks_is_null() -> None:
    values = {"a": nan, "b": [inf, -inf, 1.5], "c": np.float64(0.1), "d": np.bool_(True), "e": (np.int64(3), None)}
    assert json.loads(as_json(values)) == {"a": None, "b": [None, None, 1.5], "c": 0.1, "d": True, "e": [3, None]}
    assert as_json("\u2028\udce9<") == '"\\u2028\\udce9<"'


def test_the_document_has_the_tables_values(analysis: Analysis) -> None:
    written = as_json(report_document(analysis, "runs/x", {"seed": 0}))
    document = json.loads(written)
    assert document["schema"] == SCHEMA == "bitfront-report-1"
    tables = {"front": front_table(analysis), "trials": trials_table(analysis.outcome), "picks": picks_table(analysis)}
    for name, table in tables.items():
        read = pd.DataFrame(document[name])[list(table.columns)]
        pd.testing.assert_frame_equal(read, table, check_dtype=False, check_exact=True)
    assert document["trials"][-1]["damage"] is None and document["trials"][-1]["state"] == "failed"
    assert document["trials"][0]["bits"] == "".join(map(str, analysis.outcome.trials[0].bit_map))
    assert document["settings"] == {"seed": 0}
    claim, *points = [(line["heading"], line["text"]) for line in document["verdict"]]
    assert claim == (verdict_of(analysis).claim, "") and tuple(points) == verdict_of(analysis).points
    assert document["fp32"]["mcc"] == analysis.outcome.fp32.metric and document["fp32"]["damage"] == 0
    assert document["fp32"]["onnx_bytes"] == analysis.outcome.footprint.fp32_size("onnx")
    assert len(document["layers"]) == 76 and len(document["baselines"]) == 8
    assert {pick["request"] for pick in document["picks"]} | {line["pick"] for line in document["unanswered"]} == {
        "smallest@0.01" if line.trial and line.request == "smallest@margin" else line.request
        for line in analysis.headlines
    }
    assert "--format onnx" in document["picks"][0]["commands"]["onnx"]
    series = pd.read_json(StringIO(written), typ="series")  # as the docs show
    assert pd.DataFrame(series["front"])["label"].tolist() == [trial.label for trial in analysis.front]


def test_the_page_gets_the_front_of_every_quality_and_size(analysis: Analysis) -> None:
    data = page_data(analysis, "runs/x")
    outcome = analysis.outcome
    assert set(data["fronts"]) == {
        f"{quality} {axis}" for quality in ("damage", "metric", "unseen") for axis in ("nominal", "packed", "onnx")
    }
    axes: tuple[SizeAxis, ...] = ("nominal", "packed", "onnx")
    qualities: tuple[tuple[str, Quality], ...] = (("damage", "damage"), ("metric", "mcc"))
    for axis in axes:
        for name, quality in qualities:
            expected = front(replace(outcome, size_axis=axis, quality=quality))
            assert data["fronts"][f"{name} {axis}"] == [trial.number for trial in expected]
    unseen = data["fronts"]["unseen nominal"]
    damages = [analysis.unseen[number].damage for number in unseen]
    assert damages == sorted(damages) and len(damages) > 1
    maps = {point["number"]: point for point in data["maps"]}
    assert {number for numbers in data["fronts"].values() for number in numbers} <= set(maps)
    assert set(analysis.picked) <= set(maps) and data["documented"] in maps
    assert len(maps) + len(data["others"]) == analysis.complete
    assert all(len(row) == len(data["fields"]) for row in data["others"])
    trial = analysis.front[0]
    assert trial.scores is not None
    assert maps[trial.number]["damage"] == pytest.approx(trial.scores.damage, rel=1e-8)
    assert maps[trial.number]["ends"]["damage"] == pytest.approx(
        [analysis.intervals[trial.number].damage.low, analysis.intervals[trial.number].damage.high], rel=1e-8
    )
    assert maps[trial.number]["bits"] == "".join(map(str, trial.bit_map))


def test_nothing_in_the_pages_data_can_end_its_element(analysis: Analysis) -> None:
    outcome = analysis.outcome
    hostile = replace(outcome.trials[0], label="</script><!--")
    text = page_json(analyse(replace(outcome, trials=(hostile, *outcome.trials[1:]))), "runs/x")
    assert "<" not in text
    assert json.loads(text)["maps"][0]["label"] == "</script><!--"


def test_runs_without_answers_have_documents_too() -> None:
    for outcome in (
        empty_outcome(sentences=40),
        made_up_outcome(trials=2, sentences=40, head=Numbers(1), metric="pearson"),
        made_up_outcome(trials=2, sentences=40, quality="agreement"),
    ):
        analysis = analyse(outcome)
        document = json.loads(as_json(report_document(analysis, "runs/x", {})))
        assert len(document["trials"]) == len(outcome.trials)
        data = json.loads(page_json(analysis, "runs/x"))
        assert f"{data['quality']} {data['size']}" in data["fronts"]
