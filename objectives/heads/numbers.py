"""Heads that predict numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.heads.base import Array, Curvature, Head, Outputs

if TYPE_CHECKING:  # reading a run loads no torch
    from torch import Tensor


@dataclass(frozen=True)
class Numbers(Head):
    """R numbers; ``variances`` are v, of the FP32 model's outputs on the search's sentences.

    Without them, before these sentences are scored, only :meth:`outputs` serves.
    """

    variances: tuple[float, ...] = ()

    kind = "numbers"

    @property
    def description(self) -> str:
        return f"{self.n_outputs} numbers" if self.shape else "a number"

    @property
    def label_type(self) -> str:
        return "float32"

    @classmethod
    def of(cls, fp32_outputs: Outputs) -> Numbers:
        """Return the head with the variances of the FP32 model's outputs ``(n_sentences, *shape)``.

        Raises:
            InputError: an output is the same for all sentences.
        """
        columns = fp32_outputs.astype(np.float64).reshape(len(fp32_outputs), -1)
        if constant := np.flatnonzero(np.ptp(columns, axis=0) == 0).tolist():
            raise InputError(
                f"the FP32 model's output {constant[0]} is the same for all sentences, so its predictions say nothing; "
                "use more sentences or another model"
            )
        return cls(columns.shape[1], tuple(columns.var(axis=0).tolist()))

    def outputs(self, logits: Tensor) -> Tensor:
        return logits if self.shape else logits[:, 0]

    def divergences(self, outputs: Outputs, fp32_outputs: Outputs) -> npt.NDArray[np.float64]:
        moved = outputs.astype(np.float64) - fp32_outputs.astype(np.float64)
        return np.asarray(self._sum(moved**2 / (2.0 * self._v(moved))))

    def log_partition(self, x: Array) -> Array:
        return np.asarray(self._sum(x**2 / (2.0 * self._v(x))))

    def means(self, x: Array) -> Array:
        return np.asarray(x / self._v(x))

    def curvature(self, means: Array, floor: float = 0.0) -> Curvature:
        """Return the Hessians 1 / v; they are the same everywhere, and the floor does not apply."""
        pivots = np.broadcast_to(1.0 / self._v(means), means.shape)
        return Curvature(pivots.ravel(), None, self._sum(pivots))

    def predictions(self, outputs: Outputs) -> Array:
        """Return the numbers themselves."""
        return outputs

    def cross_entropies(self, outputs: Outputs, labels: Array) -> npt.NDArray[np.float64]:
        """Return the squared errors over 2 v, ``(n_sentences,)``: without the part that no model changes."""
        return self.divergences(outputs, labels)

    def torch_divergences(self, outputs: Tensor, fp32_outputs: Tensor) -> Tensor:
        moved = outputs - fp32_outputs
        divergences: Tensor = self._sum(moved**2 / (2.0 * moved.new_tensor(self.variances).reshape(self.shape)))
        return divergences

    def reversed(self, outputs: Outputs) -> Outputs:
        """Return the outputs mirrored within their range."""
        return np.asarray(outputs.max(axis=0) + outputs.min(axis=0) - outputs)

    def record(self) -> dict[str, Any]:
        return {**super().record(), "variances": list(self.variances)}

    def _v(self, like: Array) -> Array:
        return np.asarray(self.variances, dtype=like.dtype).reshape(self.shape)
