import pytest
import torch

from objectives.layers import WIDTHS
from objectives.quantization.affine import choose_affine, encode
from objectives.quantization.codebook import k_means, quantize_codebook
from objectives.quantization.parameters import decode


def random_weight(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)


def test_codewords_of_a_gaussian_are_the_known_ones() -> None:
    values = torch.special.ndtri((torch.arange(50_000) + 0.5) / 50_000)
    # Max, IRE Transactions on Information Theory 6 (1960), table I: four levels for a unit Gaussian.
    assert k_means(values, 4).tolist() == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=0.01)
    error = (decode(*quantize_codebook(values[None], 2)) - values).square().mean()
    assert float(error) == pytest.approx(0.1175, rel=0.01)


@pytest.mark.parametrize("width", WIDTHS)
def test_each_weight_is_at_its_nearest_codeword(width: int) -> None:
    weight = random_weight(9, 70, width)
    codes, parameters = quantize_codebook(weight, width)
    assert codes.dtype == torch.uint8
    assert int(codes.max()) < 2**width
    assert parameters.fault() == ""
    levels = parameters.scale * parameters.codewords  # of each row
    distances = (weight[:, :, None] - levels[:, None, :]).abs()
    torch.testing.assert_close((decode(codes, parameters) - weight).abs(), distances.amin(dim=2))


@pytest.mark.parametrize("width", WIDTHS)
def test_it_errs_less_than_even_levels_on_gaussian_rows(width: int) -> None:
    weight = random_weight(200, 500, 1)
    even = choose_affine(weight, width)
    errors = (decode(encode(weight, even), even) - weight, decode(*quantize_codebook(weight, width)) - weight)
    assert float(errors[1].square().sum()) < float(errors[0].square().sum())


def test_rows_of_zeros_stay_zeros_and_few_values_are_exact() -> None:
    weight = torch.stack([torch.zeros(30), torch.linspace(-1, 1, 30)])
    assert torch.equal(decode(*quantize_codebook(weight, 3))[0], torch.zeros(30))
    for exact in (torch.zeros(3, 4), torch.full((2, 5), -0.3), torch.tensor([[1.0, -1.0, 1.0, 1.0]])):
        for width in WIDTHS:
            codes, parameters = quantize_codebook(exact, width)
            assert parameters.fault() == ""
            torch.testing.assert_close(decode(codes, parameters), exact, rtol=1e-5, atol=0)


def test_inputs_are_left_as_they_are() -> None:
    weight = random_weight(4, 9, 0)
    before = weight.clone()
    quantize_codebook(weight, 3)
    assert torch.equal(weight, before)
