"""Parts of a forward pass, made from a model's modules: products, norms, and rows of embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from objectives.batching import device_of
from objectives.evaluation.cuda_graphs import kernels_on
from objectives.evaluation.forward import WeightSlot
from objectives.evaluation.linear import Product, make_product


@dataclass(frozen=True)
class Norm:
    """LayerNorm of a sum, returned in ``dtype``."""

    weight: Tensor
    bias: Tensor
    epsilon: float
    dtype: torch.dtype
    kernels: ModuleType | None

    def of_sum(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the LayerNorm of ``x + y``, both ``(n, hidden)``; x may be overwritten."""
        if self.kernels is None:
            return self._of(x.add_(y))
        normed: Tensor = self.kernels.add_norm(x, y, self.weight, self.bias, self.epsilon, self.dtype)
        return normed

    def of_product(self, product: Product, x: Tensor, residual: Tensor) -> Tensor:
        """Return the LayerNorm of the product of x plus a residual, ``(n, hidden)``."""
        return self._of(product.plus(x, residual)) if self.kernels is None else self.of_sum(product(x), residual)

    def _of(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon).to(self.dtype)


@dataclass(frozen=True)
class SearchedWeight:
    """Where a searchable weight goes.

    Attributes:
        slot: takes the weight.
        boundary: the lowest boundary whose hidden states depend on it.
        product: the product that reads it; None for embeddings.
    """

    slot: WeightSlot
    boundary: int
    product: Product | None = None


class Parts:
    """Makes the parts of a model's forward pass, and remembers where each searchable weight goes.

    Attributes:
        weights: where each weight goes that was asked for as searchable, by the name of its layer.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Make parts of this model for products in ``dtype``."""
        self._model = model
        self._dtype = dtype
        self.weights: dict[str, SearchedWeight] = {}

    def embedding(self, name: str, rows: Tensor) -> Tensor:
        """Return room for some rows of a searchable embedding in FP32, ``(len(rows), columns)``."""
        out = torch.empty(len(rows), self._model.get_parameter(f"{name}.weight").shape[1], device=rows.device)
        self.weights[name] = SearchedWeight(WeightSlot(out, rows), boundary=0)
        return out

    def product(self, boundary: int, *names: str) -> Product:
        """Return one product in the forward pass's dtype for linear modules that read the same rows; searchable."""
        modules = [self._linear(name) for name in names]
        bias = torch.cat([module.bias.detach() for module in modules]).to(self._dtype)
        product = make_product(modules[0].in_features, bias)
        weights = product.weight.split([module.out_features for module in modules])
        for name, weight in zip(names, weights, strict=True):
            self.weights[name] = SearchedWeight(WeightSlot(weight), boundary, product)
        return product

    def fixed_product(self, name: str) -> Product:
        """Return the product of a linear module that is not searched, in FP32."""
        module = self._linear(name)
        product = make_product(module.in_features, module.bias.detach().clone())
        product.weight.copy_(module.weight.detach())
        return product

    def norm(self, name: str, dtype: torch.dtype) -> Norm:
        """Return a LayerNorm whose own tensors are in ``dtype`` and whose results are in the forward pass's."""
        module = self._model.get_submodule(name)
        assert isinstance(module, nn.LayerNorm)
        weight, bias = (part.detach().to(dtype, copy=True) for part in (module.weight, module.bias))
        return Norm(weight, bias, module.eps, self._dtype, kernels_on(device_of(self._model)))

    def _linear(self, name: str) -> nn.Linear:
        module = self._model.get_submodule(name)
        assert isinstance(module, nn.Linear)
        return module
