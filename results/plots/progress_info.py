"""How a search progressed: the least damage so far for each pick by size."""

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
    """A map that did less damage (nats a sentence) than all before it.

    ``evaluations`` is its 1-based index, and ``finished_s`` the seconds from the first trial's start to its end.
    """

    evaluations: int
    finished_s: float
    damage: float
    number: int


@dataclass(frozen=True)
class ProgressInfo:
    """What the progress plot shows.

    Attributes:
        lines: each request, as ``best@8x``, with its steps; each step has less damage than the one before.
        evaluations: the number of maps evaluated, failed ones included.
        elapsed_s: seconds from the start of the first evaluation to the end of the last.
        baselines: the number of evaluations before the sampler's first.
    """

    lines: tuple[tuple[str, tuple[Step, ...]], ...]
    evaluations: int
    elapsed_s: float
    baselines: int


def progress_info(analysis: Analysis) -> ProgressInfo:
    """Return what the progress plot shows; every feasible map counts, whoever proposed it."""
    outcome = analysis.outcome
    trials = sorted(outcome.trials, key=lambda trial: (trial.finished_s, trial.number))
    sizes = [int(size) for size in exact_sizes(outcome.footprint, trials, outcome.size_axis)]
    fp32 = fp32_size(outcome.footprint, outcome.size_axis)
    lines = []
    for request, min_compression in headline_limits(outcome):
        steps: list[Step] = []
        for done, (trial, size) in enumerate(zip(trials, sizes, strict=True), start=1):
            if trial.scores is None or not trial.feasible or Fraction(fp32, size) < min_compression:
                continue
            if not steps or trial.scores.damage < steps[-1].damage:
                steps.append(Step(done, trial.finished_s, trial.scores.damage, trial.number))
        lines.append((request, tuple(steps)))
    first = next((index for index, trial in enumerate(trials) if trial.origin == "sampler"), len(trials))
    return ProgressInfo(tuple(lines), len(trials), trials[-1].finished_s if trials else 0.0, first)


def progress_table(info: ProgressInfo) -> pd.DataFrame:
    """Return ``progress.csv``: one row a step."""
    rows = [
        (step.evaluations, step.finished_s, request, step.damage, step.number)
        for request, steps in info.lines
        for step in steps
    ]
    return pd.DataFrame(rows, columns=list(PROGRESS_COLUMNS))
