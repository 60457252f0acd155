"""The interface of a forward pass over fixed sentences, and `transformers`' own for any architecture."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from objectives.batching import device_of, equal_length_batches
from objectives.layers import Layer

_FALLBACK_TOKENS = 2048

Logits = npt.NDArray[np.float32]
"""What the head gives for each sentence, ``(n_sentences, n_logits)``."""

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

    def run(self, start: int, states: States | None, keep: dict[int, States] | None) -> Logits:
        """Return the logits ``(n_sentences, n_logits)``, in the order of the sentences.

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

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        token_ids: Sequence[Sequence[int]],
        token_types: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Copy the model and sort the sentences into batches.

        Args:
            model: a ``transformers`` sequence classifier.
            layers: its searchable layers.
            token_ids: each sentence's tokens.
            token_types: each token's type; None for the model's own default. Not read if the model takes none.
        """
        self.description = f"transformers' forward in FP32 ({type(model).__name__} has no faster one)"
        self._model = copy.deepcopy(model).eval()
        self.slots: Sequence[WeightSlot] = [
            WeightSlot(self._model.get_parameter(layer.parameter).detach()) for layer in layers
        ]
        device = device_of(self._model)
        if "token_type_ids" not in inspect.signature(model.forward).parameters:
            token_types = None
        self._order: list[int] = []
        self._batches: list[dict[str, Tensor]] = []
        for indices, tokens in equal_length_batches(token_ids, _FALLBACK_TOKENS):
            batch = {"input_ids": tokens.to(device)}
            if token_types is not None:
                batch["token_type_ids"] = torch.tensor([token_types[index] for index in indices], device=device)
            self._order += indices
            self._batches.append(batch)

    def first_boundary_above(self, layer_index: int) -> int:
        """Return 0: there are no boundaries."""
        return 0

    def refresh(self, layer_indices: Sequence[int]) -> None:
        """Do nothing: the model reads its slots directly."""

    def run(self, start: int, states: States | None, keep: dict[int, States] | None) -> Logits:
        """Return the logits; every pass starts at the beginning."""
        with torch.inference_mode():
            # One copy at the end: batches do not wait for a GPU.
            sorted_logits = torch.cat([self._model(**batch).logits for batch in self._batches]).cpu().numpy()
        logits = np.empty_like(sorted_logits)
        logits[self._order] = sorted_logits
        return logits
