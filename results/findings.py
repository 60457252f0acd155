"""What follows from an outcome, worked out once: the front, the picks, and the intervals of what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from objectives.errors import InputError
from results.outcome import Outcome, Trial
from results.pareto import front
from results.picks import headline_requests, pick
from results.statistics import Interval, Intervals, mcc_interval, trial_intervals


@dataclass(frozen=True)
class Headline:
    """One pick that answers the question.

    Attributes:
        request: as in ``best@8x``.
        trial: the pick; None where nothing reaches it.
        rival: what the same pick gives among the contenders alone; None where nothing reaches it.
    """

    request: str
    trial: Trial | None
    rival: Trial | None


@dataclass(frozen=True)
class Findings:
    """What tables, plots, words and the report share.

    Attributes:
        outcome: what it follows from.
        front: the Pareto front, from the largest map to the smallest.
        reference: the documented map's trial, or None.
        contenders: the trials that no search proposed, save the reference, by number.
        failed: the trials without scores, by number.
        headlines: the picks at the size constraint and beyond.
        intervals: by trial number, for the front, the picks, the reference and the contenders.
        fp32_mcc: the interval of the FP32 model's MCC.
    """

    outcome: Outcome
    front: tuple[Trial, ...]
    reference: Trial | None
    contenders: tuple[Trial, ...]
    failed: tuple[Trial, ...]
    headlines: tuple[Headline, ...]
    intervals: Mapping[int, Intervals]
    fp32_mcc: Interval

    @property
    def front_numbers(self) -> frozenset[int]:
        """The numbers of the trials on the front."""
        return frozenset(trial.number for trial in self.front)

    @property
    def complete(self) -> int:
        """The number of trials with scores."""
        return len(self.outcome.trials) - len(self.failed)


def conclude(outcome: Outcome) -> Findings:
    """Work out what follows from an outcome; with a front of 100 maps and 1,000 sentences in a fifth of a second."""
    on_front = front(outcome)
    reference = next((trial for trial in outcome.trials if trial.origin == "reference"), None)
    contenders = tuple(trial for trial in outcome.trials if trial.origin not in ("reference", "sampler"))
    unsearched = replace(outcome, trials=contenders)
    headlines = tuple(
        Headline(request, trial=_picked(outcome, request), rival=_picked(unsearched, request))
        for request in headline_requests(outcome)
    )
    shown = {trial.number: trial for trial in (*on_front, *contenders)}
    shown |= {trial.number: trial for trial in (reference, *(line.trial for line in headlines)) if trial is not None}
    return Findings(
        outcome=outcome,
        front=on_front,
        reference=reference,
        contenders=contenders,
        failed=tuple(trial for trial in outcome.trials if trial.scores is None),
        headlines=headlines,
        intervals=trial_intervals(list(shown.values()), outcome.labels, outcome.fp32_log_odds),
        fp32_mcc=mcc_interval(outcome.fp32_log_odds, outcome.labels),
    )


def _picked(outcome: Outcome, request: str) -> Trial | None:
    try:
        return pick(outcome, request)
    except InputError:
        return None
