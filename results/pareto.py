"""Which maps no other map beats: dominance and the front of an outcome. Everything is minimised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from objectives.packing.footprint import Footprint, SizeAxis
from objectives.scores import Scores
from results.outcome import Outcome, Quality, Trial

Costs = npt.NDArray[np.float64]


def non_dominated(costs: Costs) -> npt.NDArray[np.bool_]:
    """Return which points no other point beats, in O(n log n).

    A point is beaten by one that is at most as high in both columns and lower in one. Of points that are equal in both
    columns only the first is kept; a point with a NaN is never kept and beats nothing.

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
    # Sorted by the first column, then the second, then position: a point is beaten, or a repetition, exactly where the
    # second column has been as low before. lexsort is stable, which is what keeps the first of equal points.
    order = usable[np.lexsort((costs[usable, 1], costs[usable, 0]))]
    second = costs[order, 1]
    kept[order[0]] = True
    kept[order[1:]] = second[1:] < np.minimum.accumulate(second)[:-1]
    return kept


def quality_cost(scores: Scores, quality: Quality) -> float:
    """Return the quality as a cost, lower is better: the one place where the sign of MCC and agreement flips."""
    if quality == "damage":
        return scores.damage
    return -(scores.mcc if quality == "mcc" else scores.agreement)


def fp32_size(footprint: Footprint, axis: SizeAxis) -> int:
    """Return the size of the FP32 model: nominal in bits, packed in bytes."""
    return footprint.fp32_nominal_bits if axis == "nominal" else footprint.fp32_packed_bytes


def exact_sizes(footprint: Footprint, trials: Sequence[Trial], axis: SizeAxis) -> npt.NDArray[np.int64]:
    """Return the size of every trial's map, ``(n_trials,)``: nominal in bits, packed in bytes.

    The FP32 size over the trial's compression, rounded, is the exact integer while sizes are below 2**51: both
    divisions err by less than half a unit. Laying out the packed file of 2,000 maps anew would take a second.
    """
    full = fp32_size(footprint, axis)
    assert full < 2**51
    compressions = np.array([trial.compression(axis) for trial in trials], dtype=np.float64)
    return np.rint(full / compressions).astype(np.int64)


def front(outcome: Outcome) -> tuple[Trial, ...]:
    """Return the non-dominated trials on (quality, size), from the largest map to the smallest.

    Only trials that are complete and meet the size constraint take part, whoever proposed them: a reference or
    contender that misses it is never on the front. Of maps that are equal in both, the first trial is kept.
    """
    taking_part = [trial for trial in outcome.trials if trial.scores is not None and trial.feasible]
    costs = _costs(outcome, taking_part)
    kept = np.flatnonzero(non_dominated(costs))
    return tuple(taking_part[at] for at in kept[np.argsort(-costs[kept, 1])])


def beaten_by(outcome: Outcome, maps: Sequence[Trial], trial: Trial) -> Trial | None:
    """Return the map that beats ``trial`` on (quality, size), the one of best quality; None where none does.

    Args:
        outcome: what the maps belong to.
        maps: complete trials to look among, as :func:`front` returns them.
        trial: a complete trial, feasible or not.
    """
    own = _costs(outcome, [trial])
    others = _costs(outcome, maps)
    beating = np.flatnonzero((others <= own).all(axis=1) & (others < own).any(axis=1))
    if not beating.size:
        return None
    best = np.lexsort((others[beating, 1], others[beating, 0]))[0]
    return maps[int(beating[best])]


def least_damage(outcome: Outcome, maps: Sequence[Trial], trial: Trial) -> Trial | None:
    """Return the complete map of least damage among those no larger than ``trial``; None where none is that small."""
    axis = outcome.size_axis
    no_larger = [(other.scores.damage, other.number, other) for other in maps if other.scores is not None]
    no_larger = [entry for entry in no_larger if entry[2].compression(axis) >= trial.compression(axis)]
    return min(no_larger, key=lambda entry: entry[:2])[2] if no_larger else None


def _costs(outcome: Outcome, trials: Sequence[Trial]) -> Costs:
    """Return ``(n_trials, 2)`` of quality as a cost and exact size, of complete trials."""
    scores = [trial.scores for trial in trials if trial.scores is not None]
    assert len(scores) == len(trials)
    qualities = np.array([quality_cost(score, outcome.quality) for score in scores], dtype=np.float64)
    return np.column_stack([qualities, exact_sizes(outcome.footprint, trials, outcome.size_axis)])
