"""Second moments of each layer on real sentences: how errors in the columns of its weight add up.

    linear layer   M = mean x x'    over its inputs x
    embedding      M = mean g g'    over the gradients g of each output of the head with respect to its outputs

With E = Q - W the error of a layer's weight W, a linear layer's mean squared output error is tr(E M E'). An embedding's
output is a row of its weight, so inputs tell nothing about its columns; gradients do. The two means are the two factors
of a layer's Fisher matrix (Martens and Grosse, ICML 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from objectives.batching import device_of, equal_length_batches
from objectives.layers import Layer
from objectives.quantization.recording import recording

_BATCH_TOKENS = 2048
_ALTERNATIVE = "--quantizer affine --sensitivity none --sampler nsga2"


def second_moments(
    model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]]
) -> Mapping[str, Tensor]:
    """Return M of each layer, ``(columns, columns)``, by the layer's name.

    Args:
        model: a ``transformers`` sequence classifier in FP32; not changed. Inputs and gradients are those of
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
    with recording(model, embeddings, token_ids, _ALTERNATIVE) as recorder:
        for _, tokens in equal_length_batches(token_ids, _BATCH_TOKENS):
            for together in recorder.outputs_together:
                for use in recorder.uses(tokens, together):
                    for gradient in use.gradients:
                        flat = gradient.flatten(0, -2)
                        sums[embeddings[use.layer].name].addmm_(flat.T, flat)
            tokens_seen += tokens.numel()
    return {name: total / tokens_seen for name, total in sums.items()}


def _input_moments(model: nn.Module, linear: Sequence[Layer], token_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    if not linear:
        return {}
    with recording(model, linear, token_ids, _ALTERNATIVE) as recorder:
        one_by_one = recorder.one_by_one  # what a layer sees once for a batch is to count for each sentence
    with torch.no_grad():
        twins = _layers_of_equal_inputs(model, linear, token_ids[0])
        summed = [layer for layer in linear if twins[layer.name] == layer.name]
        sums = {layer.name: torch.zeros(layer.columns, layer.columns, device=device_of(model)) for layer in summed}
        seen = dict.fromkeys(sums, 0)

        def add(name: str, x: Tensor) -> None:
            x = x.flatten(0, -2)
            sums[name].addmm_(x.T, x)
            seen[name] += len(x)

        with _input_hooks(model, summed, add):
            for _, batch in equal_length_batches(token_ids, _BATCH_TOKENS):
                for tokens in batch.split(1) if one_by_one else (batch,):
                    model(input_ids=tokens.to(device_of(model)))
    for name, count in seen.items():
        sums[name] /= max(count, 1)  # a layer that never runs has none: the outputs do not depend on it
    return {name: sums[twin] for name, twin in twins.items()}


def _layers_of_equal_inputs(model: nn.Module, layers: Sequence[Layer], sentence: Sequence[int]) -> dict[str, str]:
    """Return the first layer that sees the same inputs, such as the query's for key and value, by the layer's name."""
    inputs: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}  # kept, so that no two have one address
    with _input_hooks(model, layers, lambda name, x: inputs[name].append(x)):
        model(input_ids=torch.tensor([list(sentence)], device=device_of(model)))
    first: dict[tuple[int, ...], str] = {}
    # A layer that does not run for this sentence may run for others.
    return {name: first.setdefault(tuple(map(id, seen)), name) if seen else name for name, seen in inputs.items()}


@contextmanager
def _input_hooks(model: nn.Module, layers: Sequence[Layer], see: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Call ``see`` with the layer's name and inputs at every call of a layer inside the context."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            see(name, inputs[0])

        return hook

    handles = [model.get_submodule(layer.name).register_forward_pre_hook(hook_of(layer.name)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
