"""What follows from an outcome: first the front and the picks, then intervals, comparisons and corrections.

``select`` is quick and is all that the final checks need. ``analyse`` adds the statistics, and takes seconds.
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
from results.statistics.cross_fitting import FOLDS_OF_PROOFS, REPEATS_OF_PROOFS, corrected, corrected_unseen
from results.statistics.holdout import holdout_estimates
from results.statistics.intervals import Comparison, Estimate, Intervals, compare, score_intervals
from results.statistics.picks import SMALLEST, headline_requests, pick, rule_of
from results.statistics.unseen import Gain, UnseenDamage, gain_over_knapsack, unseen_damages


@dataclass(frozen=True)
class Headline:
    """One pick that answers the question. A ``Selection`` has no statistics yet: they are None.

    Attributes:
        request: as in ``best@8x``.
        trial: the pick; None if nothing answers the request.
        rival: what the same request picks among the baselines alone; None if nothing answers it, and for the knee.
        missing: why there is no pick; empty if there is one.
        corrected: what choosing this way is worth on sentences that the choice was not made by; None if unknown.
        unseen: the same for the damage on unseen sentences, by which picks are made once it is known.
        against_reference: the pick's MCC against the documented map's; None if one of them has no scores.
        against_rival: the pick's MCC against the rival's; None if there is no rival other than the pick.
    """

    request: str
    trial: Trial | None
    rival: Trial | None = None
    missing: str = ""
    corrected: Estimate | None = None
    unseen: UnseenDamage | None = None
    against_reference: Comparison | None = None
    against_rival: Comparison | None = None


@dataclass(frozen=True)
class Selection:
    """The front and the picks of an outcome.

    Attributes:
        outcome: what they are chosen from.
        candidates: its complete trials.
        front: the Pareto front, from the largest map to the smallest.
        baselines: the trials of the baselines, without the reference, by number.
        headlines: the picks that answer the question.
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
        """The complete trials in the report: front, picks, baselines, reference, and all scored on unseen sentences."""
        unseen = set() if self.outcome.unseen is None else set(self.outcome.unseen.log_odds)
        numbers = self.front_numbers | set(self.picked) | unseen
        complete = (trial for trial in self.outcome.trials if trial.scores is not None)
        return tuple(trial for trial in complete if trial.origin != "sampler" or trial.number in numbers)

    def headline(self, request: str) -> Headline | None:
        """Return one of the headlines by its request."""
        return next((headline for headline in self.headlines if headline.request == request), None)


@dataclass(frozen=True)
class Analysis(Selection):
    """A selection with its statistics: what tables, plots and the report share.

    Attributes:
        intervals: by trial number, for the front, the picks, the reference and the baselines.
        against_fp32: their MCC against the FP32 model's, by trial number.
        holdout: by trial number, for the picks, their rivals and the reference: their quality on the holdout; empty
            until the holdout is scored, and once the search has gone on after that.
        unseen: by trial number, for the maps that picks are made among: their damage on unseen sentences; empty until
            the search has ended.
        gain: the sampler's damage there over that of the knapsack; None if unknown.
        fp32_mcc: the interval of the FP32 model's MCC.
        fp32_standard_error: of the FP32 model's MCC.
    """

    intervals: Mapping[int, Intervals]
    against_fp32: Mapping[int, Comparison]
    holdout: Mapping[int, Estimate]
    unseen: Mapping[int, UnseenDamage]
    gain: Gain | None
    fp32_mcc: Interval
    fp32_standard_error: float

    @property
    def corrected(self) -> dict[int, Estimate]:
        """What choosing the best map of that size is worth, by the number of the pick; the tightest size counts."""
        by_size = [headline for headline in self.headlines if headline.request.startswith("best@")]
        return {pick.trial.number: pick.corrected for pick in by_size if pick.trial and pick.corrected}


def select(outcome: Outcome) -> Selection:
    """Return the front and the picks; about 0.1 s for 30 maps on 1,000 sentences."""
    candidates = Candidates.of(outcome)
    trials = tuple(trial for trial in outcome.trials if trial.origin not in ("reference", "sampler"))
    baselines = replace(outcome, trials=trials)
    of_baselines = Candidates.of(baselines)
    headlines = []
    for request in headline_requests(outcome):
        trial, missing = _picked(outcome, request, candidates)
        rival = _picked(baselines, request, of_baselines)[0] if "@" in request else None
        headlines.append(Headline(request, trial, rival, missing))
    return Selection(outcome, candidates, front(outcome), trials, tuple(headlines))


def _picked(outcome: Outcome, request: str, candidates: Candidates) -> tuple[Trial | None, str]:
    try:
        return pick(outcome, request, candidates), ""
    except InputError as error:
        return None, str(error).partition(": ")[2]


def analyse(outcome: Outcome) -> Analysis:
    """Return the front and the picks with their statistics."""
    selection = select(outcome)
    candidates, reference = selection.candidates, selection.reference
    rated = {trial.number for trial in (*selection.front, *selection.baselines) if trial.scores is not None}
    numbers = sorted(rated | set(selection.picked))
    rows = np.searchsorted(candidates.numbers, numbers)
    mccs, intervals = score_intervals(candidates.draws, candidates.accepted[rows], candidates.losses[rows])
    fp32 = candidates.draws.mcc(candidates.fp32_accepted[np.newaxis])

    def against(trial: Trial, other: Trial | None) -> Comparison | None:
        if other is None or other.number == trial.number or other.number not in numbers:
            return None
        one, two = ([numbers.index(number)] for number in (trial.number, other.number))
        return compare(mccs[one], mccs[two], outcome.margin)[0]

    headlines = [
        headline
        if headline.trial is None
        else replace(
            headline,
            against_reference=against(headline.trial, reference),
            against_rival=against(headline.trial, headline.rival),
        )
        for headline in selection.headlines
    ]
    return Analysis(
        outcome=outcome,
        candidates=candidates,
        front=selection.front,
        baselines=selection.baselines,
        headlines=_with_corrections(outcome, candidates, headlines),
        intervals=dict(zip(numbers, intervals, strict=True)),
        against_fp32=dict(zip(numbers, compare(mccs, fp32, outcome.margin), strict=True)),
        holdout=holdout_estimates(outcome.holdout, outcome.margin),
        unseen=unseen_damages(outcome.unseen),
        gain=gain_over_knapsack(outcome),
        fp32_mcc=fp32.intervals()[0],
        fp32_standard_error=float(fp32.standard_errors()[0]),
    )


def _with_corrections(outcome: Outcome, candidates: Candidates, headlines: Sequence[Headline]) -> tuple[Headline, ...]:
    """Return the headlines with what choosing each way is worth on sentences that the choice was not made by."""
    answered = [headline.request for headline in headlines if headline.trial is not None]
    rules = {request: rule_of(outcome, request, candidates) for request in answered}
    of_damage = {request: rule for request, rule in rules.items() if request != SMALLEST}
    estimates = dict(zip(of_damage, corrected(candidates, list(of_damage.values()), outcome.margin), strict=True))
    if SMALLEST in rules:
        folds, repeats = FOLDS_OF_PROOFS, REPEATS_OF_PROOFS
        [estimates[SMALLEST]] = corrected(candidates, [rules[SMALLEST]], outcome.margin, folds=folds, repeats=repeats)
    unseen = dict(zip(rules, corrected_unseen(candidates, outcome.unseen, list(rules.values())), strict=True))
    return tuple(
        replace(headline, corrected=estimates.get(headline.request), unseen=unseen.get(headline.request))
        for headline in headlines
    )
