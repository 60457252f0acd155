"""Second moments of each layer on real sentences: how errors in the columns of its weight add up.

    linear layer   M = mean x x'    over its inputs x
    embedding      M = mean g g'    over the gradients g of the log-odds with respect to its outputs

With E = Q - W the error of a layer's weight W, a linear layer's mean squared output error is tr(E M E'). An embedding's
output is a row of its weight, so inputs tell nothing about its columns; gradients do. The two means are the two factors
of a layer's Fisher matrix (Martens and Grosse, ICML 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objectives.batching import device_of, equal_length_batches
from objectives.layers import Layer
from objectives.quantization.first_order import backward, recording

_BATCH_TOKENS = 2048


def second_moments(
    model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]]
) -> Mapping[str, Tensor]:
    """Return M of each layer, ``(columns, columns)``, by the layer's name.

    Args:
        model: a two-class ``transformers`` sequence classifier in FP32; not changed. Inputs and gradients are those of
            the FP32 model, so that a layer's codes do not depend on the widths of others.
        layers: its searchable layers.
        token_ids: sentences, special tokens included.
    """
    linear = [layer for layer in layers if layer.kind == "linear"]
    embeddings = [layer for layer in layers if layer.kind == "embedding"]
    return {**_input_moments(model, linear, token_ids), **_gradient_moments(model, embeddings, token_ids)}


def _gradient_moments(
    model: nn.Module, embeddings: Sequence[Layer], token_ids: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    sums = {layer.name: torch.zeros(layer.columns, layer.columns, device=device_of(model)) for layer in embeddings}
    if not sums:
        return sums
    tokens_seen = 0
    with recording(model, embeddings) as recorded:
        for _, tokens in equal_length_batches(token_ids, _BATCH_TOKENS):
            backward(model, tokens, "--quantizer affine --sensitivity none --sampler nsga2")
            for index, _, outputs in recorded:
                if outputs.grad is not None:  # else the log-odds do not depend on it
                    gradients = outputs.grad.flatten(0, -2)
                    sums[embeddings[index].name].addmm_(gradients.T, gradients)
            tokens_seen += tokens.numel()
    return {name: total / tokens_seen for name, total in sums.items()}


def _input_moments(model: nn.Module, linear: Sequence[Layer], token_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    with torch.no_grad(), _accumulate_inputs(model, linear) as sums:
        for _, tokens in equal_length_batches(token_ids, _BATCH_TOKENS):
            model(input_ids=tokens.to(device_of(model)))
    for total in {id(total): total for total in sums.values()}.values():  # layers may share one
        total.products /= total.count
    moments = {name: total.products for name, total in sums.items()}
    for layer in linear:
        if layer.name not in moments:  # it never runs, so the log-odds do not depend on it
            moments[layer.name] = torch.zeros(layer.columns, layer.columns, device=device_of(model))
    return moments


@dataclass
class _Sum:
    products: Tensor
    count: int


@contextmanager
def _accumulate_inputs(model: nn.Module, layers: Sequence[Layer]) -> Iterator[dict[str, _Sum]]:
    """Sum x x' over the inputs of each layer during forward passes; yield the sums by the layer's name."""
    sums: dict[str, _Sum] = {}
    last: tuple[Tensor, _Sum] | None = None

    def hook_of(layer: Layer) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            nonlocal last
            if last is not None and last[0] is inputs[0]:  # query, key and value: one sum for all three
                sums[layer.name] = last[1]
                return
            x = inputs[0].flatten(0, -2)
            if layer.name not in sums:
                sums[layer.name] = _Sum(torch.zeros(layer.columns, layer.columns, device=x.device), 0)
            sums[layer.name].products.addmm_(x.T, x)
            sums[layer.name].count += len(x)
            last = inputs[0], sums[layer.name]

        return hook

    handles = [model.get_submodule(layer.name).register_forward_pre_hook(hook_of(layer)) for layer in layers]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
