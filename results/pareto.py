"""Dominance and the Pareto front of an outcome; both objectives are minimised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from objectives.packing.footprint import Footprint, SizeAxis
from objectives.scores import Scores
from results.outcome import Outcome, Quality, Trial

Costs = npt.NDArray[np.float64]


def non_dominated(costs: Costs) -> npt.NDArray[np.bool_]:
    """Return which points are not dominated, in O(n log n).

    A point dominates another if it is no higher in both columns and lower in one. Of equal points only the first is
    kept. A point with a NaN is never kept and dominates nothing.

    Args:
        costs: ``(n, 2)``; both columns lower is better.

    Returns:
        ``(n,)`` of bool.

    Raises:
        ValueError: ``costs`` is not of shape ``(n, 2)``.
    """
    if costs.ndim != 2 or costs.shape[1] != 2:
        raise ValueError(f"costs must have shape (n, 2), not {costs.shape}")
    kept = np.zeros(len(costs), dtype=np.bool_)
    (usable,) = np.nonzero(~np.isnan(costs).any(axis=1))
    if not usable.size:
        return kept
    # Sort by the first column, then the second. A point is then dominated, or a repetition, if an earlier one is as low
    # in the second column. lexsort is stable, so the first of equal points is kept.
    order = usable[np.lexsort((costs[usable, 1], costs[usable, 0]))]
    second = costs[order, 1]
    kept[order[0]] = True
    kept[order[1:]] = second[1:] < np.minimum.accumulate(second)[:-1]
    return kept


def quality_cost(scores: Scores, quality: Quality) -> float:
    """Return the quality as a cost, lower is better: metric and agreement change sign, here and nowhere else."""
    value = scores.quality(quality)
    return value if quality == "damage" else -value


def fp32_size(footprint: Footprint, axis: SizeAxis) -> int:
    """Return the size of the FP32 model: nominal in bits, else in bytes."""
    return footprint.fp32_size(axis)


def exact_sizes(footprint: Footprint, trials: Sequence[Trial], axis: SizeAxis) -> npt.NDArray[np.int64]:
    """Return the size of every trial's map, ``(n_trials,)``: nominal in bits, else in bytes.

    The FP32 size over the trial's compression, rounded, is the exact integer while sizes are below 2**51: both
    divisions err by less than half a unit. Computing the packed layout of 2,000 maps again would take a second.
    """
    fp32 = fp32_size(footprint, axis)
    assert fp32 < 2**51
    compressions = np.array([trial.compression(axis) for trial in trials], dtype=np.float64)
    return np.rint(fp32 / compressions).astype(np.int64)


def front(outcome: Outcome) -> tuple[Trial, ...]:
    """Return the non-dominated trials on (quality, size), from the largest map to the smallest.

    Only complete trials that meet the size constraint take part; this holds for the reference and the baselines too.
    Of maps that are equal in both objectives, the first trial is kept.
    """
    taking_part = [trial for trial in outcome.trials if trial.scores is not None and trial.feasible]
    costs = _costs(outcome, taking_part)
    kept = np.flatnonzero(non_dominated(costs))
    return tuple(taking_part[at] for at in kept[np.argsort(-costs[kept, 1])])


def beaten_by(outcome: Outcome, maps: Sequence[Trial], trial: Trial) -> Trial | None:
    """Return the map that dominates ``trial`` on (quality, size), the one of best quality; None if none does.

    Args:
        outcome: the outcome that the maps belong to.
        maps: the complete trials to search, as :func:`front` returns them.
        trial: a complete trial, feasible or not.
    """
    own = _costs(outcome, [trial])
    others = _costs(outcome, maps)
    dominating = np.flatnonzero((others <= own).all(axis=1) & (others < own).any(axis=1))
    if not dominating.size:
        return None
    best = np.lexsort((others[dominating, 1], others[dominating, 0]))[0]
    return maps[int(dominating[best])]


def least_damage(outcome: Outcome, maps: Sequence[Trial], trial: Trial) -> Trial | None:
    """Return the complete map of least damage among those no larger than ``trial``; None if none is that small."""
    least = trial.compression(outcome.size_axis)
    scored = [(other.scores.damage, other.number, other) for other in maps if other.scores is not None]
    small = [entry for entry in scored if entry[2].compression(outcome.size_axis) >= least]
    return min(small, key=lambda entry: entry[:2])[2] if small else None


def _costs(outcome: Outcome, trials: Sequence[Trial]) -> Costs:
    """Return each complete trial's quality as a cost and its exact size, ``(n_trials, 2)``."""
    scores = [trial.scores for trial in trials if trial.scores is not None]
    assert len(scores) == len(trials)
    qualities = np.array([quality_cost(score, outcome.quality) for score in scores], dtype=np.float64)
    return np.column_stack([qualities, exact_sizes(outcome.footprint, trials, outcome.size_axis)])
