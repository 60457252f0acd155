"""What follows from an outcome, worked out once: the front, the picks, intervals, comparisons and corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from objectives.errors import InputError
from results.bootstrap import Interval
from results.confirmed import confirmed_estimates
from results.evidence import Evidence, Rule, front_rule
from results.luck import FOLDS_OF_PROOFS, REPEATS_OF_PROOFS, corrected, corrected_unseen
from results.outcome import Outcome, Trial
from results.pareto import front
from results.picks import SMALLEST, headline_requests, pick, rule_of
from results.statistics import Comparison, Estimate, Intervals, compare, score_intervals
from results.unseen import Gain, UnseenDamage, gain_over_plain, unseen_damages


@dataclass(frozen=True)
class Headline:
    """One pick that answers the question.

    Attributes:
        request: as in ``best@8x``.
        trial: the pick; None where nothing answers it.
        rival: what the same pick gives among the contenders alone; None where nothing answers it, and for the knee.
        corrected: what choosing this way is worth on sentences that were not chosen by; None where that cannot be told.
        unseen: likewise the damage on unseen sentences, by which picks are made where it is known.
        against_reference: its MCC against the documented map's; None where one of them has no scores.
        against_rival: its MCC against the rival's; None where there is no other map than the pick.
        missing: why there is no pick; empty where there is one.
    """

    request: str
    trial: Trial | None
    rival: Trial | None = None
    corrected: Estimate | None = None
    unseen: UnseenDamage | None = None
    against_reference: Comparison | None = None
    against_rival: Comparison | None = None
    missing: str = ""


@dataclass(frozen=True)
class Findings:
    """What tables, plots, words and the report share.

    Attributes:
        outcome: what it follows from.
        front: the Pareto front, from the largest map to the smallest.
        reference: the documented map's trial, or None.
        contenders: the trials that no search proposed, save the reference, by number.
        failed: the trials without scores, by number.
        headlines: the picks that answer the question.
        intervals: by trial number, for the front, the picks, the reference and the contenders.
        against_fp32: their MCC against that of the FP32 model, by trial number.
        corrected: by trial number, for the front: what the best map of that size or less is worth on sentences that it
            was not chosen by.
        confirmed: by trial number, for the picks, their rivals and the reference: what they are worth on sentences that
            no search has seen; empty until these are opened, and once the search has gone on after that.
        unseen: by trial number, for the maps that picks are made among: their damage on sentences that none was chosen
            by; empty until the search has ended.
        gain: what the search is worth there against plain allocation; None where that is not known.
        fp32_mcc: the interval of the FP32 model's MCC.
        fp32_standard_error: of the FP32 model's MCC.
    """

    outcome: Outcome
    front: tuple[Trial, ...]
    reference: Trial | None
    contenders: tuple[Trial, ...]
    failed: tuple[Trial, ...]
    headlines: tuple[Headline, ...]
    intervals: Mapping[int, Intervals]
    against_fp32: Mapping[int, Comparison]
    corrected: Mapping[int, Estimate]
    confirmed: Mapping[int, Estimate]
    unseen: Mapping[int, UnseenDamage]
    gain: Gain | None
    fp32_mcc: Interval
    fp32_standard_error: float

    @property
    def front_numbers(self) -> frozenset[int]:
        """The numbers of the trials on the front."""
        return frozenset(trial.number for trial in self.front)

    @property
    def picked(self) -> dict[int, Trial]:
        """The maps that answer the question, and the reference where it has scores, by trial number."""
        picks = [headline.trial for headline in self.headlines if headline.trial is not None]
        if self.reference is not None and self.reference.scores is not None:
            picks.append(self.reference)
        return {trial.number: trial for trial in picks}

    @property
    def shown(self) -> tuple[Trial, ...]:
        """The complete trials that the report tells of: the front, the picks, the contenders and the reference.

        What was scored on unseen sentences is told of too, and is what picks are made among.
        """
        unseen = set() if self.outcome.unseen is None else set(self.outcome.unseen.log_odds)
        numbers = self.front_numbers | set(self.picked) | unseen
        complete = (trial for trial in self.outcome.trials if trial.scores is not None)
        return tuple(trial for trial in complete if trial.origin != "sampler" or trial.number in numbers)

    @property
    def complete(self) -> int:
        """The number of trials with scores."""
        return len(self.outcome.trials) - len(self.failed)

    def headline(self, request: str) -> Headline | None:
        """Return one of the headlines by its request."""
        return next((headline for headline in self.headlines if headline.request == request), None)


def conclude(outcome: Outcome) -> Findings:
    """Work out what follows from an outcome; with 300 maps on 1,000 sentences in about two seconds."""
    evidence = Evidence.of(outcome)
    on_front = front(outcome)
    reference = next((trial for trial in outcome.trials if trial.origin == "reference"), None)
    contenders = tuple(trial for trial in outcome.trials if trial.origin not in ("reference", "sampler"))
    headlines = _headlines(outcome, contenders, evidence)

    shown = {trial.number: trial for trial in (*on_front, *contenders) if trial.scores is not None}
    shown |= {headline.trial.number: headline.trial for headline in headlines if headline.trial is not None}
    if reference is not None and reference.scores is not None:
        shown[reference.number] = reference
    numbers = sorted(shown)
    rows = np.searchsorted(evidence.numbers, numbers)
    mccs, intervals = score_intervals(evidence.draws, evidence.accepted[rows], evidence.losses[rows])
    fp32 = evidence.draws.mcc(evidence.fp32_accepted[np.newaxis])

    def against(trial: Trial, other: Trial | None) -> Comparison | None:
        if other is None or other.number == trial.number or other.number not in shown:
            return None
        one, two = ([numbers.index(number)] for number in (trial.number, other.number))
        return compare(mccs[one], mccs[two], outcome.margin)[0]

    requests = [headline.request for headline in headlines if headline.trial is not None]
    rules = {request: rule_of(outcome, request, evidence) for request in requests}
    of_front, of_headlines = _corrections(outcome, evidence, on_front, rules)
    on_unseen = dict(zip(rules, corrected_unseen(evidence, outcome.unseen, list(rules.values())), strict=True))
    return Findings(
        outcome=outcome,
        front=on_front,
        reference=reference,
        contenders=contenders,
        failed=tuple(trial for trial in outcome.trials if trial.scores is None),
        headlines=tuple(
            headline
            if headline.trial is None
            else replace(
                headline,
                corrected=of_headlines[headline.request],
                unseen=on_unseen[headline.request],
                against_reference=against(headline.trial, reference),
                against_rival=against(headline.trial, headline.rival),
            )
            for headline in headlines
        ),
        intervals=dict(zip(numbers, intervals, strict=True)),
        against_fp32=dict(zip(numbers, compare(mccs, fp32, outcome.margin), strict=True)),
        corrected=of_front,
        confirmed=confirmed_estimates(outcome.confirmation, outcome.margin),
        unseen=unseen_damages(outcome.unseen),
        gain=gain_over_plain(outcome),
        fp32_mcc=fp32.intervals()[0],
        fp32_standard_error=float(fp32.standard_errors()[0]),
    )


def _headlines(outcome: Outcome, contenders: tuple[Trial, ...], evidence: Evidence) -> list[Headline]:
    unsearched = replace(outcome, trials=contenders)
    of_contenders = Evidence.of(unsearched)
    found = []
    for request in headline_requests(outcome):
        trial, missing = _picked(outcome, request, evidence)
        rival = _picked(unsearched, request, of_contenders)[0] if "@" in request else None
        found.append(Headline(request, trial, rival, missing=missing))
    return found


def _picked(outcome: Outcome, request: str, evidence: Evidence) -> tuple[Trial | None, str]:
    try:
        return pick(outcome, request, evidence), ""
    except InputError as error:
        return None, str(error).partition(": ")[2]


def _corrections(
    outcome: Outcome, evidence: Evidence, on_front: Sequence[Trial], of_picks: Mapping[str, Rule]
) -> tuple[dict[int, Estimate], dict[str, Estimate | None]]:
    """Return the corrected quality of the front's maps by number, and of the picks, by the request of each rule."""
    places = np.searchsorted(evidence.numbers, [trial.number for trial in on_front])
    rules: list[Rule] = [front_rule(evidence.feasible & (evidence.sizes <= evidence.sizes[at])) for at in places]
    chosen = [request for request in of_picks if request != SMALLEST]
    rules += [of_picks[request] for request in chosen]
    found = corrected(evidence, rules, evidence.draws, outcome.margin)
    of_front = {trial.number: known for trial, known in zip(on_front, found, strict=False) if known is not None}
    of_headlines = dict(zip(chosen, found[len(places) :], strict=True))
    if SMALLEST in of_picks:
        [of_headlines[SMALLEST]] = corrected(
            evidence,
            [of_picks[SMALLEST]],
            evidence.draws,
            outcome.margin,
            folds=FOLDS_OF_PROOFS,
            repeats=REPEATS_OF_PROOFS,
        )
    return of_front, of_headlines
