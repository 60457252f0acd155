"""Scores of a two-class classifier, all computed from one log-odds a sentence.

Notation:
    q: log-odds of a bit map, the logit of "acceptable" minus the logit of "unacceptable"; positive predicts acceptable.
    p: log-odds of the FP32 model.
    P: FP32 probability of "acceptable", 1 / (1 + exp(-p)).

    damage = mean over sentences of KL(P || Q)
    KL(P || Q) = log(1 + exp(q)) - log(1 + exp(p)) - P (q - p)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from objectives.errors import NotFiniteError

LogOdds = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int8]
Precision = Literal["fp32", "bf16"]
"""Precision of decoded weights and of the matrix products behind log-odds. Scores are computed in FP64."""


@dataclass(frozen=True)
class Scores:
    """Scores of one bit map.

    Lower ``damage`` (mean KL divergence from FP32) and ``cross_entropy`` are better, in nats a sentence. Of ``mcc``,
    ``accuracy`` and ``agreement`` (same top class as FP32) higher is better.
    """

    mcc: float
    accuracy: float
    agreement: float
    damage: float
    cross_entropy: float


def score(log_odds: LogOdds, labels: Labels, fp32_log_odds: LogOdds) -> Scores:
    """Score log-odds ``(n_sentences,)`` against labels ``(n_sentences,)`` and the FP32 model's log-odds.

    Raises:
        ValueError: the shapes differ.
        NotFiniteError: a log-odds is not finite.
    """
    if not log_odds.shape == labels.shape == fp32_log_odds.shape:
        raise ValueError(f"arrays must have one shape, got {log_odds.shape}, {labels.shape}, {fp32_log_odds.shape}")
    if not np.isfinite(log_odds).all():
        raise NotFiniteError(f"{np.count_nonzero(~np.isfinite(log_odds))} of {log_odds.size} log-odds are not finite")
    predicted = predictions(log_odds)
    return Scores(
        mcc=mcc(predicted, labels),
        accuracy=float(np.mean(predicted == labels)),
        agreement=float(np.mean(predicted == predictions(fp32_log_odds))),
        damage=float(np.mean(divergences(log_odds, fp32_log_odds))),
        cross_entropy=float(np.mean(_softplus(np.where(labels == 1, -1.0, 1.0) * log_odds.astype(np.float64)))),
    )


def predictions(log_odds: LogOdds) -> Labels:
    """Return the predicted class of each sentence, ``(n_sentences,)`` of 0 and 1; a tie is 0, as with argmax."""
    return (log_odds > 0).astype(np.int8)


def mcc(predicted: Labels, labels: Labels) -> float:
    """Return the Matthews correlation coefficient, -1..1, higher is better; 0 if it is undefined.

    B. W. Matthews, Biochimica et Biophysica Acta 405 (1975).
    """
    hits = int(np.count_nonzero((predicted == 1) & (labels == 1)))
    misses = int(np.count_nonzero((predicted == 0) & (labels == 1)))
    false_alarms = int(np.count_nonzero((predicted == 1) & (labels == 0)))
    rejections = int(np.count_nonzero((predicted == 0) & (labels == 0)))
    return float(mcc_of_counts(*(np.array(count) for count in (hits, misses, false_alarms, rejections))))


def mcc_of_counts(
    hits: npt.NDArray[np.int64],
    misses: npt.NDArray[np.int64],
    false_alarms: npt.NDArray[np.int64],
    rejections: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return the MCC of confusion counts, elementwise over arrays of one shape; 0 where it is undefined."""
    tp, fn, fp, tn = (np.asarray(count, dtype=np.float64) for count in (hits, misses, false_alarms, rejections))
    denominator = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.asarray((tp * tn - fp * fn) / np.where(denominator == 0, np.inf, denominator))


def divergences(log_odds: LogOdds, fp32_log_odds: LogOdds) -> npt.NDArray[np.float64]:
    """Return each sentence's KL divergence, in nats, of these class probabilities from the FP32 model's.

    ``(n_sentences,)``, lower is better; zero if the log-odds are equal. Their mean is the damage.
    """
    p, q = fp32_log_odds.astype(np.float64), log_odds.astype(np.float64)
    probability = 1.0 / (1.0 + np.exp(-np.clip(p, -700, 700)))
    # This form stays accurate for probabilities near 0 and 1; logarithms of the probabilities would not.
    return np.maximum(_softplus(q) - _softplus(p) - probability * (q - p), 0.0)


def worst_divergence(fp32_log_odds: LogOdds) -> float:
    """Return the divergence, in nats, if the FP32 model's surest answer were reversed, as sure as before."""
    return float(divergences(-fp32_log_odds, fp32_log_odds).max())


def _softplus(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.logaddexp(0.0, x)
