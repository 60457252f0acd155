"""The searchable layers of a model: each embedding and linear layer of its encoder, in the order of the modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
"""The widths a layer may have, in bits."""

Bits = tuple[int, ...]
"""A bit map against a tuple of layers: the width of each layer, in the order of the layers."""


@dataclass(frozen=True)
class Layer:
    """One searchable weight tensor, named by its module: ``rows`` (output channels or embedding rows) x ``columns``."""

    name: str
    kind: Literal["embedding", "linear"]
    rows: int
    columns: int

    @property
    def elements(self) -> int:
        """The number of weights."""
        return self.rows * self.columns

    @property
    def parameter(self) -> str:
        """The name of the weight in the model's state dict."""
        return f"{self.name}.weight"


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a sequence-classification model of the BERT family, in module order.

    Searchable is what lies in the encoder (``model.base_model``, the pooler included); the classification head,
    biases and normalisations are not. For ``bert-base-uncased`` these are the 76 layers of the documented
    configuration, by the same names and in its order.

    Args:
        model: a ``transformers`` model with a ``base_model_prefix``.
    """
    prefix = str(model.base_model_prefix)
    encoder = model.get_submodule(prefix)
    layers = []
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding):
            kind: Literal["embedding", "linear"] = "embedding"
        elif isinstance(module, nn.Linear):
            kind = "linear"
        else:
            continue
        rows, columns = module.weight.shape
        layers.append(Layer(name=f"{prefix}.{name}", kind=kind, rows=rows, columns=columns))
    return tuple(layers)


def uniform(layers: Sequence[Layer], width: int) -> Bits:
    """Return the map that gives every layer the same width."""
    return (width,) * len(layers)
