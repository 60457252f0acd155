"""Metrics: how well predictions agree with labels. Higher is better, and 1 is the best of each.

Classes and yes/no labels are scored by confusion matrices ``(..., label, answer)``, which may hold weights in place of
counts. Several labels, or several numbers, are scored one by one and averaged.

MCC of more than two classes is R_K: J. Gorodkin, "Comparing two K-category assignments by a K-category correlation
coefficient", Computational Biology and Chemistry 28 (2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.heads import TWO_CLASSES, Array, Classes, Head, HeadKind

MetricName = Literal["mcc", "accuracy", "f1", "pearson", "spearman"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)

METRIC_NAMES: dict[MetricName, str] = {
    "mcc": "MCC", "accuracy": "accuracy", "f1": "F1", "pearson": "Pearson r", "spearman": "Spearman rho",
}  # fmt: skip
"""As tables and texts name them."""

Floats = npt.NDArray[np.float64]

_CORRELATIONS = ("pearson", "spearman")
USUAL_METRICS: dict[HeadKind, MetricName] = {"classes": "mcc", "labels": "f1", "numbers": "pearson"}
"""The metric of each kind of head, if no task decides."""


def metric_of(head: Head, name: MetricName | Literal["auto"] = "auto", of_task: MetricName | None = None) -> MetricName:
    """Return the metric of a head: the named one.

    ``auto`` is ``of_task`` if it fits the head, else MCC for classes, F1 for labels, Pearson for numbers.

    Raises:
        InputError: the named metric is not of such a head.
    """
    if name == "auto":
        return of_task if of_task is not None and _fits(of_task, head.kind) else USUAL_METRICS[head.kind]
    if not _fits(name, head.kind):
        fitting = [metric for metric in METRICS if _fits(metric, head.kind)]
        raise InputError(f"metric {name}: does not fit a model that predicts {head.kind}; use {', '.join(fitting)}")
    return name


def _fits(name: MetricName, kind: HeadKind) -> bool:
    return (name in _CORRELATIONS) == (kind == "numbers")


def metric_definition(name: MetricName, head: Head, label_names: Sequence[str]) -> str:
    """Return what a metric is for a head: of what it is the mean, and for F1 of two classes which one is positive.

    Args:
        name: of the metric.
        head: what is scored.
        label_names: of classes or yes/no labels, in the order of the outputs; may be empty.
    """
    shown = METRIC_NAMES[name]
    if name == "f1" and head == TWO_CLASSES:
        positive = label_names[1] if label_names else ""
        return "F1 of class 1" + (f" ({positive!r})" if positive else "")
    if head.n_outputs == 1 or (isinstance(head, Classes) and name != "f1"):
        return shown
    return f"{shown}, the mean over {head.description}" + (" (macro)" if name == "f1" else "")


def lowest(name: MetricName) -> float:
    """Return the lowest value that a metric can have."""
    return 0.0 if name in ("accuracy", "f1") else -1.0


def metric_value(name: MetricName, head: Head, predicted: Array, labels: Array) -> float:
    """Return the metric of predictions ``(n_sentences, *head.label_shape)``; as of :func:`metric_values`."""
    return float(metric_values(name, head, predicted[np.newaxis], labels)[0])


def metric_values(name: MetricName, head: Head, predicted: Array, labels: Array) -> Floats:
    """Return the metric of each map's predictions, ``(n_maps,)``; 0 where it is undefined.

    Args:
        name: of the metric; it must fit the head.
        head: says what is predicted.
        predicted: as of ``head.predictions``: ``(n_maps, n_sentences, *head.label_shape)``.
        labels: ``(n_sentences, *head.label_shape)``.
    """
    if name in _CORRELATIONS:
        values = [correlation_of_moments(correlation_moments(name, own, labels).sum(axis=0)) for own in predicted]
        return np.array(values, dtype=np.float64)
    if isinstance(head, Classes):
        return metric_of_confusion(name, _confusions(predicted, labels, head.n_classes))
    each = predicted.reshape(*predicted.shape[:2], -1)
    by_label = [_confusions(each[:, :, at], truth, 2) for at, truth in enumerate(_columns(labels))]
    return np.asarray(np.mean([metric_of_confusion(name, confusion) for confusion in by_label], axis=0))


def chance_level(name: MetricName, head: Head, labels: Array) -> float:
    """Return the best metric of answers that are the same for all sentences; a model should be above it."""
    if name in _CORRELATIONS:
        return 0.0
    n_classes = head.n_classes if isinstance(head, Classes) else 2
    constant = np.tile(np.arange(n_classes)[:, np.newaxis], len(labels))
    columns = [labels] if isinstance(head, Classes) else _columns(labels)
    best = [metric_of_confusion(name, _confusions(constant, own, n_classes)).max() for own in columns]
    return float(np.mean(best))


def metric_of_confusion(name: MetricName, confusion: npt.NDArray[Any]) -> Floats:
    """Return MCC, accuracy or F1 of confusion matrices ``(..., label, answer)``; 0 where it is undefined.

    F1 of two classes is that of class 1; of more, the mean over classes.
    """
    if name == "mcc" and confusion.shape[-1] == 2:
        return mcc_of_counts(confusion[..., 1, 1], confusion[..., 1, 0], confusion[..., 0, 1], confusion[..., 0, 0])
    weights = confusion.astype(np.float64)
    hits = np.diagonal(weights, axis1=-2, axis2=-1)
    return metric_of_margins(name, *(np.moveaxis(part, -1, 0) for part in (hits, weights.sum(-2), weights.sum(-1))))


def metric_of_margins(name: MetricName, hits: Floats, answered: Floats, labelled: Floats) -> Floats:
    """Return :func:`metric_of_confusion` from the weights of each class, ``(n_classes, ...)``.

    Args:
        name: of the metric.
        hits: of the sentences of a class that get this answer.
        answered: of all that get this answer.
        labelled: of all of this class.
    """
    total = labelled.sum(0)
    if name == "accuracy":
        return np.asarray(hits.sum(0) / total)
    if name == "f1":
        present = labelled + answered
        scores = 2 * hits / np.where(present > 0, present, 1)
        if len(hits) == 2:
            return np.asarray(scores[1])
        return np.asarray(scores.sum(0) / np.maximum((present > 0).sum(0), 1))  # of the classes that occur
    spreads = (total**2 - (answered**2).sum(0)) * (total**2 - (labelled**2).sum(0))
    shared = hits.sum(0) * total - (labelled * answered).sum(0)
    return np.asarray(shared / np.sqrt(np.where(spreads > 0, spreads, np.inf)))


def mcc_of_counts(
    hits: npt.NDArray[Any], misses: npt.NDArray[Any], false_alarms: npt.NDArray[Any], rejections: npt.NDArray[Any]
) -> Floats:
    """Return the MCC of confusion counts, elementwise over arrays of one shape; 0 where it is undefined.

    B. W. Matthews, Biochimica et Biophysica Acta 405 (1975).
    """
    tp, fn, fp, tn = (np.asarray(count, dtype=np.float64) for count in (hits, misses, false_alarms, rejections))
    denominator = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.asarray((tp * tn - fp * fn) / np.where(denominator == 0, np.inf, denominator))


def correlation_moments(name: MetricName, predicted: Array, labels: Array) -> Floats:
    """Return 1, x, y, x^2, y^2 and x y of each sentence, ``(n_sentences, n_outputs, 6)``; their sums give correlations.

    Args:
        name: ``pearson``, or ``spearman`` for ranks in place of numbers.
        predicted: x, ``(n_sentences,)`` or ``(n_sentences, n_outputs)``; scaled to mean 0 and deviation 1.
        labels: y, of the same shape and treated alike.
    """
    x, y = (np.stack([_standardised(_ranks(own) if name == "spearman" else own) for own in _columns(values)], axis=1)
            for values in (predicted, labels))  # fmt: skip
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)


def correlation_of_moments(sums: Floats) -> Floats:
    """Return the mean correlation over outputs of summed moments ``(..., n_outputs, 6)``; 0 if a side is constant."""
    total = sums[..., 0]
    mean_x, mean_y, xx, yy, xy = (sums[..., at] / total for at in range(1, 6))
    spread = np.sqrt(np.maximum((xx - mean_x**2) * (yy - mean_y**2), 0.0))
    correlations = (xy - mean_x * mean_y) / np.where(spread > 1e-12, spread, np.inf)
    return np.asarray(np.clip(correlations, -1.0, 1.0).mean(-1))


def _standardised(values: Array) -> Floats:
    """Return values with mean 0 and deviation 1, so that their moments lose no digits; zeros if all are equal."""
    exact = values.astype(np.float64)
    if np.ptp(exact) == 0:
        return np.zeros_like(exact)
    return np.asarray((exact - exact.mean()) / exact.std())


def _ranks(values: Array) -> Floats:
    """Return the rank of each value from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def _columns(values: Array) -> Array:
    """Return predictions or labels one by one, ``(n_outputs, n_sentences)``."""
    return values.reshape(len(values), -1).T


def _confusions(predicted: Array, labels: Array, n_classes: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix of each map's ``(n_maps, n_sentences)``, ``(n_maps, label, answer)``."""
    cells = labels.astype(np.int64) * n_classes + predicted
    cells += np.arange(len(cells))[:, np.newaxis] * n_classes**2
    counts = np.bincount(cells.ravel(), minlength=len(cells) * n_classes**2)
    return counts.reshape(-1, n_classes, n_classes)
