"""Products that the processor's library fuses, against torch's own operators."""

import pytest
import torch

from objectives.evaluation.linear import FusedProduct, Product, make_product


@pytest.mark.parametrize("shape", [(1, 3, 5), (50, 48, 16), (300, 7, 65)], ids=str)
def test_fused_products_are_those_of_torch(shape: tuple[int, int, int]) -> None:
    rows, outputs, columns = shape
    torch.manual_seed(1)
    bias = torch.randn(outputs).bfloat16()
    fast = make_product(columns, bias)
    if not isinstance(fast, FusedProduct):
        pytest.skip("no fused products on this processor")
    plain = Product(columns, bias.float())
    x, residual = torch.randn(rows, columns).bfloat16(), torch.randn(rows, outputs).bfloat16()
    for _ in range(2):  # another weight is taken up
        fast.weight.copy_(torch.randn(outputs, columns))
        plain.weight.copy_(fast.weight)
        fast.refresh()
        # Sums and what follows are in FP32, so a result is off by its own rounding alone.
        for found, expected in (
            (fast(x), plain(x.float())),
            (fast.gelu(x), plain.gelu(x.float())),
            (fast.plus(x, residual), plain.plus(x.float(), residual.float())),
        ):
            torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=2**-8)


def test_fp32_products_are_torchs_own() -> None:
    assert type(make_product(4, torch.zeros(3))) is Product


def test_without_such_operators_products_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert type(make_product(4, torch.zeros(3).bfloat16())) is Product


def test_a_gpus_products_are_torchs_own() -> None:
    assert type(make_product(4, torch.zeros(3, device="meta").bfloat16())) is Product
