"""Find a network's searchable layers and the footprint of its bit maps."""

from __future__ import annotations

from typing import Literal

from torch import nn

from objectives.layers import Layer
from objectives.packing.footprint import Footprint, footprint
from objectives.packing.scheme import PER_ROW, Scheme


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a sequence-classification model of the BERT family, in module order.

    This is the one rule of what is searched: the weight of every embedding and linear module of the encoder
    (``model.base_model``, with its pooler if it has one). A module that runs many times, as ALBERT's do, is one layer
    with one width. All else stays in FP32: biases, normalisations, and the head, which is what lies outside the
    encoder (``classifier``, RoBERTa's and ELECTRA's ``classifier.dense``, DistilBERT's ``pre_classifier``). In
    ``bert-base-uncased`` these are the 76 layers of the documented configuration, with its names and in its order.

    Args:
        model: a ``transformers`` model with a ``base_model_prefix``.
    """
    prefix = str(model.base_model_prefix)
    layers = []
    for name, module in model.get_submodule(prefix).named_modules():
        if (kind := _kind(module)) is not None:
            rows, columns = module.weight.shape
            layers.append(Layer(name=f"{prefix}.{name}", kind=kind, rows=rows, columns=columns))
    return tuple(layers)


def what_is_searched(model: nn.Module) -> str:
    """Return the rule of ``find_layers`` in words, with the names of this model's encoder and head."""
    prefix = str(model.base_model_prefix)
    head = [
        name
        for name, module in model.named_modules()
        if _kind(module) is not None and not name.startswith(f"{prefix}.")
    ]
    return f"layers: each embedding and linear weight of {prefix}; the head stays in FP32 ({', '.join(head)})"


def footprint_of(model: nn.Module, scheme: Scheme = PER_ROW) -> Footprint:
    """Return the footprint of a ``transformers`` model."""
    state = model.state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items() if tensor.is_floating_point()}
    return footprint(find_layers(model), shapes, scheme)


def _kind(module: nn.Module) -> Literal["embedding", "linear"] | None:
    if isinstance(module, nn.Embedding):
        return "embedding"
    return "linear" if isinstance(module, nn.Linear) else None
