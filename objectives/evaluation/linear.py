"""Linear maps with exchangeable weights, fused with the operation that follows them."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


class Product:
    """``x W' + bias`` for rows x ``(n, columns)``, with torch's own operators.

    Attributes:
        weight: W, ``(rows, columns)``; call :meth:`refresh` after writing to it.
    """

    def __init__(self, columns: int, bias: Tensor) -> None:
        """Allocate a weight of ``columns`` columns, with the dtype and device of ``bias`` ``(rows,)``."""
        self.weight = bias.new_empty(len(bias), columns)
        self._bias = bias

    def refresh(self) -> None:
        """Do nothing: products read the weight directly."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product, ``(n, rows)``."""
        return F.linear(x, self.weight, self._bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the exact GELU of the product, ``(n, rows)``."""
        activated: Tensor = torch.ops.aten.gelu_(self(x))  # in place: F.gelu would allocate another matrix
        return activated

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the product plus a residual ``(n, rows)``."""
        return self(x).add_(residual)


class FusedProduct(Product):
    """The same in bf16 on a CPU, with oneDNN: it adds and applies GELU in FP32 while sums are still in registers.

    A copy of the weight is reordered for the processor's matrix units, once for each map instead of for each chunk of
    rows. torch's compiler emits the same operators for a linear layer; :func:`make_product` falls back if torch lacks
    them.
    """

    def __init__(self, columns: int, bias: Tensor) -> None:
        """Allocate a weight as ``Product`` does."""
        super().__init__(columns, bias)
        self._reordered = self.weight

    def refresh(self) -> None:
        """Reorder the weight for the processor."""
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
    """Return the fastest product for a weight of ``columns`` columns and a ``bias`` ``(rows,)``.

    In FP32 that is torch's own: oneDNN takes a quarter longer, with and without AVX-512.
    """
    fused = bias.device.type == "cpu" and bias.dtype == torch.bfloat16 and _can_fuse()
    return FusedProduct(columns, bias) if fused else Product(columns, bias)


def _can_fuse() -> bool:
    operators = torch.ops.mkldnn
    return bool(
        torch.backends.mkldnn.is_available()
        and hasattr(operators, "_linear_pointwise")
        and hasattr(operators, "_reorder_linear_weight")
        and operators._is_mkldnn_bf16_supported()
    )
