"""What plots and the first screen show of a run's distilled maps."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose, isnan

from objectives.metrics import METRIC_NAMES
from results.formatting import map_name, maps, metric, nats, times_smaller
from results.plots.distilled_info import Change, DistilledPoint
from results.report.distilled import DistilledMap, least_held_out
from results.statistics.analysis import Analysis
from results.statistics.bootstrap import Interval


def distilled_points(analysis: Analysis, distilled: Sequence[DistilledMap]) -> tuple[DistilledPoint, ...]:
    """Return what plots show: the maps that distillation improved, on the sentences that the plots show maps on.

    A map's unseen damage is shown only if it was the same before as in the search's check: a search with few training
    sentences checks on more of them than distillation leaves.
    """
    trials = {trial.number: trial for trial in analysis.outcome.trials}
    points = []
    for one in distilled:
        if not one.kept or one.number not in trials:
            continue
        unseen, known = None, analysis.unseen.get(one.number)
        if known is not None and isclose(one.unseen_before, known.damage, rel_tol=0.01, abs_tol=1e-6):
            unseen = _change(one, "unseen")
        figures = _change(one, "damage"), _change(one, "metric"), unseen
        points.append(DistilledPoint(trials[one.number], one.trained, *figures))
    return tuple(points)


def distilled_gain(analysis: Analysis, distilled: Sequence[DistilledMap]) -> str:
    """Return what distillation gained, in one sentence without a full stop; empty if no map was distilled.

    It is about the smallest of the maps that distillation improved. Of several trainings of that map, it takes the one
    with the least held-out damage, as ``export --distilled`` does. Figures are from the holdout set if the map has
    some, else from the validation sentences.
    """
    if not distilled:
        return ""
    trials = {trial.number: trial for trial in analysis.outcome.trials}
    improved = [one for one in distilled if one.kept and one.number in trials]
    if not improved:
        return "no map gained: damage did not fall on training sentences that were held out"
    smallest = max(improved, key=lambda one: one.nominal_compression)
    one = least_held_out([other for other in improved if other.number == smallest.number])
    outcome, trial = analysis.outcome, trials[smallest.number]
    if isnan(one.holdout_damage_after) or outcome.holdout is None or outcome.holdout.withdrawn:
        prefix, where = "", f"{len(outcome.labels):,} validation sentences"
    else:
        prefix, where = "holdout_", f"{len(outcome.holdout.labels):,} holdout sentences"
    damage, quality = _change(one, f"{prefix}damage"), _change(one, f"{prefix}metric")
    count = len({one.number for one in distilled})
    which = "" if count == 1 else f"{maps(count)}; the smallest that gained is "
    return (
        f"{which}{map_name(outcome, trial)}, {times_smaller(trial.compression(outcome.file_axis))}: at the same size, "
        f"damage went from {nats(damage.before)} to {nats(damage.after)}, and {METRIC_NAMES[outcome.metric]} from "
        f"{metric(quality.before)} to {metric(quality.after)}, on {where}"
    )


def _change(one: DistilledMap, name: str) -> Change:
    before, after, low, high = (getattr(one, f"{name}_{end}") for end in ("before", "after", "after_low", "after_high"))
    return Change(before, after, None if isnan(low) else Interval(low, high))
