"""Studies of a tiny problem, evaluated in the test's own process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna

from objectives.layers import WIDTHS, BitMap
from objectives.problem import Problem
from results.outcome import Quality
from search.allocation.constraint import SizeConstraint
from search.allocation.sensitivity import Sensitivities
from search.study.study import tell
from tests.search.tiny_problem import ask


def guess_of_sensitivities(problem: Problem, widths: Sequence[int] = WIDTHS) -> Sensitivities:
    """Return made-up sensitivities that shrink as widths grow."""
    outputs = problem.fp32_log_odds
    shape = (len(problem.layers), len(widths))
    scales = 2.0 ** -np.array(widths).reshape(-1, *[1] * outputs.ndim)
    shifts = np.random.default_rng(0).standard_normal((*shape, *outputs.shape)) * scales
    return Sensitivities.from_shifts(shifts.astype(np.float32), np.zeros(shape, dtype=np.bool_), outputs, problem.head)


def run(
    study: optuna.Study,
    problem: Problem,
    trials: int,
    quality: Quality = "damage",
    constraint: SizeConstraint | None = None,
) -> list[BitMap]:
    """Evaluate so many trials and return their maps."""
    constraint = constraint or SizeConstraint(problem.footprint, "nominal", 5.5)
    maps = []
    for _ in range(trials):
        trial, bit_map = ask(study, problem.layers, constraint.widths)
        tell(study, trial, bit_map, problem.evaluate(bit_map), constraint, quality)
        maps.append(bit_map)
    return maps
