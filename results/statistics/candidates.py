"""What picks are chosen by: a table of maps with their sizes and their results on some sentences, and the rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from objectives.scores import Labels, divergences, mcc_of_counts, predictions
from results.outcome import Outcome
from results.pareto import exact_sizes, non_dominated
from results.statistics.bootstrap import CONFIDENCE, RESAMPLES, Floats, Resamples
from results.statistics.intervals import stacked
from results.statistics.unseen import unseen_losses

Mask = npt.NDArray[np.bool_]

RESAMPLES_OF_A_FOLD = 400  # choices are made anew for every fold


@dataclass(frozen=True)
class Candidates:
    """The maps that have scores, with their results on some sentences.

    Attributes:
        numbers: of their trials, ``(n_maps,)``, rising.
        sizes: exact, on the outcome's axis, ``(n_maps,)``; lower is smaller.
        feasible: whether each meets the constraint, ``(n_maps,)``.
        damages: the mean of its losses, ``(n_maps,)``; lower is better.
        losses: divergences from FP32, ``(n_maps, n_sentences)``, nats.
        accepted: what the maps accept, ``(n_maps, n_sentences)``.
        fp32_accepted: what the FP32 model accepts, ``(n_sentences,)``.
        labels: ``(n_sentences,)`` of 0 and 1.
        in_domain: ``(n_sentences,)``, or None if the sentences do not say.
        unseen: the damage of each map on unseen sentences, ``(n_maps,)``; NaN if it was not scored there.
        resamples: the number of draws of the sentences.
    """

    numbers: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    feasible: Mask
    damages: Floats
    losses: Floats
    accepted: Mask
    fp32_accepted: Mask
    labels: Labels
    in_domain: Mask | None
    unseen: Floats
    resamples: int = RESAMPLES

    @classmethod
    def of(cls, outcome: Outcome) -> Candidates:
        """Return the complete trials of an outcome, on all sentences."""
        trials = [trial for trial in outcome.trials if trial.scores is not None and trial.log_odds is not None]
        unseen = unseen_losses(outcome.unseen)
        log_odds = stacked([trial.log_odds for trial in trials if trial.log_odds is not None], outcome.labels.size)
        return cls(
            numbers=np.array([trial.number for trial in trials], dtype=np.int64),
            sizes=exact_sizes(outcome.footprint, trials, outcome.size_axis),
            feasible=np.array([trial.feasible for trial in trials], dtype=np.bool_),
            damages=np.array([trial.scores.damage for trial in trials if trial.scores is not None], dtype=np.float64),
            losses=divergences(log_odds, outcome.fp32_log_odds),
            accepted=predictions(log_odds) == 1,
            fp32_accepted=predictions(outcome.fp32_log_odds) == 1,
            labels=outcome.labels,
            in_domain=outcome.in_domain,
            unseen=np.array([unseen[trial.number].mean() if trial.number in unseen else np.nan for trial in trials]),
        )

    def on(self, kept: Mask) -> Candidates:
        """Return the same maps on some of the sentences, ``kept`` being ``(n_sentences,)``."""
        losses = self.losses[:, kept]
        return replace(
            self,
            damages=losses.mean(axis=1),
            losses=losses,
            accepted=self.accepted[:, kept],
            fp32_accepted=self.fp32_accepted[kept],
            labels=self.labels[kept],
            in_domain=None if self.in_domain is None else self.in_domain[kept],
            resamples=RESAMPLES_OF_A_FOLD,
        )

    @cached_property
    def draws(self) -> Resamples:
        """Draws of these sentences, the same for all maps."""
        return Resamples.draw(self.labels, self.in_domain, resamples=self.resamples)

    @cached_property
    def mccs(self) -> Floats:
        """The MCC of each map, ``(n_maps,)``."""
        positive = self.labels == 1
        hits, alarms = self.accepted[:, positive].sum(axis=1), self.accepted[:, ~positive].sum(axis=1)
        positives = np.count_nonzero(positive)
        return mcc_of_counts(hits, positives - hits, alarms, positive.size - positives - alarms)

    def front(self, eligible: Mask) -> npt.NDArray[np.int64]:
        """Return the indices of the front of damage and size, from the largest map to the smallest; see ``judged``."""
        places, damages = self.judged(eligible)
        kept = places[non_dominated(np.column_stack([damages, self.sizes])[places])]
        return kept[np.argsort(-self.sizes[kept])]

    def judged(self, eligible: Mask) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the indices of the maps to choose among, and the damage of every map to choose by.

        If some were scored on unseen sentences, it is those and their damage there: a search finds maps whose errors
        cancel on its own sentences and not elsewhere. Otherwise it is all of them, by the search's own sentences. So it
        is too if maps that miss the constraint are eligible, since these are not scored on unseen sentences.
        """
        (places,) = np.nonzero(eligible)
        scored = places[~np.isnan(self.unseen[places])]
        by_unseen = scored.size and self.feasible[places].all()
        return (scored, self.unseen) if by_unseen else (places, self.damages)

    def lags(self, one: int, other: int, comparisons: int) -> bool:
        """Return whether the MCC of one map can be told to be lower than that of another.

        A paired test at level 5% / comparisons (Bonferroni): with d the difference of the MCCs and se(d) its standard
        error, d > z(1 - 0.05 / comparisons) se(d). The other map is the luckiest of them all; the more there are, the
        further ahead it is by luck alone.
        """
        mcc = self._undrawn.mcc(self.accepted[[one, other]])
        difference = mcc[[1]] - mcc[[0]]
        critical = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / max(comparisons, 1))
        return bool(difference.point[0] > critical * difference.standard_errors()[0])

    @cached_property
    def _undrawn(self) -> Resamples:
        return Resamples.draw(self.labels, self.in_domain, resamples=0)


Rule = Callable[[Candidates], int | None]
"""A way to choose a map: returns its index, or None if there is none to choose."""


def least_damage_rule(eligible: Mask) -> Rule:
    """Return the rule: the least damage among the maps whose MCC cannot be told from the best MCC of them all.

    Damage is that on unseen sentences once it is known (``Candidates.judged``). Ties go to the smaller map, then to the
    earlier. Comparisons with the best, corrected for their number:
    J. C. Hsu, "Simultaneous confidence intervals for all distances from the 'best'", Annals of Statistics 9 (1981).

    Args:
        eligible: which maps are small enough, ``(n_maps,)``.
    """

    def choose(candidates: Candidates) -> int | None:
        judged, damages = candidates.judged(eligible)
        if not judged.size:
            return None
        order = judged[np.lexsort((candidates.sizes[judged], damages[judged]))]
        champion = int(order[np.argmax(candidates.mccs[order])])
        return next(
            int(at) for at in order if at == champion or not candidates.lags(int(at), champion, judged.size - 1)
        )

    return choose


def smallest_rule(margin: float) -> Rule:
    """Return the rule: the smallest map that is no worse than FP32 in MCC by more than the margin, with 95% confidence.

    The front of damage and size is tested from the largest map to the smallest, up to the first that fails. Neither the
    order nor the front depends on a label, so this is a fixed-sequence test, and the confidence holds for any number of
    maps: W. Maurer, L. A. Hothorn and W. Lehmacher, "Multiple comparisons in drug clinical trials and
    preclinical assays: a-priori ordered hypotheses" (1995).
    """

    def choose(candidates: Candidates) -> int | None:
        front = candidates.front(candidates.feasible)
        fp32 = candidates.draws.mcc(candidates.fp32_accepted[np.newaxis])
        confidences = (candidates.draws.mcc(candidates.accepted[front]) - fp32).confidence_above(-margin)
        failing = np.flatnonzero(confidences < CONFIDENCE)
        passed = int(failing[0]) if failing.size else front.size
        return int(front[passed - 1]) if passed else None

    return choose


def knee_rule() -> Rule:
    """Return the rule: the map of the front of damage and size that lies furthest below the line between its ends.

    Both axes are scaled to run from 0 to 1 over the front, x from its smallest map to its largest and y from its least
    damage to its most; the knee maximises 1 - x - y. A front of fewer than three maps has none. V. Satopaa et al.,
    "Finding a 'kneedle' in a haystack" (2011).
    """

    def choose(candidates: Candidates) -> int | None:
        front = candidates.front(candidates.feasible)
        if front.size < 3:
            return None
        _, judged = candidates.judged(candidates.feasible)
        sizes, damages = candidates.sizes[front].astype(np.float64), judged[front]
        across = (sizes - sizes[-1]) / (sizes[0] - sizes[-1])
        up = (damages - damages[0]) / (damages[-1] - damages[0])
        return int(front[np.argmax(1 - across - up)])

    return choose
