"""How a search got where it is: the least damage so far at each size that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pandas as pd

from results.pareto import exact_sizes, fp32_size
from results.statistics.analysis import Analysis
from results.statistics.picks import headline_limits

PROGRESS_COLUMNS = ("evaluations", "finished_s", "request", "damage", "number")


@dataclass(frozen=True)
class Step:
    """A map that was better than all before it: the how manieth evaluation it was, when it ended, and its damage."""

    evaluations: int
    finished_s: float
    damage: float
    number: int


@dataclass(frozen=True)
class ProgressInfo:
    """What the plot of progress shows.

    Attributes:
        lines: by request, as ``best@8x``: the least damage so far, each step lower than the one before.
        evaluations: how many maps have been evaluated, failed ones included.
        elapsed_s: when the last of them ended, since the first began.
        baselines: how many evaluations there were before the sampler's first.
    """

    lines: tuple[tuple[str, tuple[Step, ...]], ...]
    evaluations: int
    elapsed_s: float
    baselines: int


def progress_info(found: Analysis) -> ProgressInfo:
    """Return what the plot of progress shows of an outcome; feasible maps count, whoever proposed them."""
    outcome = found.outcome
    trials = sorted(outcome.trials, key=lambda trial: (trial.finished_s, trial.number))
    sizes = [int(size) for size in exact_sizes(outcome.footprint, trials, outcome.size_axis)]
    full = fp32_size(outcome.footprint, outcome.size_axis)
    lines = []
    for request, least in headline_limits(outcome):
        steps: list[Step] = []
        for done, (trial, size) in enumerate(zip(trials, sizes, strict=True), start=1):
            if trial.scores is None or not trial.feasible or Fraction(full, size) < least:
                continue
            if not steps or trial.scores.damage < steps[-1].damage:
                steps.append(Step(done, trial.finished_s, trial.scores.damage, trial.number))
        lines.append((request, tuple(steps)))
    first = next((at for at, trial in enumerate(trials) if trial.origin == "sampler"), len(trials))
    return ProgressInfo(tuple(lines), len(trials), trials[-1].finished_s if trials else 0.0, first)


def progress_table(info: ProgressInfo) -> pd.DataFrame:
    """Return the numbers of the plot, a row a step."""
    rows = [
        (step.evaluations, step.finished_s, request, step.damage, step.number)
        for request, steps in info.lines
        for step in steps
    ]
    return pd.DataFrame(rows, columns=list(PROGRESS_COLUMNS))
