"""Pack codes of 2 to 8 bits into a bit stream without gaps, and unpack them."""

from __future__ import annotations

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
    shifts = np.arange(8, dtype=np.uint64) * np.uint64(width)
    codes = np.empty(-(-count // 8) * 8, dtype=np.uint8)
    for start in range(0, len(stream), _GROUPS * width):
        part = stream[start : start + _GROUPS * width]
        groups = np.zeros((-(-len(part) // width), 8), dtype=np.uint8)
        whole = np.zeros(len(groups) * width, dtype=np.uint8)
        whole[: len(part)] = part
        groups[:, :width] = whole.reshape(-1, width)
        words = groups.view("<u8").astype(np.uint64)
        first = start // width * 8
        codes[first : first + len(groups) * 8] = ((words >> shifts) & np.uint64(2**width - 1)).ravel()
    return codes[:count]
