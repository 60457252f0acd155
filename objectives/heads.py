"""Heads: what a model's outputs mean. Every head is an exponential family, and all formulas follow from one function.

Notation, for one sentence:
    p, q: outputs of the FP32 model and of a bit map.
    A: the head's log-partition function; its gradient is the mean, its Hessian the curvature.

    head            outputs                       A(x)
    C classes       C - 1 log-odds to class 0     log(1 + sum exp x)
    L yes/no labels L logits                      sum log(1 + exp x)
    R numbers       R values                      sum x^2 / (2 v), with v the variance of FP32's outputs

    KL(P || Q) = A(q) - A(p) - gradA(p) . (q - p)

This is the Bregman divergence of A (A. Banerjee et al., "Clustering with Bregman divergences", JMLR 6 (2005)). Its
gradient by q is gradA(q) - gradA(p), and its curvature is the Hessian of A at q.

Outputs of sentences are ``(n_sentences, *head.shape)``. The shape is ``()`` for a head of one output, such as the
log-odds of two classes, and else ``(n_outputs,)``. Flat outputs are ``(n_sentences * n_outputs,)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError

if TYPE_CHECKING:  # reading a run loads no torch
    from torch import Tensor, nn

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
        return np.asarray(np.exp(x - self.log_partition(x)[..., None]) if self.shape else _sigmoid(x))

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
            return _binary_divergences(q, p)
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
        return _sigmoid(x)

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
        divergences: Tensor = self._sum(_binary_divergences(outputs, fp32_outputs))
        return divergences

    def reversed(self, outputs: Outputs) -> Outputs:
        return -outputs


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


TWO_CLASSES = Classes(1)
_KINDS: dict[str, type[Head]] = {"classes": Classes, "labels": YesNoLabels, "numbers": Numbers}
_PROBLEM_TYPES = {
    "single_label_classification": "classes",
    "multi_label_classification": "labels",
    "regression": "numbers",
}


def head_of_record(record: Mapping[str, Any] | None) -> Head:
    """Return the head that :meth:`Head.record` recorded; older studies have none and are of two classes."""
    if record is None:
        return TWO_CLASSES
    settings = {key: value for key, value in record.items() if key != "kind"}
    if "variances" in settings:
        settings["variances"] = tuple(settings["variances"])
    return _KINDS[record["kind"]](**settings)


def head_of(model: nn.Module) -> Head:
    """Return the head of a ``transformers`` sequence classifier; see :func:`head_of_config`."""
    return head_of_config(model.config)


def head_of_config(config: Any) -> Head:
    """Return the head of a ``transformers`` config, by its ``problem_type`` and ``num_labels``.

    A config that does not say is decided as ``transformers`` does for whole-number labels: one label is a number, more
    are classes. Numbers have no variances yet.

    Raises:
        InputError: the config's problem type is unknown, or one class is no choice.
    """
    n_logits = int(config.num_labels)
    problem_type = config.problem_type or ("regression" if n_logits == 1 else "single_label_classification")
    kind = _PROBLEM_TYPES.get(problem_type)
    if kind is None or (kind == "classes" and n_logits < 2):
        raise InputError(
            f"its config.json has problem_type {problem_type!r} with {n_logits} labels; it must be one of "
            f"{', '.join(_PROBLEM_TYPES)}, and classes must be two or more"
        )
    return Classes(n_logits - 1) if kind == "classes" else _KINDS[kind](n_logits)


def _sigmoid(x: Array) -> Array:
    largest = 700.0 if x.dtype == np.float64 else 88.0  # so that exp does not overflow
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -largest, largest))))


def _binary_divergences(q: Tensor, p: Tensor) -> Tensor:
    from torch.nn.functional import softplus

    return softplus(q) - softplus(p) - p.sigmoid() * (q - p)
