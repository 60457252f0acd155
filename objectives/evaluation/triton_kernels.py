"""Triton kernels for a GPU, which save launches and padding.

Each replaces torch code that a CPU, or a GPU without Triton, runs: ``attend`` and ``attend_from_first`` replace
``PaddedAttention``, ``add_norm`` a sum and ``layer_norm``, and ``Decoder`` calls of ``AffineParameters.write``. All
compute in FP32 and round once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from objectives.evaluation.forward import WeightSlot
from objectives.layers import WIDTHS

_WIDEST = WIDTHS[-1]
_SHORTEST = 16  # the smallest tile of a matrix unit
_OPERAND_BYTES = 1 << 14  # at most: ``attend`` holds several operands in a multiprocessor's own memory
_DECODED_ROWS, _DECODED_COLUMNS = 16, 256  # the block of a weight that one program decodes


def can_attend(longest: int, size: int, dtype: torch.dtype) -> bool:
    """Return whether ``attend`` supports sentences of at most ``longest`` tokens with heads of this size."""
    operand_bytes = triton.next_power_of_2(longest) * size * dtype.itemsize
    return size >= _SHORTEST and size == triton.next_power_of_2(size) and operand_bytes <= _OPERAND_BYTES


@dataclass(frozen=True)
class Ragged:
    """Layout of sentences in a matrix of tokens, by ascending length.

    Attributes:
        starts: the first token of each sentence, and the end of the last, ``(n_sentences + 1,)``.
        runs: (index of the first sentence, number of sentences, maximum length) of each launch; the maximum length is a
            power of two.
    """

    starts: Tensor
    runs: Sequence[tuple[int, int, int]]

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Ragged:
        """Lay out sentences of these ascending lengths."""
        starts = torch.cat([torch.zeros(1, dtype=torch.long), torch.tensor(lengths).cumsum(dim=0)]).to(device)
        runs: dict[int, list[int]] = {}
        for number, length in enumerate(lengths):
            runs.setdefault(max(_SHORTEST, triton.next_power_of_2(length)), []).append(number)
        return cls(starts, [(numbers[0], len(numbers), most) for most, numbers in runs.items()])


def attend(projected: Tensor, ragged: Ragged, heads: int) -> Tensor:
    """Compute ``Attention.__call__`` of ``projected`` ``(tokens, 3 * hidden)``, if ``can_attend``."""
    hidden = projected.shape[1] // 3
    size = hidden // heads
    attended = projected.new_empty(len(projected), hidden)
    for first, count, most in ragged.runs:
        grid = (count * heads,)
        warps = max(1, most // 32)
        _attend[grid](projected, attended, ragged.starts, first, heads, size**-0.5, most, size, num_warps=warps)
    return attended


def attend_from_first(queries: Tensor, keys_values: Tensor, ragged: Ragged, heads: int) -> Tensor:
    """Compute ``Attention.of_first_tokens`` of ``(n_sentences, hidden)`` and ``(tokens, 2 * hidden)``."""
    size = queries.shape[1] // heads
    attended = torch.empty_like(queries)
    for first, count, most in ragged.runs:
        grid = (count * heads,)
        _attend_from_first[grid](
            queries, keys_values, attended, ragged.starts, first, heads, size**-0.5, most, size, num_warps=1
        )
    return attended


def add_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Return the LayerNorm of ``x + residual``, both ``(n, columns)`` and contiguous, in ``dtype``."""
    out = torch.empty_like(x, dtype=dtype)
    columns = x.shape[1]
    _add_norm[(len(x),)](x, residual, weight, bias, out, columns, epsilon, triton.next_power_of_2(columns), num_warps=4)
    return out


class Decoder:
    """Decodes all weights of a map, ``scale * (code - zero_point)``, in one launch.

    With torch's operators, each weight takes five or six launches, and the GPU waits for them.
    """

    def __init__(self, slots: Sequence[WeightSlot]) -> None:
        """Set the slot of each weight: contiguous tensors of FP32 or bf16, all on one GPU."""
        assert all(slot.out.is_contiguous() and slot.out.dtype in (torch.float32, torch.bfloat16) for slot in slots)
        self._slots = slots  # kept alive: the kernel has their addresses
        self._entries: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        rows, columns = (torch.tensor([slot.out.shape[at] for slot in slots]) for at in (0, 1))
        down, across = (rows + _DECODED_ROWS - 1) // _DECODED_ROWS, (columns + _DECODED_COLUMNS - 1) // _DECODED_COLUMNS
        blocks = down * across
        self._n_blocks = int(blocks.sum())
        targets = [
            torch.tensor([slot.out.data_ptr() for slot in slots]),
            torch.tensor([int(slot.out.dtype == torch.float32) for slot in slots]),
            torch.tensor([0 if slot.rows is None else slot.rows.data_ptr() for slot in slots]),
        ]
        device = slots[0].out.device
        self._targets = torch.stack([blocks.cumsum(dim=0) - blocks, rows, columns, *targets], dim=1).to(device)
        self._sources = torch.zeros(len(slots), _WIDEST + 1, 3, dtype=torch.long, device=device)

    def has_entry(self, index: int, width: int) -> bool:
        """Return whether a weight's entry at a width was added."""
        return (index, width) in self._entries

    def add(self, index: int, width: int, codes: Tensor, scale: Tensor, zero_point: Tensor) -> None:
        """Add a weight's entry at a width, 1..8: codes ``(rows, columns)``, scales and zero points ``(rows, 1)``."""
        entry = codes, scale, zero_point
        assert all(part.is_contiguous() for part in entry)
        self._sources[index, width] = torch.tensor([part.data_ptr() for part in entry]).to(self._sources.device)
        self._entries[index, width] = entry  # last, so that an interruption leaves no partial entry

    def decode(self, widths: Mapping[int, int]) -> None:
        """Decode weights, by index, from their entries at these widths; others are not changed."""
        all_widths = torch.tensor([widths.get(index, 0) for index in range(len(self._slots))])
        if self._sources.is_cuda:
            all_widths = all_widths.pin_memory().to(self._sources.device, non_blocking=True)
        _decode[(self._n_blocks,)](
            self._targets,
            self._sources,
            all_widths,
            len(self._slots),
            triton.next_power_of_2(len(self._slots)),
            _WIDEST + 1,
            _DECODED_ROWS,
            _DECODED_COLUMNS,
            num_warps=4,
        )


@triton.jit
def _attend(
    projected, attended, starts, first, heads, factor, most: tl.constexpr, size: tl.constexpr
):  # a program for each sentence and head
    sentence = first + tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    start = tl.load(starts + sentence)
    length = tl.load(starts + sentence + 1) - start
    hidden = heads * size
    token = tl.arange(0, most)
    real = token < length
    place = (start + token)[:, None] * (3 * hidden) + head * size + tl.arange(0, size)[None, :]
    query = tl.load(projected + place, mask=real[:, None], other=0.0)
    key = tl.load(projected + place + hidden, mask=real[:, None], other=0.0)
    value = tl.load(projected + place + 2 * hidden, mask=real[:, None], other=0.0)
    score = tl.dot(query, tl.trans(key), input_precision="ieee") * factor
    score = tl.where(real[None, :], score, float("-inf"))
    share = tl.exp(score - tl.max(score, axis=1)[:, None])
    total = tl.sum(share, axis=1)
    mixed = tl.dot(share.to(value.dtype), value, input_precision="ieee") / total[:, None]
    place = (start + token)[:, None] * hidden + head * size + tl.arange(0, size)[None, :]
    tl.store(attended + place, mixed.to(attended.dtype.element_ty), mask=real[:, None])


@triton.jit
def _attend_from_first(
    queries, keys_values, attended, starts, first, heads, factor, most: tl.constexpr, size: tl.constexpr
):  # a program for each sentence and head
    sentence = first + tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    start = tl.load(starts + sentence)
    length = tl.load(starts + sentence + 1) - start
    hidden = heads * size
    token = tl.arange(0, most)
    real = token < length
    own = sentence * hidden + head * size + tl.arange(0, size)
    query = tl.load(queries + own).to(tl.float32)
    place = (start + token)[:, None] * (2 * hidden) + head * size + tl.arange(0, size)[None, :]
    key = tl.load(keys_values + place, mask=real[:, None], other=0.0).to(tl.float32)
    value = tl.load(keys_values + place + hidden, mask=real[:, None], other=0.0).to(tl.float32)
    score = tl.sum(key * query[None, :], axis=1) * factor
    score = tl.where(real, score, float("-inf"))
    share = tl.exp(score - tl.max(score, axis=0))
    mixed = tl.sum(share[:, None] * value, axis=0) / tl.sum(share, axis=0)
    tl.store(attended + own, mixed.to(attended.dtype.element_ty))


@triton.jit
def _add_norm(x, residual, weight, bias, out, columns, epsilon, most: tl.constexpr):  # a program for each row
    column = tl.arange(0, most)
    real = column < columns
    place = tl.program_id(0).to(tl.int64) * columns + column
    total = tl.load(x + place, mask=real, other=0.0).to(tl.float32)
    total += tl.load(residual + place, mask=real, other=0.0).to(tl.float32)
    centred = tl.where(real, total - tl.sum(total) / columns, 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred) / columns + epsilon)
    normed = normed * tl.load(weight + column, mask=real).to(tl.float32)
    normed += tl.load(bias + column, mask=real).to(tl.float32)
    tl.store(out + place, normed.to(out.dtype.element_ty), mask=real)


@triton.jit
def _decode(
    targets,
    sources,
    widths,
    count,
    most: tl.constexpr,
    n_widths: tl.constexpr,
    n_rows: tl.constexpr,
    n_columns: tl.constexpr,
):  # a program for each block of a weight
    # ``targets`` has for each weight: first block, rows, columns, address, whether it is FP32, and address of its row
    # indices or 0. ``sources`` has for each weight and width the addresses of codes, scales and zero points.
    block = tl.program_id(0)
    weight = tl.arange(0, most)
    first_blocks = tl.load(targets + weight * 6, mask=weight < count, other=1 << 60)
    index = tl.sum((first_blocks <= block).to(tl.int32)) - 1
    width = tl.load(widths + index)
    if width != 0:
        target = targets + index * 6
        part = block - tl.load(target)
        rows = tl.load(target + 1)
        columns = tl.load(target + 2)
        out = tl.load(target + 3)
        picked = tl.load(target + 5)
        source = sources + (index * n_widths + width) * 3
        codes = tl.load(source).to(tl.pointer_type(tl.uint8))
        scales = tl.load(source + 1).to(tl.pointer_type(tl.float32))
        zero_points = tl.load(source + 2).to(tl.pointer_type(tl.float32))
        across = (columns + n_columns - 1) // n_columns
        row = part // across * n_rows + tl.arange(0, n_rows)
        column = part % across * n_columns + tl.arange(0, n_columns)[None, :]
        real = row < rows
        coded = row
        if picked != 0:
            coded = tl.load(picked.to(tl.pointer_type(tl.int64)) + row, mask=real, other=0)
        scale = tl.load(scales + coded, mask=real, other=0.0)[:, None]
        zero_point = tl.load(zero_points + coded, mask=real, other=0.0)[:, None]
        real = real[:, None] & (column < columns)
        code = tl.load(codes + coded[:, None] * columns + column, mask=real, other=0)
        decoded = (code.to(tl.float32) - zero_point) * scale
        place = row[:, None] * columns + column
        if tl.load(target + 4) != 0:
            tl.store(out.to(tl.pointer_type(tl.float32)) + place, decoded, mask=real)
        else:
            tl.store(out.to(tl.pointer_type(tl.bfloat16)) + place, decoded.to(tl.bfloat16), mask=real)
