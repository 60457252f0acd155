import pytest
import torch

from tests.benchmarks.codebook import codebook_weights, k_means


def test_codewords_of_a_gaussian_are_the_known_ones() -> None:
    values = torch.special.ndtri((torch.arange(50_000) + 0.5) / 50_000)
    # Max, IRE Transactions on Information Theory 6 (1960), table I: four levels for a unit Gaussian.
    assert k_means(values, 4).tolist() == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=0.01)
    error = (codebook_weights(values[None], 2) - values).square().mean()
    assert float(error) == pytest.approx(0.1175, rel=0.01)


def test_rows_of_zeros_stay_zeros() -> None:
    weight = torch.stack([torch.zeros(30), torch.linspace(-1, 1, 30)])
    assert torch.equal(codebook_weights(weight, 3)[0], torch.zeros(30))
