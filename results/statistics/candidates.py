"""The table of maps to choose from, with their sizes and results on some sentences, and the rules of choosing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from objectives.scores import Labels
from results.outcome import Outcome
from results.pareto import exact_sizes, non_dominated
from results.statistics.bootstrap import CONFIDENCE, RESAMPLES, Floats, Resamples
from results.statistics.confusion import DRAWS, Answers
from results.statistics.intervals import stack_log_odds
from results.statistics.metric_draws import MCC, TaskMetric
from results.statistics.unseen import unseen_losses

Mask = npt.NDArray[np.bool_]

FOLD_DRAWS = 1000  # few, since each rule chooses again on every fold


@dataclass(frozen=True)
class Candidates:
    """The maps that have scores, with their results on some sentences.

    Attributes:
        numbers: the trial numbers, ``(n_maps,)``, ascending.
        sizes: exact, on the outcome's size axis, ``(n_maps,)``.
        feasible: whether each meets the constraint, ``(n_maps,)``.
        damages: the mean loss of each map, ``(n_maps,)``; lower is better.
        losses: divergences from FP32, ``(n_maps, n_sentences)``, nats.
        worst_loss: that of a sentence whose answer is reversed, at most; nats.
        answers: each map's predictions, ``(n_maps, n_sentences, *head.label_shape)``.
        fp32_answers: the FP32 model's, ``(n_sentences, *head.label_shape)``.
        labels: in the same shape.
        in_domain: ``(n_sentences,)``, or None if the sentences do not say.
        unseen: the damage of each map on unseen sentences, ``(n_maps,)``; NaN if it was not scored there.
        resamples: the number of draws of the sentences, for damages.
        metric_draws: the number of draws behind a confidence in a metric.
        task: the task's metric.
    """

    numbers: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    feasible: Mask
    damages: Floats
    losses: Floats
    worst_loss: float
    answers: Answers
    fp32_answers: Answers
    labels: Labels
    in_domain: Mask | None
    unseen: Floats
    resamples: int = RESAMPLES
    metric_draws: int = DRAWS
    task: TaskMetric = MCC

    @classmethod
    def of(cls, outcome: Outcome) -> Candidates:
        """Return the complete trials of an outcome as candidates, on all sentences."""
        trials = [trial for trial in outcome.trials if trial.scores is not None and trial.log_odds is not None]
        unseen = unseen_losses(outcome.unseen, outcome.head)
        rows = [trial.log_odds for trial in trials if trial.log_odds is not None]
        head = outcome.head
        log_odds = stack_log_odds(rows, outcome.fp32_log_odds)
        return cls(
            numbers=np.array([trial.number for trial in trials], dtype=np.int64),
            sizes=exact_sizes(outcome.footprint, trials, outcome.size_axis),
            feasible=np.array([trial.feasible for trial in trials], dtype=np.bool_),
            damages=np.array([trial.scores.damage for trial in trials if trial.scores is not None], dtype=np.float64),
            losses=head.divergences(log_odds, outcome.fp32_log_odds),
            worst_loss=head.worst_divergence(outcome.fp32_log_odds),
            answers=head.predictions(log_odds),
            fp32_answers=head.predictions(outcome.fp32_log_odds),
            labels=outcome.labels,
            in_domain=outcome.in_domain,
            unseen=np.array([unseen[trial.number].mean() if trial.number in unseen else np.nan for trial in trials]),
            task=TaskMetric(outcome.metric, head),
        )

    def on(self, kept: Mask) -> Candidates:
        """Return the same maps on the sentences of a mask, ``(n_sentences,)``."""
        losses = self.losses[:, kept]
        return replace(
            self,
            damages=losses.mean(axis=1),
            losses=losses,
            answers=self.answers[:, kept],
            fp32_answers=self.fp32_answers[kept],
            labels=self.labels[kept],
            in_domain=None if self.in_domain is None else self.in_domain[kept],
            metric_draws=FOLD_DRAWS,
        )

    @cached_property
    def draws(self) -> Resamples:
        """Draws of these sentences, the same for all maps."""
        return Resamples.draw(self.labels, self.in_domain, resamples=self.resamples)

    def no_worse(self, at: int, margin: float) -> float:
        """Return the confidence, 0..1, that a map's metric is at most the margin below that of FP32."""
        drawn = self.task.draws(self.labels, self.answers[at], self.fp32_answers, draws=self.metric_draws)
        return drawn.confidence_above(-margin)

    @cached_property
    def metrics(self) -> Floats:
        """The metric of each map, ``(n_maps,)``."""
        return self.task.values(self.labels, self.answers)

    def front(self, eligible: Mask) -> npt.NDArray[np.int64]:
        """Return the indices of the front of damage and size, from the largest map to the smallest."""
        indices, damages = self.comparable(eligible)
        kept = indices[non_dominated(np.column_stack([damages, self.sizes])[indices])]
        return kept[np.argsort(-self.sizes[kept])]

    def comparable(self, eligible: Mask) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the indices of the maps to choose among, and the damage of every map to choose by.

        These are the maps scored on unseen sentences and their damage there, if there are any: a search finds maps
        whose errors cancel on its own sentences only. Otherwise they are all eligible maps and their damage on the
        search's sentences. This also holds if an eligible map misses the constraint: no such map is scored on unseen
        sentences.
        """
        (indices,) = np.nonzero(eligible)
        scored = indices[~np.isnan(self.unseen[indices])]
        use_unseen = scored.size and self.feasible[indices].all()
        return (scored, self.unseen) if use_unseen else (indices, self.damages)

    def is_worse(self, one: int, other: int, comparisons: int) -> bool:
        """Return whether the metric of one map is significantly lower than that of another.

        A paired test at level 5% / comparisons (Bonferroni): with d the difference of metrics and se(d) its standard
        error, d > z(1 - 0.05 / comparisons) se(d). The correction is needed because the other map is the best of
        many: the more there are, the further ahead it is by luck.
        """
        critical = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / max(comparisons, 1))
        error = self.task.standard_error(self.labels, self.answers[other], self.answers[one])
        return bool(self.metrics[other] - self.metrics[one] > critical * error)


Rule = Callable[[Candidates], int | None]
"""A rule of choosing: returns the index of a map, or None if no map qualifies."""


def least_damage_rule(eligible: Mask) -> Rule:
    """Return the rule: the least damage among the eligible maps whose metric is not significantly below the best.

    See ``Candidates.comparable`` for the damage that counts. Ties go to the smaller map, then to the earlier. The
    comparisons with the best are corrected for their number:
    J. C. Hsu, "Simultaneous confidence intervals for all distances from the 'best'", Annals of Statistics 9 (1981).

    Args:
        eligible: whether each map may be chosen, ``(n_maps,)``.
    """

    def choose(candidates: Candidates) -> int | None:
        indices, damages = candidates.comparable(eligible)
        if not indices.size:
            return None
        order: list[int] = indices[np.lexsort((candidates.sizes[indices], damages[indices]))].tolist()
        best = order[int(np.argmax(candidates.metrics[order]))]
        return next(at for at in order if at == best or not candidates.is_worse(at, best, indices.size - 1))

    return choose


def smallest_rule(margin: float, limits: Sequence[int]) -> Rule:
    """Return the rule: the smallest map whose metric is, with 95% confidence, at most the margin below that of FP32.

    Each limit of size is answered by the feasible map of least damage. These few maps are tested from the largest limit
    to the smallest, up to the first that fails. Neither the maps nor their order depend on a label. So this is a
    fixed-sequence test, and the confidence holds for any number of maps: W. Maurer, L. A. Hothorn and W. Lehmacher,
    "Multiple comparisons in drug clinical trials and preclinical assays: a-priori ordered hypotheses" (1995).

    Testing every map of the front is such a sequence, too. It claims less: of many maps one is soon unlucky
    (`python -m tests.benchmarks luck`).

    Args:
        margin: in units of the metric.
        limits: sizes, on the axis of the candidates, fixed before the metric of any map is known; limits that no map
            meets are left out.
    """

    def choose(candidates: Candidates) -> int | None:
        indices, damages = candidates.comparable(candidates.feasible)
        order = indices[np.lexsort((candidates.sizes[indices], damages[indices]))]
        smallest: int | None = None
        for limit in sorted(limits, reverse=True):
            at = next((int(at) for at in order if candidates.sizes[at] <= limit), None)
            if at is None or at == smallest:
                continue
            if candidates.no_worse(at, margin) < CONFIDENCE:
                break
            smallest = at
        return smallest

    return choose


def knee_rule() -> Rule:
    """Return the rule: the map on the front of damage and size that lies furthest below the line between its ends.

    Notation: x and y are the size and the damage, each scaled to run from 0 to 1 over the front. The knee maximises
    1 - x - y. A front of fewer than three maps has none. V. Satopaa et al.,
    "Finding a 'kneedle' in a haystack" (2011).
    """

    def choose(candidates: Candidates) -> int | None:
        front = candidates.front(candidates.feasible)
        if front.size < 3:
            return None
        _, all_damages = candidates.comparable(candidates.feasible)
        sizes, damages = candidates.sizes[front].astype(np.float64), all_damages[front]
        x = (sizes - sizes[-1]) / (sizes[0] - sizes[-1])
        y = (damages - damages[0]) / (damages[-1] - damages[0])
        return int(front[np.argmax(1 - x - y)])

    return choose
