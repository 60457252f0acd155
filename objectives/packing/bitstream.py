"""Pack codes of 2 to 8 bits into a bit stream without gaps, and unpack them."""

from __future__ import annotations

from math import gcd

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_GROUPS = 1 << 17  # of eight codes each, processed at a time: a few megabytes


def packed_length(count: int, width: int) -> int:
    """Return the number of bytes that ``count`` codes take."""
    return (count * width + 7) // 8


def pack(codes: Bytes, width: int) -> Bytes:
    """Return codes ``(count,)``, each below ``2**width``, as a stream ``(packed_length(count, width),)``.

    The first code takes the lowest bits of the first byte. A code that crosses a byte's end continues in the lowest
    bits of the next byte.
    """
    shifts = np.arange(8, dtype=np.uint64) * np.uint64(width)
    stream = np.empty(-(-len(codes) // 8) * width, dtype=np.uint8)
    for start in range(0, len(codes), 8 * _GROUPS):
        part = codes[start : start + 8 * _GROUPS]
        groups = np.zeros((-(-len(part) // 8), 8), dtype=np.uint64)
        groups.ravel()[: len(part)] = part
        words = np.bitwise_or.reduce(groups << shifts, axis=1).astype("<u8")
        first = start // 8 * width
        stream[first : first + len(groups) * width] = words.view(np.uint8).reshape(-1, 8)[:, :width].ravel()
    return stream[: packed_length(len(codes), width)]


def unpack(stream: Bytes, width: int, count: int) -> Bytes:
    """Return the codes ``(count,)`` of a stream.

    Raises:
        ValueError: the length of the stream is not ``packed_length(count, width)``.
    """
    if len(stream) != packed_length(count, width):
        raise ValueError(f"{count} codes of {width} bits take {packed_length(count, width)} bytes, not {len(stream)}")
    codes = np.empty(count, dtype=np.uint8)
    for start in range(0, count, 8 * _GROUPS):
        stop = min(start + 8 * _GROUPS, count)
        codes[start:stop] = unpack_range(stream, width, start, stop)
    return codes


def unpack_range(stream: Bytes, width: int, start: int, stop: int) -> Bytes:
    """Return the codes ``(stop - start,)`` from one index to another; it takes three bytes of memory for each.

    The shortest run of codes that ends with a byte is loaded into a word of as many bytes as it has codes. Its halves
    are moved apart, then their halves, until each code has a byte of its own.
    """
    size = 8 // gcd(8, width)  # codes of a word: 1, 2, 4 or 8
    step = size * width // 8  # their bytes in the stream
    first, last = start // size, -(-stop // size)
    loaded = np.zeros(max(0, last - first - 1) * step + size, dtype=np.uint8)
    part = stream[first * step : last * step]
    loaded[: len(part)] = part
    words = np.ndarray(last - first, np.dtype(f"<u{size}"), loaded, strides=(step,)).copy()
    moved = np.empty_like(words)
    half = size // 2
    while half:
        low = sum((1 << half * width) - 1 << 16 * half * pair for pair in range(size // (2 * half)))
        np.left_shift(words, half * (8 - width), out=moved)
        moved &= low << 8 * half
        words &= low
        words |= moved
        half //= 2
    return words.view(np.uint8)[start - first * size : stop - first * size]


def unpack_rows(stream: Bytes, width: int, columns: int, rows: npt.NDArray[np.int64]) -> Bytes:
    """Return the codes ``(len(rows), columns)`` of the rows at these indices, each from 0 to below their number."""
    if columns * width % 8:  # rows do not begin with a byte
        starts = (rows * columns).tolist()
        parts = [unpack_range(stream, width, start, start + columns) for start in starts]
        return np.concatenate(parts).reshape(-1, columns) if parts else np.empty((0, columns), dtype=np.uint8)
    found = stream.reshape(-1, columns * width // 8)[rows].ravel()
    return unpack_range(found, width, 0, len(rows) * columns).reshape(-1, columns)
