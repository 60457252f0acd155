import pytest
import torch
from torch import Tensor

from objectives.layers import WIDTHS
from objectives.quantization.affine import choose_affine, column_groups, encode
from objectives.quantization.parameters import decode


def quantise(weight: Tensor, width: int) -> Tensor:
    parameters = choose_affine(weight, width)
    return decode(encode(weight, parameters), parameters)


def slow_best_error(row: Tensor, width: int) -> float:
    """Return the least squared error over the same shares of the range, one weight at a time."""
    top = 2**width - 1
    low, high = min(float(row.min()), 0.0), max(float(row.max()), 0.0)
    full = (high - low) / top
    zero_point = min(max(round(-low / full), 0), top)
    errors = []
    for step in range(33):
        scale = full * (1 - 0.025 * step)
        error = 0.0
        for value in row.tolist():
            code = min(max(round(value / scale) + zero_point, 0), top)
            error += ((code - zero_point) * scale - value) ** 2
        errors.append(error)
    return min(errors)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_clipping_search_finds_what_the_slow_twin_finds(width: int) -> None:
    weight = torch.randn(7, 45, generator=torch.Generator().manual_seed(width)) * 0.05
    errors = ((quantise(weight, width) - weight) ** 2).sum(dim=1)
    expected = torch.tensor([slow_best_error(row, width) for row in weight])
    torch.testing.assert_close(errors, expected, rtol=1e-3, atol=0)


def test_the_error_of_a_uniform_distribution_is_the_known_one() -> None:
    # Rounding to steps of size s leaves an error of variance s^2 / 12.
    weight = torch.linspace(-1, 1, 100_001)[None]
    for width in (4, 6, 8):
        step = 2 / (2**width - 1)
        assert float(((quantise(weight, width) - weight) ** 2).mean()) == pytest.approx(step**2 / 12, rel=0.02)


@pytest.mark.parametrize("width", WIDTHS)
def test_codes_stay_in_range_and_encode_decode_encode_is_stable(width: int) -> None:
    weight = torch.randn(33, 70, generator=torch.Generator().manual_seed(0)) ** 3
    parameters = choose_affine(weight, width)
    codes = encode(weight, parameters)
    assert codes.dtype == torch.uint8
    assert int(codes.max()) <= 2**width - 1
    assert torch.equal(encode(decode(codes, parameters), parameters), codes)
    assert (parameters.scale > 0).all()
    assert torch.equal(parameters.zero_point, parameters.zero_point.round().clamp(0, 2**width - 1))


def test_more_bits_never_hurt() -> None:
    weight = torch.randn(20, 300, generator=torch.Generator().manual_seed(3))
    errors = [float(((quantise(weight, width) - weight) ** 2).sum()) for width in WIDTHS]
    assert errors == sorted(errors, reverse=True)


def test_zeros_and_representable_rows_are_exact() -> None:
    weight = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0], [-1.0, 0.0, 1.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    for width in WIDTHS:
        torch.testing.assert_close(quantise(weight, width)[[0, 3]], weight[[0, 3]], rtol=1e-6, atol=0)
    torch.testing.assert_close(quantise(weight, 2), weight, rtol=1e-6, atol=0)
    assert torch.isfinite(quantise(torch.full((2, 4), 1e-44), 4)).all()


def test_large_matrices_are_quantised_row_by_row_all_the_same() -> None:
    weight = torch.randn(3000, 100, generator=torch.Generator().manual_seed(4))
    whole, alone = choose_affine(weight, 3), choose_affine(weight[2500:2501], 3)
    assert torch.equal(whole.scale[2500], alone.scale[0])
    assert torch.equal(whole.zero_point[2500], alone.zero_point[0])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("group_size", [1, 4, 7, 20])
def test_each_group_of_columns_is_quantised_as_if_it_were_alone(width: int, group_size: int) -> None:
    weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(width)) * torch.logspace(-2, 1, 20)
    parameters = choose_affine(weight, width, column_groups(20, group_size))
    codes = encode(weight, parameters)
    assert parameters.scale.shape == (6, -(-20 // group_size))
    for start in range(0, 20, group_size):
        part = weight[:, start : start + group_size]
        alone = choose_affine(part, width)
        assert torch.equal(codes[:, start : start + group_size], encode(part, alone))
        expected = decode(encode(part, alone), alone)
        assert torch.equal(decode(codes, parameters)[:, start : start + group_size], expected)


@pytest.mark.parametrize("group_size", [0, 4])
def test_adjusted_weights_are_shifted_then_scaled(group_size: int) -> None:
    weight = torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    parameters = choose_affine(weight, 2, column_groups(10, group_size))
    codes = encode(weight, parameters)
    gain, shift = torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.0, 0.02, -0.02])
    found = decode(codes, parameters.adjusted(gain, shift))
    expected = (decode(codes, parameters) + shift[:, None]) * gain[:, None]
    torch.testing.assert_close(found[:3], expected[:3])
    # Zero points are stored in steps of 1/64 of a scale; those at an end of their range do not move beyond it.
    step = parameters.per_column(0, 10)[0] / 64
    apart = (found - expected).abs()
    inside = (parameters.per_column(0, 10)[1] > 0.5) & (parameters.per_column(0, 10)[1] < 2.5)
    assert (apart <= step)[inside].all()
    assert inside[3:].any()


def test_inputs_are_left_as_they_are() -> None:
    weight = torch.randn(4, 9)
    before = weight.clone()
    quantise(weight, 3)
    assert torch.equal(weight, before)
