"""Winner's luck removed: what a rule of choosing is worth on sentences that it did not choose by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import numpy.typing as npt

from results.bootstrap import Floats, Interval, Resamples, strata_of
from results.evidence import RESAMPLES_OF_A_FOLD, Evidence, Mask, Rule
from results.outcome import Unseen
from results.statistics import Comparison, Estimate, compare
from results.unseen import UnseenDamage, mean_losses, unseen_losses

# Halves, dealt anew a few times. Ten folds would be as free of bias, but any two of them share most of the sentences
# they choose by: they choose the same lucky map, and each scores it on what made it lucky for the others. On 1,000
# equal maps that spreads the result three times as wide (`python -m tests.benchmarks luck`).
FOLDS = 2
REPEATS = 5

# For rules that ask for a proof: half of the sentences prove far less than all, and far larger maps would be chosen.
FOLDS_OF_PROOFS, REPEATS_OF_PROOFS = 10, 4


def corrected(
    evidence: Evidence,
    rules: Sequence[Rule],
    resamples: Resamples,
    margin: float,
    *,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    seed: int = 0,
) -> list[Estimate | None]:
    """Return what each rule's choice is worth, by cross-fitting: its choice and its score never share a sentence.

    The sentences are dealt into folds within their strata. For each fold the rule chooses by the others alone, and its
    choice is scored on that fold; all folds together are one set of predictions. This is repeated with other folds, and
    scores, ends of intervals and confidences are averaged. The choice is the rule's, which need not fall on the same
    map each time: what is estimated is the quality that choosing this way gives. V. Chernozhukov et al.,
    "Double/debiased machine learning for treatment and structural parameters", The Econometrics Journal 21 (2018),
    definitions 3.1 and 3.3.

    Args:
        evidence: the maps on all sentences.
        rules: each gives one result, in order; None where it found nothing to choose on some part.
        resamples: draws of all sentences, for the intervals.
        margin: for the comparison with FP32.
        folds: how many parts; halves are two.
        repeats: how often the sentences are dealt anew.
        seed: of the dealing.
    """
    accepted, losses, whole = cross_fitted(evidence, rules, folds=folds, repeats=repeats, seed=seed)
    found: list[Estimate | None] = [None] * len(rules)
    if not whole.any():
        return found
    shape = (-1, evidence.labels.size)
    mccs = resamples.mcc(accepted[whole].reshape(shape))
    damages = resamples.mean(losses[whole].reshape(shape))
    against = compare(mccs, resamples.mcc(evidence.fp32_accepted[np.newaxis]), margin)
    of_mcc, of_damage = mccs.intervals(), damages.intervals()
    for position, at in enumerate(np.flatnonzero(whole)):
        own = slice(position * repeats, (position + 1) * repeats)
        found[at] = Estimate(
            mcc=fmean(mccs.point[own]),
            mcc_interval=_mean_interval(of_mcc[own]),
            damage=fmean(damages.point[own]),
            damage_interval=_mean_interval(of_damage[own]),
            against_fp32=Comparison(
                difference=fmean(comparison.difference for comparison in against[own]),
                interval=_mean_interval([comparison.interval for comparison in against[own]]),
                no_worse=fmean(comparison.no_worse for comparison in against[own]),
                margin=margin,
            ),
        )
    return found


def cross_fitted(
    evidence: Evidence, rules: Sequence[Rule], *, folds: int, repeats: int, seed: int
) -> tuple[Mask, Floats, Mask]:
    """Return, for each rule and repeat, what its choices accept and lose on the sentences they were not chosen by.

    Returns:
        ``(n_rules, repeats, n_sentences)`` of bool and of nats, and ``(n_rules,)``: whether the rule found a map each
        time.
    """
    shape = (len(rules), repeats, evidence.labels.size)
    accepted, losses = np.zeros(shape, dtype=np.bool_), np.zeros(shape)
    whole = np.ones(len(rules), dtype=np.bool_)
    random = np.random.default_rng(seed)
    for repeat in range(repeats):
        for fold in _deal(strata_of(evidence.labels, evidence.in_domain), folds, random):
            others = evidence.on(~fold)
            for at, rule in enumerate(rules):
                chosen = rule(others) if whole[at] else None
                if chosen is None:
                    whole[at] = False
                    continue
                accepted[at, repeat, fold] = evidence.accepted[chosen, fold]
                losses[at, repeat, fold] = evidence.losses[chosen, fold]
    return accepted, losses, whole


def corrected_unseen(
    evidence: Evidence, unseen: Unseen | None, rules: Sequence[Rule], *, repeats: int = REPEATS, seed: int = 0
) -> list[UnseenDamage | None]:
    """Return the damage on unseen sentences of each rule's choice, by cross-fitting as ``corrected`` does.

    The rule chooses by its damage on one half of the unseen sentences and is judged by the other, both ways.

    Args:
        evidence: the maps, on all of the search's sentences.
        unseen: what some of them do on unseen ones; None where that is not known, as nothing is then.
        rules: each gives one result, in order; None where it found nothing to choose by some half.
        repeats: how often the unseen sentences are dealt anew.
        seed: of the dealing.
    """
    of_map = unseen_losses(unseen)
    (scored,) = np.nonzero([number in of_map for number in evidence.numbers.tolist()])
    if unseen is None or not scored.size:
        return [None] * len(rules)
    known = np.array([of_map[int(number)] for number in evidence.numbers[scored]])
    losses = np.full((len(rules), repeats, known.shape[1]), np.nan)
    random = np.random.default_rng(seed)
    for repeat in range(repeats):
        for half in _deal(np.zeros(known.shape[1], dtype=np.int64), 2, random):
            damages = np.full(evidence.numbers.size, np.nan)
            damages[scored] = known[:, ~half].mean(axis=1)
            others = replace(evidence, unseen=damages, resamples=RESAMPLES_OF_A_FOLD)
            for at, rule in enumerate(rules):
                chosen = rule(others)
                if chosen is not None and chosen in scored:
                    losses[at, repeat, half] = known[np.searchsorted(scored, chosen), half]
    found: list[UnseenDamage | None] = []
    for own in losses:
        if np.isnan(own).any():
            found.append(None)
            continue
        means = mean_losses(list(own))
        found.append(UnseenDamage(float(means.point.mean()), _mean_interval(means.intervals())))
    return found


def _deal(strata: npt.NDArray[np.int64], folds: int, random: np.random.Generator) -> Iterator[Mask]:
    """Yield masks of the folds, each with its share of every stratum; empty ones are left out."""
    order = np.lexsort((random.random(strata.size), strata))
    fold_of = np.empty(strata.size, dtype=np.int64)
    fold_of[order] = np.arange(strata.size) % folds
    for fold in range(folds):
        members = fold_of == fold
        if members.any() and not members.all():
            yield members


def _mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Return the means of the ends: as wide as one interval is, though the mean of several scores varies less."""
    return Interval(fmean(interval.low for interval in intervals), fmean(interval.high for interval in intervals))
