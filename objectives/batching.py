"""Batches of equally long sentences, which need no padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights."""
    return next(model.parameters()).device


def equal_length_batches(token_ids: Sequence[Sequence[int]], max_tokens: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield batches of equally long sentences: their indices, and their tokens ``(n, length)``.

    Args:
        token_ids: each sentence's tokens.
        max_tokens: the most tokens in a batch; a longer sentence is a batch by itself.
    """
    for length, indices in by_length(token_ids):
        step = max(1, max_tokens // length)
        for start in range(0, len(indices), step):
            batch = indices[start : start + step]
            yield batch, torch.tensor([token_ids[index] for index in batch])


def by_length(token_ids: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Return each length and the indices of the sentences of that length, shortest first."""
    indices: dict[int, list[int]] = {}
    for index, ids in enumerate(token_ids):
        indices.setdefault(len(ids), []).append(index)
    return sorted(indices.items())
