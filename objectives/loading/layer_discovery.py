"""Find a network's searchable layers and the footprint of its bit maps."""

from __future__ import annotations

from typing import Literal

from torch import nn

from objectives.layers import Layer
from objectives.packing.footprint import Footprint, footprint
from objectives.packing.scheme import PER_ROW, Scheme


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a sequence-classification model of the BERT family, in module order.

    Every embedding and linear weight of the encoder (``model.base_model``, including the pooler) is searchable. The
    classification head, biases and normalisations are not. In ``bert-base-uncased`` these are the 76 layers of the
    documented configuration, with its names and in its order.

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


def footprint_of(model: nn.Module, scheme: Scheme = PER_ROW) -> Footprint:
    """Return the footprint of a ``transformers`` model."""
    state = model.state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items() if tensor.is_floating_point()}
    return footprint(find_layers(model), shapes, scheme)
