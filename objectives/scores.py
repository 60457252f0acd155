"""Scores of a bit map's outputs; :mod:`objectives.heads` says what outputs are, and has the formula of the damage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError, NotFiniteError
from objectives.heads import TWO_CLASSES, Head, Outputs
from objectives.metrics import MetricName, metric_value

LogOdds = Outputs
"""The outputs of a model: of two classes, one log-odds a sentence."""
Labels = npt.NDArray[Any]
"""Classes or numbers ``(n_sentences,)``; several yes/no labels or numbers ``(n_sentences, n_outputs)``."""
Precision = Literal["fp32", "bf16"]
"""Precision of decoded weights and of the matrix products behind outputs. Scores are computed in FP64."""


@dataclass(frozen=True)
class Scores:
    """Scores of one bit map.

    Lower ``damage`` (mean KL divergence from FP32) and ``cross_entropy`` are better, in nats a sentence. Of ``metric``,
    the task's own, ``accuracy`` and ``agreement`` (same answer as FP32) higher is better. Numbers have neither of the
    last two. ``metric_name`` says which metric it is.
    """

    metric: float
    accuracy: float | None
    agreement: float | None
    damage: float
    cross_entropy: float
    metric_name: MetricName = "mcc"

    def quality(self, name: str) -> float:
        """Return the score that a search optimises: ``damage``, ``agreement``, or else the metric.

        Raises:
            InputError: numbers have no agreement.
        """
        if name == "damage":
            return self.damage
        if name != "agreement":
            return self.metric
        if self.agreement is None:
            raise InputError(
                "quality agreement: a model that predicts numbers has none; choose damage, or mcc for its metric"
            )
        return self.agreement

    def record(self) -> dict[str, float]:
        """Return the scores by their names, the metric by its own."""
        named = {self.metric_name: self.metric, "accuracy": self.accuracy, "agreement": self.agreement}
        named |= {"damage": self.damage, "cross_entropy": self.cross_entropy}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def of_record(cls, record: dict[str, Any], metric: MetricName) -> Scores:
        """Return the scores that :meth:`record` returned, among other things."""
        return cls(
            metric=record[metric],
            accuracy=record.get("accuracy"),
            agreement=record.get("agreement"),
            damage=record["damage"],
            cross_entropy=record["cross_entropy"],
            metric_name=metric,
        )


def score(
    outputs: Outputs, labels: Labels, fp32_outputs: Outputs, head: Head = TWO_CLASSES, metric: MetricName = "mcc"
) -> Scores:
    """Score outputs ``(n_sentences, *head.shape)`` against labels and the FP32 model's outputs.

    Raises:
        ValueError: the shapes differ.
        NotFiniteError: an output is not finite.
    """
    predicted, fp32_predicted = head.predictions(outputs), head.predictions(fp32_outputs)
    shapes_fit = outputs.shape == fp32_outputs.shape == (len(outputs), *head.shape) and predicted.shape == labels.shape
    if not shapes_fit:
        raise ValueError(f"arrays must have one shape, got {outputs.shape}, {labels.shape}, {fp32_outputs.shape}")
    if not np.isfinite(outputs).all():
        raise NotFiniteError(f"{np.count_nonzero(~np.isfinite(outputs))} of {outputs.size} outputs are not finite")
    is_choice = head.kind != "numbers"
    return Scores(
        metric=metric_value(metric, head, predicted, labels),
        accuracy=float(np.mean(predicted == labels)) if is_choice else None,
        agreement=float(np.mean(predicted == fp32_predicted)) if is_choice else None,
        damage=float(np.mean(head.divergences(outputs, fp32_outputs))),
        cross_entropy=float(np.mean(head.cross_entropies(outputs, labels))),
        metric_name=metric,
    )
