"""What the script of a run's page draws: points, fronts, bit maps and export commands, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from objectives.metrics import METRIC_NAMES
from objectives.packing.footprint import AXIS_NAMES, SizeAxis
from results.formatting import DAMAGE, map_name, proposer
from results.outcome import Outcome, Trial
from results.pareto import exact_sizes, non_dominated, quality_cost
from results.plots.distilled_info import DistilledPoint
from results.plots.plot_info import layer_grid
from results.plots.style import DAMAGE_FLOOR
from results.report.commands import trial_commands
from results.report.document import as_json
from results.report.tables import request_text
from results.statistics.analysis import Analysis
from results.statistics.bootstrap import Interval
from results.statistics.picks import SMALLEST

_DIGITS = 9  # enough for every figure on the page, and fewer bytes than a float's 17


@dataclass(frozen=True)
class _Quality:
    """One quality that the page plots: its name, what people read in short and in full, and each map's cost."""

    name: str
    short: str
    text: str
    costs: Mapping[int, float]


def page_json(analysis: Analysis, run: str, distilled: Sequence[DistilledPoint] = ()) -> Markup:
    """Return :func:`page_data` as JSON that is safe inside a page's script element."""
    return Markup(as_json(page_data(analysis, run, distilled)).replace("<", r"\u003c"))  # noqa: S704  # no tag can begin in it


def page_data(analysis: Analysis, run: str, distilled: Sequence[DistilledPoint] = ()) -> dict[str, Any]:
    """Return what the page's script draws.

    ``maps`` are the maps of any front, the picks, the baselines, and the front's neighbours that were scored on unseen
    sentences, all with their bits. ``others`` are the remaining complete trials as points only, in the order of
    ``fields``. ``distilled`` are the distilled maps, by the number of the map as searched, whose figures are in
    ``from``; no front has them. ``fronts`` has the trial numbers of the front of each quality and size axis, by rising
    compression.

    Args:
        analysis: of the run.
        run: its directory, as commands name it.
        distilled: its distilled maps.
    """
    outcome = analysis.outcome
    axes = _axes(outcome)
    qualities = _qualities(analysis)
    fronts = {f"{quality.name} {axis}": _front(outcome, quality.costs, axis) for quality in qualities for axis in axes}
    with_maps = {number for front in fronts.values() for number in front}
    with_maps |= {trial.number for trial in analysis.shown} | set(analysis.picked)
    complete = [trial for trial in outcome.trials if trial.scores is not None]
    points = {trial.number: _point(analysis, trial, axes) for trial in complete}
    others = [points[trial.number] for trial in complete if trial.number not in with_maps]
    grid = layer_grid(outcome.footprint.layers)
    start = analysis.headline(SMALLEST)
    return {
        "axes": [{"name": axis, "text": AXIS_NAMES[axis], "fp32": outcome.footprint.fp32_size(axis)} for axis in axes],
        "qualities": [{"name": quality.name, "short": quality.short, "text": quality.text} for quality in qualities],
        "size": outcome.size_axis,
        "quality": "metric" if outcome.quality == "mcc" else outcome.quality,
        "least": outcome.min_compression,
        "metric": METRIC_NAMES[outcome.metric],
        "fp32": [_short(value) for value in (outcome.fp32.metric, *_ends(analysis.fp32_metric))],
        "floor": DAMAGE_FLOOR,
        "rows": grid.rows,
        "columns": grid.columns,
        "cells": [[cell.layer, cell.row, cell.column] for cell in grid.cells],
        "maps": [_with_map(analysis, trial, points[trial.number]) for trial in complete if trial.number in with_maps],
        "distilled": [_distilled(analysis, point, axes) for point in distilled],
        "fields": list(others[0]) if others else [],
        "others": [list(point.values()) for point in others],
        "fronts": fronts,
        "documented": analysis.reference.number if analysis.reference and analysis.reference.scores else None,
        "start": start.trial.number if start and start.trial else None,
        "commands": trial_commands(outcome, run),
    }


def _axes(outcome: Outcome) -> tuple[SizeAxis, ...]:
    return ("nominal", "packed", *(() if outcome.footprint.onnx is None else ("onnx",)))


def _qualities(analysis: Analysis) -> list[_Quality]:
    outcome = analysis.outcome
    scores = {trial.number: trial.scores for trial in outcome.trials if trial.scores is not None}
    metric = METRIC_NAMES[outcome.metric]
    qualities = [
        _Quality("damage", "damage", DAMAGE, {number: score.damage for number, score in scores.items()}),
        _Quality("metric", metric, metric, {number: quality_cost(score, "mcc") for number, score in scores.items()}),
    ]
    if outcome.quality == "agreement":
        costs = {number: quality_cost(score, "agreement") for number, score in scores.items()}
        qualities.append(_Quality("agreement", "agreement", "agreement (same top class)", costs))
    if analysis.unseen:
        unseen = {number: result.damage for number, result in analysis.unseen.items()}
        qualities.append(_Quality("unseen", "unseen damage", "damage on unseen sentences", unseen))
    return qualities


def _front(outcome: Outcome, costs: Mapping[int, float], axis: SizeAxis) -> list[int]:
    """Return the numbers of the maps that meet the constraint and that no other beats, by rising compression."""
    trials = [trial for trial in outcome.trials if trial.feasible and trial.number in costs]
    if not trials:
        return []
    sizes = exact_sizes(outcome.footprint, trials, axis)
    kept = np.flatnonzero(non_dominated(np.column_stack([[costs[trial.number] for trial in trials], sizes])))
    return [trials[at].number for at in kept[np.argsort(-sizes[kept])]]


def _point(analysis: Analysis, trial: Trial, axes: Sequence[SizeAxis]) -> dict[str, Any]:
    assert trial.scores is not None
    unseen = analysis.unseen.get(trial.number)
    agreement = {"agreement": trial.scores.agreement} if analysis.outcome.quality == "agreement" else {}
    compressions: dict[str, float | None] = {axis: trial.compression(axis) for axis in axes}
    figures = {
        **compressions,
        "damage": trial.scores.damage,
        "metric": trial.scores.metric,
        **agreement,
        "unseen": unseen.damage if unseen else None,
    }
    return {
        "number": trial.number,
        "label": map_name(analysis.outcome, trial),
        "feasible": int(trial.feasible),
        **{name: _short(value) for name, value in figures.items()},
    }


def _with_map(analysis: Analysis, trial: Trial, point: dict[str, Any]) -> dict[str, Any]:
    intervals, unseen = analysis.intervals.get(trial.number), analysis.unseen.get(trial.number)
    ends: dict[str, Interval] = {"unseen": unseen.interval} if unseen else {}
    ends |= {"damage": intervals.damage, "metric": intervals.metric} if intervals else {}
    picks = [line.request for line in analysis.headlines if line.trial and line.trial.number == trial.number]
    return {
        **point,
        "origin": trial.origin,
        "by": proposer(trial.origin),
        "picks": [request_text(analysis.outcome, request) for request in picks],
        "ends": {name: [_short(end) for end in _ends(interval)] for name, interval in ends.items()},
        "bits": "".join(map(str, trial.bit_map)),
    }


def _distilled(analysis: Analysis, point: DistilledPoint, axes: Sequence[SizeAxis]) -> dict[str, Any]:
    changes = {"damage": point.damage, "metric": point.metric}
    changes |= {"unseen": point.unseen} if point.unseen else {}
    intervals = {name: change.interval for name, change in changes.items() if change.interval}
    return {
        "number": point.trial.number,
        "label": f"{map_name(analysis.outcome, point.trial)}, distilled ({point.trained})",
        "trained": point.trained,
        "feasible": int(point.trial.feasible),
        **{axis: _short(point.trial.compression(axis)) for axis in axes},
        **{name: _short(change.after) for name, change in changes.items()},
        "from": {name: _short(change.before) for name, change in changes.items()},
        "ends": {name: [_short(end) for end in _ends(interval)] for name, interval in intervals.items()},
    }


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
