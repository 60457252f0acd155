"""All tokens of fixed sentences in one sequence, without padding and cut into chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from objectives.batching import by_length
from objectives.evaluation.attention import Attention

# Tokens in a chunk: enough rows for matrix products at full speed, few enough for activations to stay in the cache. A
# GPU is fastest with few, large kernels.
_CHUNK_TOKENS = 2048
_GPU_CHUNK_TOKENS = 1 << 16


@dataclass(frozen=True)
class Chunk:
    """Some of the sentences by ascending length, with their tokens in one sequence.

    Attributes:
        words: index of each token among the words that occur, ``(tokens,)``.
        places: index of each token's type and position among those that occur, type by type, ``(tokens,)``.
        first_tokens: index of each sentence's first token, ``(n_sentences,)``.
        attention: attention over these sentences.
    """

    words: Tensor
    places: Tensor
    first_tokens: Tensor
    attention: Attention


@dataclass(frozen=True)
class Layout:
    """Sentences in chunks, and the rows of the embeddings that occur: only these are decoded and held.

    Attributes:
        order: index of each sentence, by ascending length.
        words: the words that occur, ``(n_words,)``.
        types: the token types that occur, ``(n_types,)``.
        positions: the rows of the position embeddings that occur, ``(n_positions,)``.
    """

    order: npt.NDArray[np.int64]
    chunks: Sequence[Chunk]
    words: Tensor
    types: Tensor
    positions: Tensor


def lay_out(
    token_ids: Sequence[Sequence[int]],
    token_types: Sequence[Sequence[int]] | None,
    padding: int | None,
    device: torch.device,
    make_attention: Callable[[Sequence[int]], Attention],
) -> Layout:
    """Sort sentences and cut them into chunks.

    Args:
        token_ids: each sentence's tokens.
        token_types: each token's type; None for 0 throughout.
        padding: the padding token if positions are counted from it, as RoBERTa does; None if they start at 0.
        device: where the layout is kept.
        make_attention: makes the attention over sentences of these ascending lengths.
    """
    order = [index for _, indices in by_length(token_ids) for index in indices]
    lengths = [len(token_ids[index]) for index in order]
    tokens = _in_sequence(token_ids, order)
    types = np.zeros_like(tokens) if token_types is None else _in_sequence(token_types, order)
    words, word_index = np.unique(tokens, return_inverse=True)
    positions, position_index = np.unique(_positions(tokens, lengths, padding), return_inverse=True)
    types, type_index = np.unique(types, return_inverse=True)
    places = type_index * len(positions) + position_index
    chunks = []
    start = 0
    for in_chunk in _split(lengths, _CHUNK_TOKENS if device.type == "cpu" else _GPU_CHUNK_TOKENS):
        stop = start + sum(in_chunk)
        chunk = Chunk(
            words=torch.tensor(word_index[start:stop], device=device),
            places=torch.tensor(places[start:stop], device=device),
            first_tokens=torch.tensor(np.cumsum(in_chunk) - in_chunk, device=device),
            attention=make_attention(in_chunk),
        )
        chunks.append(chunk)
        start = stop
    rows = (torch.tensor(occurring, device=device) for occurring in (words, types, positions))
    return Layout(np.array(order), chunks, *rows)


def _in_sequence(sentences: Sequence[Sequence[int]], order: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array([number for index in order for number in sentences[index]], dtype=np.int64)


def _positions(tokens: npt.NDArray[np.int64], lengths: Sequence[int], padding: int | None) -> npt.NDArray[np.int64]:
    """Return the row of each token's position embedding, ``(tokens,)``.

    RoBERTa's rows start after the padding token's; a padding token inside a sentence has that row, and is not counted.
    """
    starts = np.cumsum(lengths) - lengths
    if padding is None:
        return np.arange(len(tokens), dtype=np.int64) - np.repeat(starts, lengths)
    counts = tokens != padding
    counted = np.concatenate([[0], np.cumsum(counts)])
    number = counted[1:] - np.repeat(counted[starts], lengths)  # from 1
    return np.where(counts, number + padding, padding)


def _split(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split ascending lengths into chunks of at most ``max_tokens`` tokens, and twice as many if they were padded.

    A longer sentence is a chunk by itself.
    """
    chunks: list[list[int]] = []
    used = max_tokens
    for length in lengths:
        if used + length > max_tokens or (len(chunks[-1]) + 1) * length > 2 * max_tokens:
            chunks.append([])
            used = 0
        chunks[-1].append(length)
        used += length
    return chunks
