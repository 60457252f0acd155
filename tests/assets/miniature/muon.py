"""Muon, the optimiser of the miniature's encoder matrices: it learns from about half as many sentences as AdamW."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn


class Muon:
    """Momentum whose update is orthogonalised, for matrices; all of one shape are updated together.

    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). torch has one since 2.9, which
    takes matrix after matrix in bfloat16: slow for many small matrices, and slower where the CPU emulates bfloat16.

    Args:
        matrices: the parameters, ``(n_rows, n_columns)`` each.
        momentum: of the gradients' running mean.
        weight_decay: share of a weight that a step at learning rate 1 takes away.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], *, momentum: float, weight_decay: float) -> None:
        by_shape = defaultdict(list)
        for matrix in matrices:
            by_shape[matrix.shape].append(matrix)
        self._groups = [(group, torch.zeros(len(group), *shape)) for shape, group in by_shape.items()]
        self._momentum = momentum
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update every matrix from its gradient, and drop the gradients."""
        for matrices, mean in self._groups:
            gradients = torch.stack([_gradient(matrix) for matrix in matrices])
            mean.lerp_(gradients, 1 - self._momentum)
            updates = _orthogonalised(gradients.lerp_(mean, self._momentum))  # Nesterov's momentum
            # An orthogonal update has an RMS of 1 / sqrt(longer side); AdamW's is about 0.2, and so the same learning
            # rates fit both (J. Liu et al., "Muon is scalable for LLM training", 2025, equation 4).
            scale = 0.2 * max(mean.shape[1:]) ** 0.5
            for matrix, update in zip(matrices, updates, strict=True):
                matrix.mul_(1 - learning_rate * self._weight_decay).sub_(update, alpha=learning_rate * scale)
                matrix.grad = None


def _gradient(matrix: nn.Parameter) -> torch.Tensor:
    assert matrix.grad is not None
    return matrix.grad


def _orthogonalised(matrices: torch.Tensor, iterations: int = 4) -> torch.Tensor:
    """Return matrices ``(n, n_rows, n_columns)`` with singular values near 1, by Jordan's quintic steps."""
    wide = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if wide else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    orthogonalised: torch.Tensor = x.transpose(1, 2) if wide else x
    return orthogonalised
