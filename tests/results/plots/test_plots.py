"""Plots: the values that they draw, and that their files are whole."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from objectives.layers import WIDTHS, Layer, uniform
from results.outcome import Outcome, Quality
from results.pareto import front
from results.plots.heat_maps import (
    draw_bits,
    draw_sensitivity,
    sensitivity_table,
    write_bits_plot,
    write_sensitivity_plot,
)
from results.plots.pareto import draw_pareto, write_pareto_plot
from results.plots.plot_info import MOST_PICKED_MAPS, bits_info, bits_table, pareto_info, pareto_table
from results.plots.progress import draw_progress, write_progress_plot
from results.plots.progress_info import progress_info, progress_table
from results.plots.style import DAMAGE_FLOOR, PNG_DPI
from results.plots.unseen import draw_unseen, unseen_table
from results.statistics.analysis import analyse
from results.statistics.picks import SMALLEST
from tests.results.synthetic import (
    bert_layers,
    empty_outcome,
    failed,
    made_up_outcome,
    made_up_trial,
    scored,
    with_trials,
    with_unseen,
)


def test_pareto_info_shows_every_complete_trial_once() -> None:
    outcome = made_up_outcome(trials=30)
    outcome = replace(outcome, trials=tuple(failed(t) if t.number in (2, 20) else t for t in outcome.trials))
    info = pareto_info(analyse(outcome))
    assert [point.number for point in info.points] == [t.number for t in outcome.trials if t.scores is not None]
    assert [point.number for point in info.front] == [trial.number for trial in front(outcome)]
    assert [point.short_label for point in info.baselines] == ["2", "4", "5", "6", "7", "8"]
    assert info.reference is not None and info.reference.label == "documented"
    sampled = {trial.number for trial in outcome.trials if trial.origin == "sampler" and trial.scores is not None}
    assert {point.number for point in info.others} == sampled - {trial.number for trial in front(outcome)}
    for point in info.points:
        trial = next(trial for trial in outcome.trials if trial.number == point.number)
        assert trial.scores is not None
        assert (point.compression, point.damage, point.metric) == (
            trial.nominal_compression,
            trial.scores.damage,
            trial.scores.metric,
        )
        assert point.feasible == trial.feasible
        assert (point.metric_interval is not None) == (point.on_front or point.origin != "sampler")
        if point.metric_interval is not None:
            assert point.metric_interval.low <= point.metric <= point.metric_interval.high
    assert (info.fp32_metric, info.min_compression) == (outcome.fp32.metric, 5.5)


def test_pareto_info_counts_on_the_size_axis() -> None:
    outcome = made_up_outcome(trials=3, size_axis="packed", min_compression=3.0)
    info = pareto_info(analyse(outcome))
    assert [point.compression for point in info.points] == [trial.packed_compression for trial in outcome.trials]
    assert "packed_compression" in pareto_table(info).columns


def test_pareto_figure_draws_the_front_and_lifts_zero_damage_to_the_floor() -> None:
    outcome = made_up_outcome(trials=30)
    outcome = replace(outcome, trials=(*outcome.trials[:-1], scored(outcome.trials[-1], damage=0.0)))
    info = pareto_info(analyse(outcome))
    upper, lower = draw_pareto(info).axes[:2]
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in upper.get_lines()}
    front_heights = drawn["front of damage and size"]
    assert front_heights.tolist() == [max(point.damage, DAMAGE_FLOOR) for point in info.front]
    assert min(front_heights) == DAMAGE_FLOOR
    assert any("is drawn at" in text.get_text() for text in upper.texts)
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in lower.get_lines()}
    assert drawn["front of damage and size"].tolist() == [point.metric for point in info.front]
    corrected = [point.corrected.metric for point in info.points if point.corrected is not None]
    assert drawn["picks corrected for luck, 95% interval"].tolist() == corrected
    assert 1 <= len(corrected) <= 4  # picks by size


@pytest.mark.parametrize(
    ("quality", "stepped"), [("damage", [True, False]), ("mcc", [False, True]), ("agreement", [False, False])]
)
def test_the_front_steps_in_the_panel_of_its_quality(quality: Quality, stepped: list[bool]) -> None:
    # Between two maps one gets the next smaller map, so the height is that of the point to the right: "pre".
    panels = draw_pareto(pareto_info(analyse(made_up_outcome(trials=10, quality=quality)))).axes[:2]
    assert [any(line.get_drawstyle() == "steps-pre" for line in axes.get_lines()) for axes in panels] == stepped


def test_heat_map_places_every_layer_of_bert() -> None:
    info = bits_info(analyse(made_up_outcome(trials=60)))
    blocks = [f"layer {number}" for number in range(12)]
    assert info.grid.rows == ("word embeddings", "position embeddings", "token type embeddings", *blocks, "pooler")
    assert info.grid.columns == ("query", "key", "value", "attention output", "intermediate", "output")
    places = {cell.layer: (cell.row, cell.column) for cell in info.grid.cells}
    assert len(places) == len(set(places.values())) == 76
    assert places["bert.embeddings.position_embeddings"] == (1, None)
    assert places["bert.encoder.layer.2.attention.output.dense"] == (5, 3)
    assert places["bert.encoder.layer.11.output.dense"] == (14, 5)
    assert places["bert.pooler.dense"] == (15, None)
    assert [shown.title[0].partition(":")[0] for shown in info.maps] == [
        "documented",
        "best@5.5x",
        "best@8x",
        "best@10.67x",
        "best@12.8x",
    ]
    table = bits_table(info)
    assert len(table) == 76 * (1 + MOST_PICKED_MAPS)
    documented = table[table["map"] == "documented"]
    assert documented.set_index("layer").loc["bert.encoder.layer.4.output.dense", "bits"] == 8
    assert documented.set_index("layer").loc["bert.embeddings.token_type_embeddings", "bits"] == 2


def test_heat_map_shows_a_map_once_however_often_it_is_picked() -> None:
    outcome = empty_outcome()
    outcome = with_trials(outcome, [made_up_trial(outcome, 4, (3,) * 76)])
    assert [shown.title[0] for shown in bits_info(analyse(outcome)).maps] == ["best@5.5x: trial 4"]


def test_heat_map_shows_the_recommended_map() -> None:
    analysis = analyse(replace(made_up_outcome(trials=60), margin=0.2))
    recommended = analysis.headline(SMALLEST)
    assert recommended is not None and recommended.trial is not None
    shown = bits_info(analysis).maps
    assert recommended.trial.number in {one.number for one in shown}
    sizes = [sum(one.bit_map) for one in shown if one.label != "documented"]
    assert sizes == sorted(sizes, reverse=True)


def one_map(outcome: Outcome) -> Outcome:
    bit_map = (4,) * len(outcome.footprint.layers)
    return with_trials(outcome, [made_up_trial(outcome, 0, bit_map)])


# Runs without a trial, with failed ones alone, or none feasible: see the tests of the report, which draws them.
EDGES: dict[str, Callable[[], Outcome]] = {
    "one layer": lambda: one_map(empty_outcome(layers=[Layer("net.projection", "linear", 64, 64)])),
    "twenty blocks": lambda: one_map(empty_outcome(layers=bert_layers(blocks=20))),
    "packed mcc": lambda: made_up_outcome(trials=20, size_axis="packed", quality="mcc", min_compression=3.0),
}


@pytest.mark.end_to_end
@pytest.mark.parametrize("edge", EDGES)
def test_plots_are_written_whole(edge: str, tmp_path: Path) -> None:
    analysis = analyse(EDGES[edge]())
    svgs = [write_pareto_plot(pareto_info(analysis), tmp_path), write_bits_plot(bits_info(analysis), tmp_path)]
    svgs.append(write_progress_plot(progress_info(analysis), tmp_path))
    names = [f"{stem}.{suffix}" for stem in ("bits", "pareto", "progress") for suffix in ("csv", "png", "svg")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names  # and no temporary file is left
    for stem, svg in zip(("pareto", "bits", "progress"), svgs, strict=True):
        assert (tmp_path / f"{stem}.svg").read_text(encoding="utf-8") == svg
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert _dots_an_inch((tmp_path / f"{stem}.png").read_bytes()) == pytest.approx(PNG_DPI, abs=0.1)
    table = pd.read_csv(tmp_path / "pareto.csv")
    assert len(table) == 1 + analysis.complete
    assert table["label"].iloc[0] == "FP32"


def test_the_same_outcome_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        analysis = analyse(EDGES["one layer"]())
        write_pareto_plot(pareto_info(analysis), tmp_path / name)
        write_bits_plot(bits_info(analysis), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_labels_are_drawn_as_they_are() -> None:
    # A dollar sign would begin a formula.
    outcome = empty_outcome()
    trial = replace(made_up_trial(outcome, 0, (4,) * 76, "uniform", "a $ and b $"), bit_map=(4, 5) * 38)
    analysis = analyse(with_trials(outcome, [trial]))
    for figure in (draw_pareto(pareto_info(analysis)), draw_bits(bits_info(analysis))):
        texts = [text for axes in figure.axes for text in axes.texts if "$" in text.get_text()]
        assert texts
        assert not any(text.get_parse_math() for text in texts)


def _dots_an_inch(png: bytes) -> float:
    """Return the resolution that a PNG file states in its pHYs chunk, in dots a metre there."""
    at = png.index(b"pHYs") + 4
    across, down, unit = struct.unpack(">IIB", png[at : at + 9])
    assert across == down and unit == 1
    return float(across) * 0.0254


def test_a_model_that_the_documented_map_does_not_fit_has_no_marks_or_panels_of_it() -> None:
    outcome = empty_outcome(layers=bert_layers(blocks=6), sentences=60)
    layers = outcome.footprint.layers
    made = [made_up_trial(outcome, width, uniform(layers, width), "uniform", f"uniform {width}") for width in (3, 4)]
    made.append(made_up_trial(outcome, 5, (3, *uniform(layers, 4)[1:])))
    analysis = analyse(with_unseen(with_trials(outcome, made), made, sentences=60))
    assert bits_info(analysis).grid.rows[-2:] == ("layer 5", "pooler")
    titles = [shown.label for shown in bits_info(analysis).maps]
    figures = (draw_pareto(pareto_info(analysis)), draw_unseen(unseen_table(analysis), "nominal"))
    listed = [{text.get_text() for legend in figure.legends for text in legend.get_texts()} for figure in figures]
    assert titles and all(listed)
    assert not any("documented" in text or "knapsack" in text for text in {*titles, *listed[0], *listed[1]})
    assert sum(text.startswith("uniform baseline") for texts in listed for text in texts) == 2


def test_progress_steps_down_to_the_picks() -> None:
    outcome = made_up_outcome(trials=60)
    outcome = replace(outcome, trials=tuple(failed(t) if t.number == 20 else t for t in outcome.trials))
    analysis = analyse(outcome)
    info = progress_info(analysis)
    assert [request for request, _ in info.lines] == ["best@5.5x", "best@8x", "best@10.67x", "best@12.8x"]
    assert (info.evaluations, info.baselines) == (68, 8)
    assert info.elapsed_s == outcome.trials[-1].finished_s
    for request, steps in info.lines:
        least = {"best@5.5x": 5.5, "best@8x": 8, "best@10.67x": 10.66, "best@12.8x": 12.8}[request]
        running: list[tuple[int, float]] = []
        for done, trial in enumerate(outcome.trials, start=1):
            if trial.scores is None or not trial.feasible or trial.nominal_compression < least:
                continue
            if not running or trial.scores.damage < running[-1][1]:
                running.append((done, trial.scores.damage))
        assert [(step.evaluations, step.damage) for step in steps] == running
        assert len(running) > 1
    assert len(progress_table(info)) == sum(len(steps) for _, steps in info.lines)
    by_count, by_time = draw_progress(info).axes
    assert draw_progress(info).get_supylabel() == "least damage so far, nats a sentence"
    assert by_time.get_xlabel().startswith("minutes since")
    [line] = [line for line in by_count.get_lines() if line.get_label() == "best@8x"]
    steps = dict(info.lines)["best@8x"]
    assert np.asarray(line.get_xdata()).tolist() == [*(step.evaluations for step in steps), 68]


def test_progress_of_a_run_without_trials_says_so() -> None:
    figure = draw_progress(progress_info(analyse(empty_outcome())))
    assert "no map has been scored yet" in [text.get_text() for text in figure.texts]


@pytest.mark.end_to_end
def test_the_sensitivity_plot_has_a_panel_for_each_small_width_and_its_numbers_beside_it(tmp_path: Path) -> None:
    layers = bert_layers()
    damages = np.geomspace(0.3, 1e-7, len(layers))[:, None] * 4.0 ** -np.arange(len(WIDTHS))
    measured = np.zeros(damages.shape, dtype=np.bool_)
    measured[:, :2] = True
    svg = write_sensitivity_plot(layers, damages, measured, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"sensitivity.{suffix}" for suffix in ("png", "svg", "csv")}
    assert svg.startswith("<?xml")
    table = pd.read_csv(tmp_path / "sensitivity.csv")
    assert list(table.columns) == ["layer", "width", "damage", "source"]
    assert table.damage.to_numpy().reshape(damages.shape) == pytest.approx(damages)
    assert set(table.source[table.width <= 3]) == {"measured"}
    assert set(table.source[table.width > 3]) == {"gradient"}
    figure = draw_sensitivity(layers, damages)
    titles = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [title for title in titles if title.endswith(" bits")] == ["2 bits", "3 bits", "4 bits", "5 bits"]
    assert "300" in titles  # thousandths of a nat


def test_sensitivities_of_a_model_without_damage_are_drawn() -> None:
    layers = bert_layers()
    assert draw_sensitivity(layers, np.zeros((len(layers), len(WIDTHS)))).axes


def test_sensitivities_are_shown_at_the_widths_of_the_run() -> None:
    layers = bert_layers()[:3]
    damages = np.array([[0.4, 0.2], [0.3, 0.1], [0.2, 0.0]])
    table = sensitivity_table(layers, damages, damages > 0.25, (4, 8))
    assert table.width.tolist() == [4, 8] * 3
    assert table.source.tolist() == ["measured", "gradient", "measured", *["gradient"] * 3]
    titles = [text.get_text() for axes in draw_sensitivity(layers, damages, (4, 8)).axes for text in axes.texts]
    assert [title for title in titles if title.endswith(" bits")] == ["4 bits", "8 bits"]
