"""Linear maps with exchangeable weights, and what follows them at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


class Product:
    """``x W' + bias`` for rows x ``(n, columns)``, by torch's own operators.

    Attributes:
        weight: W, ``(rows, columns)``; whoever writes to it calls :meth:`refresh` afterwards.
    """

    def __init__(self, columns: int, bias: Tensor) -> None:
        """Make room for a weight of so many columns, in the type and on the device of ``bias`` ``(rows,)``."""
        self.weight = bias.new_empty(len(bias), columns)
        self._bias = bias

    def refresh(self) -> None:
        """Take note that the weight has changed."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product, ``(n, rows)``."""
        return F.linear(x, self.weight, self._bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the exact GELU of the product, ``(n, rows)``."""
        return F.gelu(self(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the product plus a residual ``(n, rows)``."""
        return self(x).add_(residual)


class FusedProduct(Product):
    """The same on a CPU by oneDNN, which adds and applies GELU to sums that are still in registers, and in FP32.

    In bf16 the weight is also kept in the order in which the processor's matrix units take it, so that it is brought
    into that order once for each map and not for each chunk of rows. In FP32 that would gain nothing.

    The operators are those that torch's own compiler emits for a linear layer; :func:`make_product` falls back where
    they are missing or slower.
    """

    def __init__(self, columns: int, bias: Tensor) -> None:
        """Make room for a weight as ``Product`` does."""
        super().__init__(columns, bias)
        self._reordered = self.weight

    def refresh(self) -> None:
        """Bring the weight into the order in which it is used."""
        if self.weight.dtype == torch.bfloat16:
            self._reordered = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product, ``(n, rows)``."""
        return self._pointwise(x, "none", "")

    def gelu(self, x: Tensor) -> Tensor:
        """Return the exact GELU of the product, ``(n, rows)``."""
        return self._pointwise(x, "gelu", "none")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the product plus a residual ``(n, rows)``."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._reordered, self._bias, "add")
        return product

    def _pointwise(self, x: Tensor, function: str, variant: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._reordered, self._bias, function, [], variant)
        return product


def make_product(columns: int, bias: Tensor) -> Product:
    """Return the fastest product there is for a weight of so many columns and a ``bias`` ``(rows,)``."""
    fused = bias.device.type == "cpu" and can_fuse(bias.dtype) and _gains_by_fusing(bias.dtype)
    return FusedProduct(columns, bias) if fused else Product(columns, bias)


def can_fuse(dtype: torch.dtype) -> bool:
    """Return whether there are fused products in this type on this machine's CPU."""
    operators = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(operators, "_linear_pointwise")):
        return False
    if dtype == torch.bfloat16:
        return bool(hasattr(operators, "_reorder_linear_weight") and operators._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _gains_by_fusing(dtype: torch.dtype) -> bool:
    # On an AMD EPYC with AVX2 alone the FP32 products of oneDNN take up to a half longer than those of torch's other
    # library; `python -m tests.benchmarks evaluate` times an evaluation with either.
    return dtype != torch.float32 or bool(torch.cpu.get_capabilities().get("avx512_f"))
