"""Studies of a tiny problem, evaluated in the test's own process."""

from __future__ import annotations

import numpy as np
import optuna

from objectives.layers import WIDTHS, BitMap
from objectives.problem import Problem
from results.outcome import Quality
from search.allocation.constraint import SizeConstraint
from search.allocation.sensitivity import Sensitivities
from search.study.study import tell
from tests.search.tiny_problem import ask


def guess_of_sensitivities(problem: Problem) -> Sensitivities:
    """Return made-up sensitivities that shrink as widths grow."""
    outputs = problem.fp32_log_odds
    shape = (len(problem.layers), len(WIDTHS))
    scales = 2.0 ** -np.array(WIDTHS).reshape(-1, *[1] * outputs.ndim)
    shifts = np.random.default_rng(0).standard_normal((*shape, *outputs.shape)) * scales
    return Sensitivities.from_shifts(shifts.astype(np.float32), np.zeros(shape, dtype=np.bool_), outputs, problem.head)


def run(study: optuna.Study, problem: Problem, trials: int, quality: Quality = "damage") -> list[BitMap]:
    """Evaluate so many trials and return their maps."""
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    maps = []
    for _ in range(trials):
        trial, bit_map = ask(study, problem.layers)
        tell(study, trial, bit_map, problem.evaluate(bit_map), constraint, quality)
        maps.append(bit_map)
    return maps
