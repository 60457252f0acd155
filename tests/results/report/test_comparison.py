"""Several runs on one plot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results.columns import shown
from results.pareto import front
from results.plots.comparison import DrawnRun, draw_comparison
from results.report.comparison import comparison_info, comparison_table, map_columns, picks_comparison, write_comparison
from results.report.distilled_view import distilled_points
from tests.results.synthetic import empty_outcome, made_up_distilled, made_up_outcome, with_unseen


def test_fronts_are_of_damage_on_the_axis_of_the_first_run(tmp_path: Path) -> None:
    one = made_up_outcome(trials=20)
    other = replace(made_up_outcome(trials=30), quality="mcc", size_axis="packed", min_compression=3.0)
    info = comparison_info([one, other], ["_one", "two $"])
    assert info.size_axis == "nominal"
    for run, outcome in zip(info.runs, (one, other), strict=True):
        expected = front(replace(outcome, quality="damage", size_axis="nominal"))
        assert [trial.number for trial in run.front] == [trial.number for trial in expected]
    assert info.warnings == ("two $ was searched by packed size; this page compares nominal sizes.",)
    write_comparison(info, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"comparison.{suffix}" for suffix in ("html", "png", "svg", "csv")
    }
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert table["run"].value_counts(sort=False).tolist() == [len(run.front) for run in info.runs]
    assert (table["damage_low"] < table["damage"]).all() and (table["mcc"] < table["mcc_high"]).all()
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    for words in ("_one against two $", info.warnings[0], "8x nominal or more", "Knee of the front"):
        assert words in page
    lines = [DrawnRun("_one", [(8.0, 0.1)]), DrawnRun("two $", [(8.0, 0.2), (9.0, 0.3)])]
    [axes] = draw_comparison(lines, [(5.6, 0.1)], "nominal").axes
    legend = axes.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 3
    assert np.asarray(axes.get_lines()[1].get_xdata()).tolist() == [8.0, 9.0]


def test_distilled_maps_are_drawn_and_listed_beside_the_fronts(tmp_path: Path) -> None:
    one, other = made_up_outcome(trials=20), made_up_outcome(trials=20)
    maps = [made_up_distilled(other.trials[-1]), made_up_distilled(other.trials[-1], trained="scales")]
    info = comparison_info([one, other], ["searched", "trained"], [(), maps])
    write_comparison(info, tmp_path)
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    table = page[page.index("<h2>Distilled maps</h2>") : page.index("<h2>The runs</h2>")]
    assert table.count("<span>trained</span></th>") == 2 and "<span>searched</span></th>" not in table
    assert "damage distilled" in table and "checkpoint" not in table
    points = distilled_points(info.runs[1].analysis, maps)
    [axes] = draw_comparison([DrawnRun("searched", []), DrawnRun("trained", [], points)], [], "nominal").axes
    legend = axes.get_legend()
    assert legend is not None
    texts = [text.get_text().strip("\u200b") for text in legend.get_texts()]
    assert texts == ["searched", "trained", "trained, distilled: weights", "trained, distilled: scales"]


def test_warnings_name_the_runs_that_do_not_compare() -> None:
    one, longer = made_up_outcome(trials=2), made_up_outcome(trials=2, sentences=100)
    another = replace(one, fp32_log_odds=one.fp32_log_odds + 1)
    info = comparison_info([one, longer, another], ["a", "b", "c"])
    assert [warning.split(" than a")[0] for warning in info.warnings] == [
        "b was scored on other sentences",
        "c has another FP32 model",
    ]


def test_a_run_that_does_not_know_onnx_sizes_is_compared_by_nominal_sizes() -> None:
    onnx = made_up_outcome(trials=5, size_axis="onnx", min_compression=2.0)
    assert comparison_info([onnx, onnx], ["a", "b"]).size_axis == "onnx"
    info = comparison_info([onnx, made_up_outcome(trials=5)], ["a", "b"])
    assert info.size_axis == "nominal"
    assert info.warnings == ("a was searched by ONNX size; this page compares nominal sizes.",)
    assert comparison_table(info)["nominal_compression"].min() >= 2.0


@pytest.mark.parametrize("count", [1, 2])
def test_runs_without_a_map_are_compared_too(count: int, tmp_path: Path) -> None:
    outcomes = [empty_outcome(), made_up_outcome(trials=0)][:count]
    info = comparison_info(outcomes, ["a", "b"][:count])
    write_comparison(info, tmp_path)
    assert len(comparison_table(info)) == sum(len(run.front) for run in info.runs)


def test_every_run_has_its_picks_beside_what_they_were_made_by() -> None:
    """The first has a tighter constraint and asks for fewer sizes; only the other was checked on unseen sentences."""
    tight, checked = made_up_outcome(min_compression=8.0), made_up_outcome()
    checked = with_unseen(checked, [trial for trial in checked.trials if trial.feasible])
    info = comparison_info([tight, checked], ["tight", "checked"])
    rows = picks_comparison(info)
    [pick, unseen] = [column for column in map_columns(info) if column.heading in ("pick", "damage, unseen")]
    assert [(pick.line(row), row.run.name) for row in rows[:3]] == [
        ("5.5x nominal or more", "checked"),
        ("8x nominal or more", "tight"),
        ("8x nominal or more", "checked"),
    ]
    assert pick.line(rows[-1]) == "Knee of the front"
    assert all(bool(unseen.line(row)) == (row.run.name == "checked") for row in rows)
    assert "other unseen sentences" in info.warnings[0]
    assert unseen in shown([pick, unseen], rows)
    unchecked = comparison_info([tight, made_up_outcome()], ["a", "b"])
    headings = [column.heading for column in shown(map_columns(unchecked), picks_comparison(unchecked))]
    assert "MCC (95% interval)" in headings and "damage, unseen" not in headings
