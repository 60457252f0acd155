"""What a forward pass over a fixed set of sentences is, and the one of `transformers` for any architecture."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from objectives.batching import device_of, equal_length_batches
from objectives.layers import Layer
from objectives.scores import LogOdds

_FALLBACK_TOKENS = 2048

States = tuple[Tensor, ...]
"""Hidden states of all tokens at a boundary, a part after the other; what a forward keeps is never written to again."""


@dataclass(frozen=True)
class WeightSlot:
    """Where a layer's weight goes: ``out`` takes its rows ``rows``, or all of them where that is None."""

    out: Tensor
    rows: Tensor | None = None


class Forward(Protocol):
    """A network with exchangeable weights, over the sentences it was made with.

    Attributes:
        slots: where each searchable layer's weight is to be written, in the order of the layers.
        n_boundaries: how many times the pass can be cut; hidden states exist at boundaries 0..n_boundaries - 1, and a
            pass may start at any of them.
        dtype: of the matrix products.
        description: what it is, in words.
    """

    slots: Sequence[WeightSlot]
    n_boundaries: int
    dtype: torch.dtype
    description: str

    def first_boundary_above(self, layer_index: int) -> int:
        """Return the lowest boundary whose hidden states depend on a layer; ``n_boundaries`` where none does."""
        ...

    def refresh(self, layer_indices: Sequence[int]) -> None:
        """Take note that the slots of these layers were written to."""
        ...

    def run(self, start: int, states: States | None, keep: dict[int, States] | None) -> LogOdds:
        """Return the log-odds ``(n_sentences,)``.

        Args:
            start: the boundary to start from; -1 for the beginning.
            states: the hidden states at that boundary.
            keep: takes the hidden states of every boundary passed, where given.
        """
        ...


class TransformersForward:
    """The model's own forward, in batches of equal length so that nothing is padded."""

    n_boundaries = 0
    dtype = torch.float32
    description = "transformers' forward in FP32, for want of one of our own for this architecture"

    def __init__(self, model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]]) -> None:
        """Copy the model and sort the sentences into batches."""
        self._model = copy.deepcopy(model).eval()
        self.slots: Sequence[WeightSlot] = [
            WeightSlot(self._model.get_parameter(layer.parameter).detach()) for layer in layers
        ]
        self._n_sentences = len(token_ids)
        device = device_of(self._model)
        self._batches = [(at, tokens.to(device)) for at, tokens in equal_length_batches(token_ids, _FALLBACK_TOKENS)]

    def first_boundary_above(self, layer_index: int) -> int:
        """Return 0: there is none."""
        return 0

    def refresh(self, layer_indices: Sequence[int]) -> None:
        """Do nothing: the model computes with its slots themselves."""

    def run(self, start: int, states: States | None, keep: dict[int, States] | None) -> LogOdds:
        """Return the log-odds; the pass always starts at the beginning."""
        log_odds = np.empty(self._n_sentences, dtype=np.float32)
        with torch.inference_mode():
            logits = torch.cat([self._model(input_ids=batch).logits for _, batch in self._batches])
        # Copied once: a GPU is not waited for between batches.
        log_odds[[index for indices, _ in self._batches for index in indices]] = (
            (logits[:, 1] - logits[:, 0]).cpu().numpy()
        )
        return log_odds
