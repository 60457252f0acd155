"""Cross-fitting: the quality of a rule of choosing, on sentences that had no part in the choice.

The best of many maps owes part of its score to luck, because the same sentences chose and scored it (the "winner's
curse"). Cross-fitting removes that bias.

Notation:
    K: the number of folds; I_1..I_K: the folds, each with its share of every stratum.
    m_k = rule(all sentences but I_k): the map that the rule chooses without fold k.
    y_i = m_k(sentence i), i in I_k: the prediction, or the loss in nats, of a map chosen without sentence i.
    T(y): the metric, or the mean loss, over all sentences; one value for each repeat, which draws new folds.
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
from results.statistics.candidates import FOLD_DRAWS, Candidates, Mask, Rule
from results.statistics.confusion import Answers
from results.statistics.intervals import Comparison, Estimate, compare
from results.statistics.unseen import UnseenDamage, mean_losses, unseen_losses

# Two halves, drawn again for each repeat. Ten folds are unbiased too, but their training parts share most sentences:
# they choose the same lucky map, and each scores it on what made it lucky for the others. On 1,000 equal maps the
# estimate then spreads three times as wide (`python -m tests.benchmarks luck`).
FOLDS = 2
REPEATS = 5

# For rules that need a proof: half of the sentences prove far less than all, so the rule would choose far larger maps.
PROOF_FOLDS, PROOF_REPEATS = 10, 4


def corrected(
    candidates: Candidates, rules: Sequence[Rule], margin: float, *, folds: int = FOLDS, repeats: int = REPEATS
) -> list[Estimate | None]:
    """Return the cross-fitted metric and damage of each rule; None if a rule found no map without some fold.

    A rule may choose a different map each time: the estimate is of the rule, not of one map.

    Args:
        candidates: the maps on all sentences.
        rules: one estimate each, in order.
        margin: for the comparison with FP32, in units of the metric.
        folds: K.
        repeats: how often folds are drawn.
    """
    answers, losses, complete = cross_fitted(candidates, rules, folds=folds, repeats=repeats)
    estimates: list[Estimate | None] = [None] * len(rules)
    if not complete.any():
        return estimates
    task, labels = candidates.task, candidates.labels
    chosen = answers[complete].reshape(-1, *labels.shape)
    metrics = [task.draws(labels, own) for own in chosen]
    against = [compare(task, labels, own, candidates.fp32_answers, margin) for own in chosen]
    damages = candidates.draws.mean(losses[complete].reshape(-1, len(labels)))
    metric_intervals, damage_intervals = (
        [metric.interval() for metric in metrics],
        damages.intervals(candidates.worst_loss),
    )
    for position, at in enumerate(np.flatnonzero(complete)):
        own = slice(position * repeats, (position + 1) * repeats)
        estimates[at] = Estimate(
            metric=fmean(metric.point for metric in metrics[own]),
            metric_interval=_mean_interval(metric_intervals[own]),
            damage=fmean(damages.point[own]),
            damage_interval=_mean_interval(damage_intervals[own]),
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
) -> tuple[Answers, Floats, Mask]:
    """Return the cross-fitted predictions and losses y of each rule.

    Returns:
        Predictions, ``(n_rules, repeats, *labels.shape)``, losses in nats, ``(n_rules, repeats, n_sentences)``, and
        whether the rule found a map each time, ``(n_rules,)``.
    """
    answers = np.zeros((len(rules), repeats, *candidates.labels.shape), dtype=candidates.answers.dtype)
    losses = np.zeros((len(rules), repeats, len(candidates.labels)))
    complete = np.ones(len(rules), dtype=np.bool_)
    random = np.random.default_rng(0)
    for repeat in range(repeats):
        for fold in _draw_folds(strata_of(candidates.labels, candidates.in_domain), folds, random):
            others = candidates.on(~fold)
            for at, rule in enumerate(rules):
                chosen = rule(others) if complete[at] else None
                if chosen is None:
                    complete[at] = False
                    continue
                answers[at, repeat, fold] = candidates.answers[chosen, fold]
                losses[at, repeat, fold] = candidates.losses[chosen, fold]
    return answers, losses, complete


def corrected_unseen(candidates: Candidates, unseen: Unseen | None, rules: Sequence[Rule]) -> list[UnseenDamage | None]:
    """Return the cross-fitted damage of each rule on unseen sentences; None if unknown.

    The rule chooses by the damage on one half of the unseen sentences, and the other half scores its choice; both ways.

    Args:
        candidates: the maps on all of the search's sentences.
        unseen: the scores of some maps on unseen sentences; None before they are scored.
        rules: one estimate each, in order; None if a rule found no scored map on some half.
    """
    head = candidates.task.head
    by_number = unseen_losses(unseen, head)
    (scored,) = np.nonzero([number in by_number for number in candidates.numbers.tolist()])
    if unseen is None or not scored.size:
        return [None] * len(rules)
    map_losses = np.array([by_number[int(number)] for number in candidates.numbers[scored]])
    n_sentences = map_losses.shape[1]
    losses = np.full((len(rules), REPEATS, n_sentences), np.nan)
    random = np.random.default_rng(0)
    for repeat in range(REPEATS):
        for half in _draw_folds(np.zeros(n_sentences, dtype=np.int64), 2, random):
            damages = np.full(candidates.numbers.size, np.nan)
            damages[scored] = map_losses[:, ~half].mean(axis=1)
            others = replace(candidates, unseen=damages, metric_draws=FOLD_DRAWS)
            for at, rule in enumerate(rules):
                chosen = rule(others)
                if chosen is not None and chosen in scored:
                    losses[at, repeat, half] = map_losses[np.searchsorted(scored, chosen), half]
    worst = head.worst_divergence(unseen.fp32_log_odds)
    return [None if np.isnan(own).any() else _mean_damage(own, worst) for own in losses]


def _mean_damage(losses: Floats, worst: float) -> UnseenDamage:
    """Return the damage of losses ``(repeats, n_sentences)`` and its interval, both averaged over repeats."""
    means = mean_losses(list(losses))
    return UnseenDamage(float(means.point.mean()), _mean_interval(means.intervals(worst)))


def _draw_folds(strata: npt.NDArray[np.int64], folds: int, random: np.random.Generator) -> Iterator[Mask]:
    """Yield each fold's mask, ``(n_sentences,)``, with its share of every stratum; skip empty and full folds."""
    order = np.lexsort((random.random(strata.size), strata))
    fold_of = np.empty(strata.size, dtype=np.int64)
    fold_of[order] = np.arange(strata.size) % folds
    for fold in range(folds):
        members = fold_of == fold
        if members.any() and not members.all():
            yield members


def _mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Average the ends of intervals: the result is as wide as one, though the mean of several scores varies less."""
    return Interval(fmean(interval.low for interval in intervals), fmean(interval.high for interval in intervals))
