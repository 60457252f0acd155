"""The analysis of an outcome: the front and the picks, then intervals, comparisons and corrections.

``select`` is quick, and the final checks need no more. ``analyse`` adds the statistics and takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from objectives.errors import InputError
from results.outcome import Outcome, Trial
from results.pareto import front
from results.statistics.bootstrap import Interval
from results.statistics.candidates import Candidates
from results.statistics.cross_fitting import PROOF_FOLDS, PROOF_REPEATS, corrected, corrected_unseen
from results.statistics.holdout import holdout_estimates
from results.statistics.intervals import Comparison, Estimate, Intervals, compare
from results.statistics.picks import SMALLEST, headline_requests, pick, rule_of
from results.statistics.unseen import Gain, UnseenDamage, gain_over_knapsack, unseen_damages


@dataclass(frozen=True)
class Headline:
    """The answer to one request. In a ``Selection``, its statistics are still None.

    Attributes:
        request: such as ``best@8x``.
        trial: the pick; None if no map answers the request.
        rival: the pick among the baselines alone; None if none answers the request, and for the knee.
        missing: why there is no pick; empty if there is one.
        corrected: the cross-fitted quality of this rule of choosing; None if unknown.
        unseen: the cross-fitted damage of this rule on unseen sentences; None if unknown.
        against_reference: the pick's metric against the documented map's; None without either, or if they are the same.
    """

    request: str
    trial: Trial | None
    rival: Trial | None = None
    missing: str = ""
    corrected: Estimate | None = None
    unseen: UnseenDamage | None = None
    against_reference: Comparison | None = None


@dataclass(frozen=True)
class Selection:
    """The front and the picks of an outcome.

    Attributes:
        outcome: the outcome that they are chosen from.
        candidates: its complete trials.
        front: the Pareto front, from the largest map to the smallest.
        baselines: the trials of the baselines, without the reference, by number.
        headlines: the answers to the requests of every report.
    """

    outcome: Outcome
    candidates: Candidates
    front: tuple[Trial, ...]
    baselines: tuple[Trial, ...]
    headlines: tuple[Headline, ...]

    @property
    def reference(self) -> Trial | None:
        """The documented map's trial, if there is one."""
        return next((trial for trial in self.outcome.trials if trial.origin == "reference"), None)

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials without scores, by number."""
        return tuple(trial for trial in self.outcome.trials if trial.scores is None)

    @property
    def complete(self) -> int:
        """The number of trials with scores."""
        return len(self.outcome.trials) - len(self.failed)

    @property
    def front_numbers(self) -> frozenset[int]:
        """The numbers of the trials on the front."""
        return frozenset(trial.number for trial in self.front)

    @property
    def picked(self) -> dict[int, Trial]:
        """The picks, and the reference if it has scores, by trial number."""
        picks = [headline.trial for headline in self.headlines if headline.trial is not None]
        if self.reference is not None and self.reference.scores is not None:
            picks.append(self.reference)
        return {trial.number: trial for trial in picks}

    @property
    def shown(self) -> tuple[Trial, ...]:
        """The complete trials of the report: front, picks, baselines, reference, and all scored on unseen sentences."""
        unseen = set() if self.outcome.unseen is None else set(self.outcome.unseen.log_odds)
        numbers = self.front_numbers | set(self.picked) | unseen
        complete = (trial for trial in self.outcome.trials if trial.scores is not None)
        return tuple(trial for trial in complete if trial.origin != "sampler" or trial.number in numbers)

    def headline(self, request: str) -> Headline | None:
        """Return the headline of a request."""
        return next((headline for headline in self.headlines if headline.request == request), None)


@dataclass(frozen=True)
class Analysis(Selection):
    """A selection with its statistics, as tables, plots and the report use it.

    Attributes:
        intervals: of the front, the picks, the reference and the baselines, by trial number.
        against_fp32: their metric against the FP32 model's, by trial number.
        holdout: the quality of the picks, their rivals and the reference on the holdout, by trial number; empty until
            it is scored, and again once the search has gone on.
        unseen: the damage of maps on unseen sentences, by trial number; empty until the search has ended.
        gain: the sampler's damage on unseen sentences over the knapsack's; None if unknown.
        fp32_metric: the interval of the FP32 model's metric.
        fp32_standard_error: of the FP32 model's metric.
    """

    intervals: Mapping[int, Intervals]
    against_fp32: Mapping[int, Comparison]
    holdout: Mapping[int, Estimate]
    unseen: Mapping[int, UnseenDamage]
    gain: Gain | None
    fp32_metric: Interval
    fp32_standard_error: float

    @property
    def corrected(self) -> dict[int, Estimate]:
        """The cross-fitted quality of each pick by size, by trial number; of two requests, the smaller size counts."""
        best = [headline for headline in self.headlines if headline.request.startswith("best@")]
        return {headline.trial.number: headline.corrected for headline in best if headline.trial and headline.corrected}


def select(outcome: Outcome) -> Selection:
    """Return the front and the picks; about 0.1 s for 30 maps on 1,000 sentences."""
    candidates = Candidates.of(outcome)
    baselines = tuple(trial for trial in outcome.trials if trial.origin not in ("reference", "sampler"))
    baseline_outcome = replace(outcome, trials=baselines)
    baseline_candidates = Candidates.of(baseline_outcome)
    headlines = []
    for request in headline_requests(outcome):
        trial, missing = _try_pick(outcome, request, candidates)
        rival = _try_pick(baseline_outcome, request, baseline_candidates)[0] if "@" in request else None
        headlines.append(Headline(request, trial, rival, missing))
    return Selection(outcome, candidates, front(outcome), baselines, tuple(headlines))


def _try_pick(outcome: Outcome, request: str, candidates: Candidates) -> tuple[Trial | None, str]:
    """Return the pick, or None and the reason."""
    try:
        return pick(outcome, request, candidates), ""
    except InputError as error:
        return None, str(error).partition(": ")[2]


def analyse(outcome: Outcome) -> Analysis:
    """Return the front and the picks with their statistics."""
    selection = select(outcome)
    candidates, reference = selection.candidates, selection.reference
    shown = {trial.number for trial in (*selection.front, *selection.baselines) if trial.scores is not None}
    numbers = sorted(shown | set(selection.picked))
    rows = np.searchsorted(candidates.numbers, numbers)
    task, labels = candidates.task, candidates.labels
    answers, fp32 = candidates.answers[rows], candidates.fp32_answers
    damages = candidates.draws.mean(candidates.losses[rows]).intervals(candidates.worst_loss)
    intervals = {
        number: Intervals(task.draws(labels, own).interval(), damage)
        for number, own, damage in zip(numbers, answers, damages, strict=True)
    }

    def against_reference(trial: Trial | None) -> Comparison | None:
        if trial is None or reference is None or reference.scores is None or trial.number == reference.number:
            return None
        own, other = (answers[numbers.index(number)] for number in (trial.number, reference.number))
        return compare(task, labels, own, other, outcome.margin)

    headlines = [
        replace(headline, against_reference=against_reference(headline.trial)) for headline in selection.headlines
    ]
    return Analysis(
        outcome=outcome,
        candidates=candidates,
        front=selection.front,
        baselines=selection.baselines,
        headlines=_with_corrections(outcome, candidates, headlines),
        intervals=intervals,
        against_fp32={
            number: compare(task, labels, own, fp32, outcome.margin)
            for number, own in zip(numbers, answers, strict=True)
        },
        holdout=holdout_estimates(outcome.holdout, outcome.margin, task),
        unseen=unseen_damages(outcome.unseen, outcome.head),
        gain=gain_over_knapsack(outcome),
        fp32_metric=task.draws(labels, fp32).interval(),
        fp32_standard_error=task.standard_error(labels, fp32),
    )


def _with_corrections(outcome: Outcome, candidates: Candidates, headlines: Sequence[Headline]) -> tuple[Headline, ...]:
    """Return the headlines with the cross-fitted quality of each rule of choosing."""
    answered = [headline.request for headline in headlines if headline.trial is not None]
    rules = {request: rule_of(outcome, request, candidates) for request in answered}
    damage_rules = {request: rule for request, rule in rules.items() if request != SMALLEST}
    estimates = dict(zip(damage_rules, corrected(candidates, list(damage_rules.values()), outcome.margin), strict=True))
    if SMALLEST in rules:
        [estimates[SMALLEST]] = corrected(
            candidates, [rules[SMALLEST]], outcome.margin, folds=PROOF_FOLDS, repeats=PROOF_REPEATS
        )
    unseen = dict(zip(rules, corrected_unseen(candidates, outcome.unseen, list(rules.values())), strict=True))
    return tuple(
        replace(headline, corrected=estimates.get(headline.request), unseen=unseen.get(headline.request))
        for headline in headlines
    )
