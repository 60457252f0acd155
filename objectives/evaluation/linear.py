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
        activated: Tensor = torch.ops.aten.gelu_(self(x))  # in place: a matrix less, which F.gelu cannot spare
        return activated

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the product plus a residual ``(n, rows)``."""
        return self(x).add_(residual)


class FusedProduct(Product):
    """The same in bf16 on a CPU, by oneDNN, which adds and applies GELU to sums that are still in registers, in FP32.

    The weight is also kept in the order in which the processor's matrix units take it, so that it is brought into that
    order once for each map and not for each chunk of rows.

    The operators are those that torch's own compiler emits for a linear layer; :func:`make_product` falls back where
    they are missing.
    """

    def __init__(self, columns: int, bias: Tensor) -> None:
        """Make room for a weight as ``Product`` does."""
        super().__init__(columns, bias)
        self._reordered = self.weight

    def refresh(self) -> None:
        """Bring the weight into the order in which it is used."""
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
    """Return the fastest product there is for a weight of so many columns and a ``bias`` ``(rows,)``.

    In FP32 torch's own: oneDNN's take a quarter longer, with AVX-512 and without, than the library that torch asks.
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
