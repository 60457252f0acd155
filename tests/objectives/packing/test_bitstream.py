import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.layers import WIDTHS
from objectives.packing import bitstream
from objectives.packing.bitstream import pack, packed_length, unpack, unpack_range, unpack_rows


@given(st.sampled_from(WIDTHS), st.integers(0, 70), st.integers(0, 2**32 - 1))
def test_what_is_packed_comes_back(width: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**width, size=count).astype(np.uint8)
    stream = pack(codes, width)
    assert len(stream) == packed_length(count, width) == -(-count * width // 8)
    assert np.array_equal(unpack(stream, width, count), codes)


@given(st.sampled_from(WIDTHS), st.integers(1, 19), st.integers(0, 2**32 - 1))
def test_any_part_of_a_stream_comes_back_alone(width: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**width, size=(11, columns)).astype(np.uint8)
    stream = pack(codes.ravel(), width)
    start, stop = sorted(rng.integers(0, codes.size + 1, size=2).tolist())
    assert np.array_equal(unpack_range(stream, width, start, stop), codes.ravel()[start:stop])
    rows = rng.integers(0, 11, size=rng.integers(0, 20))
    assert np.array_equal(unpack_rows(stream, width, columns, rows), codes[rows])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_stream_is_the_codes_bits_lowest_first(width: int) -> None:
    codes = np.random.default_rng(width).integers(0, 2**width, size=37).astype(np.uint8)
    by_hand = [code >> bit & 1 for code in codes.tolist() for bit in range(width)]
    assert np.unpackbits(pack(codes, width), bitorder="little")[: 37 * width].tolist() == by_hand


def test_long_streams_are_packed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(0, 8, size=1001).astype(np.uint8)
    whole = pack(codes, 3)
    monkeypatch.setattr(bitstream, "_GROUPS", 5)
    assert np.array_equal(pack(codes, 3), whole)
    assert np.array_equal(unpack(whole, 3, 1001), codes)


def test_a_stream_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="take 2 bytes, not 3"):
        unpack(np.zeros(3, dtype=np.uint8), 4, 4)
