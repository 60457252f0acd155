"""Cross-fitting: what a rule of choosing is worth on sentences that it did not choose by.

The best of many maps owes part of its score to luck, since the same sentences chose and scored it (the "winner's
curse"). Cross-fitting removes that bias.

Notation:
    K: the number of folds; I_1..I_K: the folds, each with its share of every stratum.
    m_k = rule(all sentences but I_k): the map that the rule chooses without fold k.
    y_i = m_k(sentence i), i in I_k: what is accepted, or lost in nats, by a map chosen without sentence i.
    T(y): the MCC, or the mean of the losses, over all sentences; one value for each repeat with newly dealt folds.
    The estimate is the mean of T over the repeats; so are the ends of its interval and its confidence.

V. Chernozhukov et al., "Double/debiased machine learning for treatment and structural parameters", The Econometrics
Journal 21 (2018), definitions 3.1 and 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import numpy.typing as npt

from results.outcome import Unseen
from results.statistics.bootstrap import Floats, Interval, strata_of
from results.statistics.candidates import RESAMPLES_OF_A_FOLD, Candidates, Mask, Rule
from results.statistics.intervals import Comparison, Estimate, compare
from results.statistics.unseen import UnseenDamage, mean_losses, unseen_losses

# Two halves, dealt anew in each repeat. Ten folds are as free of bias, but any two of their training parts share most
# sentences: they choose the same lucky map, and each scores it on what made it lucky for the others. On 1,000 equal
# maps the result then spreads three times as wide (`python -m tests.benchmarks luck`).
FOLDS = 2
REPEATS = 5

# For rules that ask for a proof: half of the sentences prove far less than all, and far larger maps would be chosen.
FOLDS_OF_PROOFS, REPEATS_OF_PROOFS = 10, 4


def corrected(
    candidates: Candidates, rules: Sequence[Rule], margin: float, *, folds: int = FOLDS, repeats: int = REPEATS
) -> list[Estimate | None]:
    """Return the MCC and damage that choosing by each rule gives; None if a rule found no map on some part.

    The rule need not choose the same map each time: the estimate is of choosing this way, not of one map.

    Args:
        candidates: the maps on all sentences.
        rules: each gives one result, in order.
        margin: for the comparison with FP32, in MCC.
        folds: K, the number of parts.
        repeats: how often the sentences are dealt.
    """
    accepted, losses, whole = cross_fitted(candidates, rules, folds=folds, repeats=repeats)
    estimates: list[Estimate | None] = [None] * len(rules)
    if not whole.any():
        return estimates
    resamples = candidates.draws
    shape = (-1, candidates.labels.size)
    mccs = resamples.mcc(accepted[whole].reshape(shape))
    damages = resamples.mean(losses[whole].reshape(shape))
    against = compare(mccs, resamples.mcc(candidates.fp32_accepted[np.newaxis]), margin)
    of_mcc, of_damage = mccs.intervals(), damages.intervals()
    for position, at in enumerate(np.flatnonzero(whole)):
        own = slice(position * repeats, (position + 1) * repeats)
        estimates[at] = Estimate(
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
    return estimates


def cross_fitted(
    candidates: Candidates, rules: Sequence[Rule], *, folds: int, repeats: int
) -> tuple[Mask, Floats, Mask]:
    """Return, for each rule and repeat, what is accepted and lost, y.

    Returns:
        ``(n_rules, repeats, n_sentences)`` of bool and of nats, and ``(n_rules,)``: whether the rule found a map each
        time.
    """
    shape = (len(rules), repeats, candidates.labels.size)
    accepted, losses = np.zeros(shape, dtype=np.bool_), np.zeros(shape)
    whole = np.ones(len(rules), dtype=np.bool_)
    random = np.random.default_rng(0)
    for repeat in range(repeats):
        for fold in _deal(strata_of(candidates.labels, candidates.in_domain), folds, random):
            others = candidates.on(~fold)
            for at, rule in enumerate(rules):
                chosen = rule(others) if whole[at] else None
                if chosen is None:
                    whole[at] = False
                    continue
                accepted[at, repeat, fold] = candidates.accepted[chosen, fold]
                losses[at, repeat, fold] = candidates.losses[chosen, fold]
    return accepted, losses, whole


def corrected_unseen(candidates: Candidates, unseen: Unseen | None, rules: Sequence[Rule]) -> list[UnseenDamage | None]:
    """Return the damage on unseen sentences that choosing by each rule gives; None if unknown.

    The rule chooses by the damage on one half of the unseen sentences and is scored on the other, both ways.

    Args:
        candidates: the maps on all of the search's sentences.
        unseen: the scores of some of them on unseen sentences; None before these are scored.
        rules: each gives one result, in order; None if a rule found no scored map by some half.
    """
    of_map = unseen_losses(unseen)
    (scored,) = np.nonzero([number in of_map for number in candidates.numbers.tolist()])
    if unseen is None or not scored.size:
        return [None] * len(rules)
    known = np.array([of_map[int(number)] for number in candidates.numbers[scored]])
    losses = np.full((len(rules), REPEATS, known.shape[1]), np.nan)
    random = np.random.default_rng(0)
    for repeat in range(REPEATS):
        for half in _deal(np.zeros(known.shape[1], dtype=np.int64), 2, random):
            damages = np.full(candidates.numbers.size, np.nan)
            damages[scored] = known[:, ~half].mean(axis=1)
            others = replace(candidates, unseen=damages, resamples=RESAMPLES_OF_A_FOLD)
            for at, rule in enumerate(rules):
                chosen = rule(others)
                if chosen is not None and chosen in scored:
                    losses[at, repeat, half] = known[np.searchsorted(scored, chosen), half]
    return [None if np.isnan(own).any() else _mean_damage(own) for own in losses]


def _mean_damage(losses: Floats) -> UnseenDamage:
    """Return the mean over repeats of the damage and its interval, of losses ``(repeats, n_sentences)``."""
    means = mean_losses(list(losses))
    return UnseenDamage(float(means.point.mean()), _mean_interval(means.intervals()))


def _deal(strata: npt.NDArray[np.int64], folds: int, random: np.random.Generator) -> Iterator[Mask]:
    """Yield the mask of each fold, with its share of every stratum; empty folds are left out."""
    order = np.lexsort((random.random(strata.size), strata))
    fold_of = np.empty(strata.size, dtype=np.int64)
    fold_of[order] = np.arange(strata.size) % folds
    for fold in range(folds):
        members = fold_of == fold
        if members.any() and not members.all():
            yield members


def _mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Return the means of the ends: as wide as one interval, though the mean of several scores varies less."""
    return Interval(fmean(interval.low for interval in intervals), fmean(interval.high for interval in intervals))
