"""Heads that choose one of C classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from objectives.heads.base import Array, Curvature, Head, Outputs, binary_divergences, sigmoid

if TYPE_CHECKING:  # reading a run loads no torch
    from torch import Tensor


@dataclass(frozen=True)
class Classes(Head):
    """One of C classes; the outputs are the log-odds of classes 1 to C - 1 against class 0."""

    kind = "classes"

    @property
    def n_classes(self) -> int:
        """C."""
        return self.n_outputs + 1

    @property
    def description(self) -> str:
        return f"{self.n_classes} classes"

    @property
    def label_type(self) -> str:
        return "int8" if self.n_classes <= 128 else "int32"

    @property
    def label_shape(self) -> tuple[int, ...]:
        return ()

    def outputs(self, logits: Tensor) -> Tensor:
        return logits[:, 1:] - logits[:, :1] if self.shape else logits[:, 1] - logits[:, 0]

    def log_partition(self, x: Array) -> Array:
        if not self.shape:
            return np.asarray(np.logaddexp(0.0, x))
        columns = np.moveaxis(x, -1, 0)  # numpy is slow along a short last dimension
        top = np.maximum(reduce(np.maximum, columns), 0)
        return np.asarray(top + np.log(reduce(np.add, (np.exp(column - top) for column in columns), np.exp(-top))))

    def means(self, x: Array) -> Array:
        return np.asarray(np.exp(x - self.log_partition(x)[..., None]) if self.shape else sigmoid(x))

    def curvature(self, means: Array, floor: float = 0.0) -> Curvature:
        """Return the Hessians diag(m) - m m', decomposed one class after the other, which needs no cancellation."""
        if not self.shape:
            pivots = np.maximum(means * (1.0 - means), floor)
            return Curvature(pivots, None, pivots)
        first = np.maximum(1.0 - means.sum(-1, keepdims=True), 0.0)
        rest = first + np.cumsum(means[..., ::-1], axis=-1)[..., ::-1]  # of class 0, this class and later ones
        later = np.maximum(rest - means, np.finfo(means.dtype).tiny)
        pivots = np.maximum(means * np.clip(later / np.maximum(rest, later), 0.0, 1.0), floor)
        mixing = np.tril(-np.minimum(means[:, :, None] / later[:, None, :], 1.0), -1)
        mixing += np.eye(self.n_outputs, dtype=means.dtype)
        return Curvature(pivots.ravel(), mixing, (means * (1.0 - means)).sum(-1))

    def predictions(self, outputs: Outputs) -> Array:
        """Return the predicted classes ``(..., n_sentences)``; of equal ones the first, as with argmax."""
        if not self.shape:
            return (outputs > 0).astype(np.int8)
        best = outputs.argmax(-1)
        is_above = np.take_along_axis(outputs, best[..., None], -1)[..., 0] > 0
        return np.where(is_above, best + 1, 0).astype(np.int16)

    def cross_entropies(self, outputs: Outputs, labels: Array) -> npt.NDArray[np.float64]:
        x = outputs.astype(np.float64)
        if not self.shape:
            return np.asarray(np.logaddexp(0.0, np.where(labels == 1, -1.0, 1.0) * x))
        logits = np.concatenate([np.zeros((len(x), 1)), x], axis=1)
        return np.asarray(self.log_partition(x) - logits[np.arange(len(x)), labels])

    def torch_divergences(self, outputs: Tensor, fp32_outputs: Tensor) -> Tensor:
        q, p = outputs, fp32_outputs
        if not self.shape:
            return binary_divergences(q, p)
        from torch.nn.functional import pad

        q, p = pad(q, (1, 0)), pad(p, (1, 0))  # with class 0
        return q.logsumexp(-1) - p.logsumexp(-1) - (p.softmax(-1) * (q - p)).sum(-1)

    def reversed(self, outputs: Outputs) -> Outputs:
        """Return the outputs with the likeliest and the least likely class exchanged."""
        if not self.shape:
            return -outputs
        logits = np.concatenate([np.zeros_like(outputs[..., :1]), outputs], axis=-1)
        top, bottom = (index[..., None] for index in (logits.argmax(-1), logits.argmin(-1)))
        high, low = np.take_along_axis(logits, top, -1), np.take_along_axis(logits, bottom, -1)
        np.put_along_axis(logits, top, low, -1)
        np.put_along_axis(logits, bottom, high, -1)
        return np.asarray(logits[..., 1:] - logits[..., :1])


TWO_CLASSES = Classes(1)
