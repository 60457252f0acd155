"""The interface of a forward pass over fixed sentences, and `transformers`' own for any architecture."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from objectives.batching import device_of, equal_length_batches
from objectives.heads import head_of
from objectives.layers import Layer
from objectives.scores import LogOdds

_FALLBACK_TOKENS = 2048

States = tuple[Tensor, ...]
"""Hidden states of all tokens at a boundary, in chunks; kept states are never overwritten."""


@dataclass(frozen=True)
class WeightSlot:
    """The target of a layer's weight: ``out`` takes the rows ``rows``, or all rows if None."""

    out: Tensor
    rows: Tensor | None = None


class Forward(Protocol):
    """A network with exchangeable weights and fixed sentences.

    Attributes:
        slots: the target of each searchable layer's weight, in the order of the layers.
        n_boundaries: number of places where the pass can be cut. Hidden states exist at boundaries
            0..n_boundaries - 1, and a pass may start at any of them.
        dtype: of the matrix products.
        description: how it computes, for the log.
    """

    slots: Sequence[WeightSlot]
    n_boundaries: int
    dtype: torch.dtype
    description: str

    def first_boundary_above(self, layer_index: int) -> int:
        """Return the lowest boundary whose hidden states depend on a layer; ``n_boundaries`` if none does."""
        ...

    def refresh(self, layer_indices: Sequence[int]) -> None:
        """Update whatever is derived from the slots of these layers, after they were written to."""
        ...

    def run(self, start: int, states: States | None, keep: dict[int, States] | None) -> LogOdds:
        """Return the outputs of the head, ``(n_sentences, *head.shape)``: of two classes, log-odds.

        Args:
            start: the boundary to start from; -1 for the beginning.
            states: the hidden states at that boundary.
            keep: if given, receives the hidden states at every boundary passed.
        """
        ...


class TransformersForward:
    """The model's own forward pass, in batches of equal length without padding."""

    n_boundaries = 0
    dtype = torch.float32
    description = "transformers' forward in FP32 (the faster forward supports plain BERT only)"

    def __init__(self, model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]]) -> None:
        """Copy the model and sort the sentences into batches."""
        self._model = copy.deepcopy(model).eval()
        self.slots: Sequence[WeightSlot] = [
            WeightSlot(self._model.get_parameter(layer.parameter).detach()) for layer in layers
        ]
        self._head = head_of(model)
        self._n_sentences = len(token_ids)
        device = device_of(self._model)
        self._batches = [(at, tokens.to(device)) for at, tokens in equal_length_batches(token_ids, _FALLBACK_TOKENS)]

    def first_boundary_above(self, layer_index: int) -> int:
        """Return 0: there are no boundaries."""
        return 0

    def refresh(self, layer_indices: Sequence[int]) -> None:
        """Do nothing: the model reads its slots directly."""

    def run(self, start: int, states: States | None, keep: dict[int, States] | None) -> LogOdds:
        """Return the outputs; every pass starts at the beginning."""
        log_odds = np.empty((self._n_sentences, *self._head.shape), dtype=np.float32)
        with torch.inference_mode():
            logits = torch.cat([self._model(input_ids=batch).logits for _, batch in self._batches])
        # One copy at the end: batches do not wait for a GPU.
        log_odds[[index for indices, _ in self._batches for index in indices]] = (
            self._head.outputs(logits).cpu().numpy()
        )
        return log_odds
