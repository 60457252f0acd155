"""Simulated sentences and maps with known truth: CoLA's sizes and imbalance, and given chances of acceptance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.metrics import mcc_of_counts
from objectives.scores import Labels
from results.statistics.candidates import Candidates

# The validation set of CoLA: in-domain and out-of-domain sentences, unacceptable and acceptable ones.
_SIZES = {(0, True): 162, (0, False): 160, (1, True): 365, (1, False): 356}
_ACCEPTED = {(0, True): 0.50, (0, False): 0.35, (1, True): 0.90, (1, False): 0.86}


@dataclass(frozen=True)
class Truth:
    """Sentences, the chance that a map accepts each, and the MCC of maps with these chances."""

    labels: Labels
    in_domain: npt.NDArray[np.bool_]
    chances: npt.NDArray[np.float64]

    @property
    def mcc(self) -> float:
        positive = self.labels == 1
        hits, alarms = self.chances[positive].sum(), self.chances[~positive].sum()
        counts = (hits, positive.sum() - hits, alarms, (~positive).sum() - alarms)
        return float(mcc_of_counts(*(np.array(count) for count in counts)))

    def draw(self, random: np.random.Generator, maps: int) -> npt.NDArray[np.bool_]:
        """Return the sentences that each of some random maps accepts, ``(n_maps, n_sentences)``."""
        return random.random((maps, self.labels.size)) < self.chances


def cola_like() -> Truth:
    """Return sentences of CoLA's sizes with the acceptance rates of a BERT: MCC near 0.5."""
    labels = np.concatenate([np.full(size, label, dtype=np.int8) for (label, _), size in _SIZES.items()])
    inside = np.concatenate([np.full(size, domain) for (_, domain), size in _SIZES.items()])
    chances = np.concatenate([np.full(size, _ACCEPTED[stratum]) for stratum, size in _SIZES.items()])
    return Truth(labels, inside, chances)


def candidates_of(
    truth: Truth,
    accepted: npt.NDArray[np.bool_],
    *,
    sizes: npt.NDArray[np.int64] | None = None,
    losses: npt.NDArray[np.float64] | None = None,
    fp32_accepted: npt.NDArray[np.bool_] | None = None,
) -> Candidates:
    """Return candidates that accept ``(n_maps, n_sentences)``; by default of equal size and without losses."""
    count = len(accepted)
    losses = np.zeros(accepted.shape) if losses is None else losses
    return Candidates(
        numbers=np.arange(count),
        sizes=np.ones(count, dtype=np.int64) if sizes is None else sizes,
        feasible=np.ones(count, dtype=np.bool_),
        damages=losses.mean(axis=1),
        losses=losses,
        worst_loss=float(losses.max()),
        answers=accepted,
        fp32_answers=truth.labels == 1 if fp32_accepted is None else fp32_accepted,
        labels=truth.labels,
        in_domain=truth.in_domain,
        unseen=np.full(count, np.nan),
    )


def best_mcc(candidates: Candidates) -> int:
    """Choose the map of the best MCC; among equal maps, the luckiest."""
    return int(np.argmax(candidates.metrics))
