"""Self-attention within each sentence, over a matrix of all sentences' tokens without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from types import ModuleType
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from objectives.evaluation.cuda_graphs import kernels_on

# In bf16, short sentences of one length attend together under a block-diagonal mask, up to about this many tokens: for
# one sentence alone, half of the time is overhead. FP32 gains nothing.
_TOKENS_TOGETHER = 28


class Attention(Protocol):
    """Multi-head self-attention over a fixed layout of sentences."""

    def __call__(self, projected: Tensor) -> Tensor:
        """Return the attention output of each token, ``(tokens, hidden)``.

        Args:
            projected: query, key and value side by side, ``(tokens, 3 * hidden)``.
        """
        ...

    def of_first_tokens(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Return the attention output of each sentence's first token, ``(n_sentences, hidden)``.

        Args:
            queries: queries of the first tokens, ``(n_sentences, hidden)``.
            keys_values: key and value of every token side by side, ``(tokens, 2 * hidden)``.
        """
        ...


@dataclass(frozen=True)
class _Run:
    """Consecutive sentences of one length, in groups that attend together under a mask."""

    start: int
    n_groups: int
    n_together: int
    length: int
    mask: Tensor | None

    @property
    def n_sentences(self) -> int:
        return self.n_groups * self.n_together

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.start + self.n_sentences * self.length)


class RunAttention:
    """Attention by runs of sentences of equal length: no padding, but many calls."""

    def __init__(self, lengths: Sequence[int], heads: int, dtype: torch.dtype) -> None:
        """Lay out sentences of these lengths; equal lengths are adjacent."""
        self._heads = heads
        self._n_sentences = len(lengths)
        self._runs: list[_Run] = []
        start = 0
        for length, equal in groupby(lengths):
            n_sentences = len(list(equal))
            together = max(1, min(_TOKENS_TOGETHER // length, n_sentences)) if dtype == torch.bfloat16 else 1
            n_groups, rest = divmod(n_sentences, together)
            for groups, n_together in ((n_groups, together), (1, rest)):
                if groups * n_together:
                    run = _Run(start, groups, n_together, length, _block_mask(n_together, length, dtype))
                    self._runs.append(run)
                    start = run.tokens.stop

    def __call__(self, projected: Tensor) -> Tensor:
        """Return the attention output of each token (see :class:`Attention`)."""
        attended = projected.new_empty(len(projected), projected.shape[1] // 3)
        for run in self._runs:
            shape = (run.n_groups, run.n_together * run.length, 3, self._heads, -1)
            query, key, value = projected[run.tokens].view(shape).permute(2, 0, 3, 1, 4)
            heads = F.scaled_dot_product_attention(query, key, value, run.mask).transpose(1, 2)
            attended[run.tokens].view(heads.shape).copy_(heads)
        return attended

    def of_first_tokens(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Return the attention output of first tokens (see :class:`Attention`)."""
        attended = torch.empty_like(queries)
        sentence = 0
        for run in self._runs:
            key, value = (
                keys_values[run.tokens].view(run.n_sentences, run.length, 2, self._heads, -1).permute(2, 0, 3, 1, 4)
            )
            sentences = slice(sentence, sentence + run.n_sentences)
            query = queries[sentences].view(run.n_sentences, 1, self._heads, -1).transpose(1, 2)
            attended[sentences] = F.scaled_dot_product_attention(query, key, value).reshape(run.n_sentences, -1)
            sentence += run.n_sentences
        return attended


class KernelAttention:
    """Attention by our Triton kernel: scores stay in registers, and lengths are padded to a power of two."""

    def __init__(self, kernels: ModuleType, lengths: Sequence[int], heads: int, device: torch.device) -> None:
        """Lay out sentences of these lengths, on a device that has the kernels."""
        self._heads = heads
        self._kernels = kernels
        self._ragged = kernels.Ragged.of(lengths, device)

    def __call__(self, projected: Tensor) -> Tensor:
        """Return the attention output of each token (see :class:`Attention`)."""
        attended: Tensor = self._kernels.attend(projected, self._ragged, self._heads)
        return attended

    def of_first_tokens(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Return the attention output of first tokens (see :class:`Attention`)."""
        attended: Tensor = self._kernels.attend_from_first(queries, keys_values, self._ragged, self._heads)
        return attended


class PaddedAttention:
    """Attention in one call, with all sentences padded to the longest: for a GPU that cannot run the kernel."""

    def __init__(self, lengths: Sequence[int], heads: int, device: torch.device) -> None:
        """Lay out sentences of these lengths."""
        self._heads = heads
        length = torch.tensor(lengths)[:, None]
        first = length.cumsum(dim=0) - length
        place = torch.arange(int(length.max()))
        real = place < length
        self._tokens = torch.where(real, first + place, 0).to(device)  # (n_sentences, longest)
        self._real = real[:, None, None, :].to(device)
        self._places = real.flatten().nonzero()[:, 0].to(device)  # of each token in the padded layout

    def __call__(self, projected: Tensor) -> Tensor:
        """Return the attention output of each token (see :class:`Attention`)."""
        query, key, value = self._padded(projected, 3)
        heads = F.scaled_dot_product_attention(query, key, value, self._real)
        return heads.transpose(1, 2).reshape(self._tokens.numel(), -1)[self._places]

    def of_first_tokens(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Return the attention output of first tokens (see :class:`Attention`)."""
        key, value = self._padded(keys_values, 2)
        query = queries.view(len(queries), 1, self._heads, -1).transpose(1, 2)
        return F.scaled_dot_product_attention(query, key, value, self._real).reshape(queries.shape)

    def _padded(self, projected: Tensor, n_parts: int) -> Tensor:
        shape = (*self._tokens.shape, n_parts, self._heads, -1)
        return projected[self._tokens].view(shape).permute(2, 0, 3, 1, 4)


def make_attention(
    lengths: Sequence[int], heads: int, head_size: int, device: torch.device, dtype: torch.dtype
) -> Attention:
    """Return the fastest attention over sentences of these ascending lengths."""
    if device.type == "cpu":
        return RunAttention(lengths, heads, dtype)
    kernels = kernels_on(device)
    if kernels is not None and kernels.can_attend(lengths[-1], head_size, dtype):
        return KernelAttention(kernels, lengths, heads, device)
    return PaddedAttention(lengths, heads, device)


def _block_mask(n_sentences: int, length: int, dtype: torch.dtype) -> Tensor | None:
    """Return the additive mask that keeps sentences apart, ``(tokens, tokens)``; None for one sentence."""
    if n_sentences == 1:
        return None
    own = torch.block_diag(*[torch.ones(length, length)] * n_sentences)
    return torch.zeros_like(own).masked_fill(own == 0, -torch.inf).to(dtype)
