"""What every head has: its outputs, its function A, and what follows from it; see :mod:`objectives.heads`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # reading a run loads no torch
    from torch import Tensor

Outputs = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
HeadKind = Literal["classes", "labels", "numbers"]
"""What a model predicts, and what labels are: one of C classes, yes or no for each of L labels, or numbers."""


@dataclass(frozen=True)
class Curvature:
    """The Hessians of A at some sentences, as L diag(d) L'.

    Attributes:
        pivots: d, flat.
        mixing: L, unit lower triangular, ``(n_sentences, n_outputs, n_outputs)``; None if it is the identity.
        traces: of each sentence's Hessian, ``(n_sentences,)``.
    """

    pivots: Array
    mixing: Array | None
    traces: Array

    def mixed(self, shifts: Array) -> Array:
        """Return s L of flat shifts s, ``(..., n_sentences * n_outputs)``: s H s' is the sum of d (s L)^2."""
        if self.mixing is None:
            return shifts
        mixed = shifts.copy()
        for distance, diagonal in enumerate(self._diagonals, start=1):  # a few long products
            mixed[..., :-distance] += shifts[..., distance:] * diagonal
        return mixed

    @cached_property
    def _diagonals(self) -> list[Array]:
        """The diagonals of the block-diagonal matrix L below its own, flat; zero from one sentence to the next."""
        assert self.mixing is not None
        n_outputs = self.mixing.shape[-1]
        flat = []
        for distance in range(1, n_outputs):
            diagonal = np.zeros(self.mixing.shape[:2], self.mixing.dtype)
            diagonal[:, :-distance] = np.diagonal(self.mixing, -distance, axis1=1, axis2=2)
            flat.append(diagonal.ravel()[:-distance])
        return flat

    def unmixed(self, columns: Array) -> Array:
        """Return L u of columns u, ``(n_sentences * n_outputs, n)``."""
        if self.mixing is None:
            return columns
        blocks = columns.reshape(*self.mixing.shape[:2], columns.shape[-1])
        return np.asarray((self.mixing @ blocks).reshape(columns.shape))


@dataclass(frozen=True)
class Head(ABC):
    """A head of ``n_outputs`` outputs; see the module's docstring."""

    n_outputs: int
    kind: ClassVar[HeadKind]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sentence's outputs."""
        return () if self.n_outputs == 1 else (self.n_outputs,)

    @property
    @abstractmethod
    def description(self) -> str:
        """What is predicted, such as ``3 classes``."""

    @property
    def label_type(self) -> str:
        """The type of labels in records."""
        return "int8"

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape of one sentence's labels, and of what is predicted."""
        return self.shape

    def shaped(self, flat: Array) -> Array:
        """Return flat outputs ``(..., n_sentences * n_outputs)`` as ``(..., n_sentences, *shape)``."""
        return flat.reshape(*flat.shape[:-1], -1, *self.shape) if self.shape else flat

    def divergences(self, outputs: Outputs, fp32_outputs: Outputs) -> npt.NDArray[np.float64]:
        """Return each sentence's KL divergence of the predictions from FP32's, ``(..., n_sentences)``, in nats.

        Lower is better; 0 if the outputs are equal. The mean is the damage.
        """
        p, q = fp32_outputs.astype(np.float64), outputs.astype(np.float64)
        # This form stays accurate for probabilities near 0 and 1; logarithms of the probabilities would not.
        linear = self._sum(self.means(p) * (q - p))
        return np.asarray(np.maximum(self.log_partition(q) - self.log_partition(p) - linear, 0.0))

    def worst_divergence(self, fp32_outputs: Outputs) -> float:
        """Return the divergence, in nats, if the FP32 model's surest answer were reversed, as sure as before."""
        return float(self.divergences(self.reversed(fp32_outputs), fp32_outputs).max())

    @abstractmethod
    def outputs(self, logits: Tensor) -> Tensor:
        """Return the outputs ``(n_sentences, *shape)`` of a model's logits ``(n_sentences, n_logits)``."""

    @abstractmethod
    def log_partition(self, x: Array) -> Array:
        """Return A, ``(..., n_sentences)``, of outputs ``(..., n_sentences, *shape)``."""

    @abstractmethod
    def means(self, x: Array) -> Array:
        """Return the gradient of A: probabilities, or numbers over their variances, in the shape and type of x."""

    @abstractmethod
    def curvature(self, means: Array, floor: float = 0.0) -> Curvature:
        """Return the Hessians of A where it has these means ``(n_sentences, *shape)``.

        Args:
            means: of the outputs.
            floor: probabilities' pivots are at least this.
        """

    @abstractmethod
    def predictions(self, outputs: Outputs) -> Array:
        """Return what is predicted: classes ``(..., n_sentences)``, labels of 0 and 1 or numbers in outputs' shape."""

    @abstractmethod
    def cross_entropies(self, outputs: Outputs, labels: Array) -> npt.NDArray[np.float64]:
        """Return the negative log-likelihood of each sentence's labels, ``(n_sentences,)``, in nats."""

    @abstractmethod
    def torch_divergences(self, outputs: Tensor, fp32_outputs: Tensor) -> Tensor:
        """Return :meth:`divergences` of tensors, with gradients, ``(n_sentences,)``."""

    @abstractmethod
    def reversed(self, outputs: Outputs) -> Outputs:
        """Return the outputs of the opposite answers, each as sure as before."""

    def record(self) -> dict[str, Any]:
        """Return the head for a study's record."""
        return {"kind": self.kind, "n_outputs": self.n_outputs}

    def _sum(self, x: Any) -> Any:
        """Return the sums over a sentence's outputs."""
        return reduce(add, (x[..., output] for output in range(self.n_outputs))) if self.shape else x


def sigmoid(x: Array) -> Array:
    """Return the logistic function of x, without overflow."""
    largest = 700.0 if x.dtype == np.float64 else 88.0  # so that exp does not overflow
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -largest, largest))))


def binary_divergences(q: Tensor, p: Tensor) -> Tensor:
    """Return the KL divergence of each yes/no answer from FP32's, of logits q and p in one shape."""
    from torch.nn.functional import softplus

    return softplus(q) - softplus(p) - p.sigmoid() * (q - p)
