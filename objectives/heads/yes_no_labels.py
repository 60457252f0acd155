"""Heads that say yes or no for each of L labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from objectives.heads.base import Array, Curvature, Head, Outputs, binary_divergences, sigmoid

if TYPE_CHECKING:  # reading a run loads no torch
    from torch import Tensor


@dataclass(frozen=True)
class YesNoLabels(Head):
    """L labels, each of which a sentence has or has not; the outputs are their logits."""

    kind = "labels"

    @property
    def description(self) -> str:
        return f"{self.n_outputs} yes/no labels" if self.shape else "a yes/no label"

    def outputs(self, logits: Tensor) -> Tensor:
        return logits if self.shape else logits[:, 0]

    def log_partition(self, x: Array) -> Array:
        return np.asarray(self._sum(np.logaddexp(0.0, x)))

    def means(self, x: Array) -> Array:
        return sigmoid(x)

    def curvature(self, means: Array, floor: float = 0.0) -> Curvature:
        pivots = np.maximum(means * (1.0 - means), floor)
        return Curvature(pivots.ravel(), None, self._sum(pivots))

    def predictions(self, outputs: Outputs) -> Array:
        """Return which labels are predicted, 0 or 1, in the shape of the outputs."""
        return (outputs > 0).astype(np.int8)

    def cross_entropies(self, outputs: Outputs, labels: Array) -> npt.NDArray[np.float64]:
        signed = np.where(labels == 1, -1.0, 1.0) * outputs.astype(np.float64)
        return np.asarray(self._sum(np.logaddexp(0.0, signed)))

    def torch_divergences(self, outputs: Tensor, fp32_outputs: Tensor) -> Tensor:
        divergences: Tensor = self._sum(binary_divergences(outputs, fp32_outputs))
        return divergences

    def reversed(self, outputs: Outputs) -> Outputs:
        return -outputs
