"""Products that the processor's library fuses, against torch's own operators."""

import pytest
import torch

from objectives.products import FusedProduct, Product, make_product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 3, 5), (50, 48, 16), (300, 7, 65)], ids=str)
def test_fused_products_are_those_of_torch(
    shape: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})  # right also where they are slower
    rows, outputs, columns = shape
    torch.manual_seed(1)
    bias = torch.randn(outputs).to(dtype)
    fast = make_product(columns, bias)
    if not isinstance(fast, FusedProduct):
        pytest.skip(f"no fused products in {dtype} on this processor")
    plain = Product(columns, bias.float())
    x, residual = torch.randn(rows, columns).to(dtype), torch.randn(rows, outputs).to(dtype)
    for _ in range(2):  # another weight is taken up
        fast.weight.copy_(torch.randn(outputs, columns))
        plain.weight.copy_(fast.weight)
        fast.refresh()
        # Sums and what follows are in FP32, so a bf16 result is off by its own rounding alone.
        for found, expected in (
            (fast(x), plain(x.float())),
            (fast.gelu(x), plain.gelu(x.float())),
            (fast.plus(x, residual), plain.plus(x.float(), residual.float())),
        ):
            off = 1e-5 if dtype == torch.float32 else 2**-8
            torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=off)


def test_without_avx512_fp32_products_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": False})
    assert type(make_product(4, torch.zeros(3))) is Product


def test_without_such_operators_products_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert type(make_product(4, torch.zeros(3))) is Product


def test_a_gpus_products_are_torchs_own() -> None:
    assert type(make_product(4, torch.zeros(3, device="meta"))) is Product
