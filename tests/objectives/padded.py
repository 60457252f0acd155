"""The forward pass by hand, for comparison: `transformers`' own, padded to one length."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from objectives.batching import device_of
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.forward import Logits
from objectives.layers import WIDTHS
from objectives.loading.layer_discovery import find_layers
from objectives.scores import LogOdds

_BATCH = 64


def padded_log_odds(model: nn.Module, sentences: Sequence[Sequence[int]]) -> LogOdds:
    """Return log-odds ``(n_sentences,)`` of sentences padded to one length, with a mask."""
    logits = padded_logits(model, sentences)
    log_odds: LogOdds = logits[:, 1] - logits[:, 0]
    return log_odds


def padded_logits(
    model: nn.Module, sentences: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None
) -> Logits:
    """Return logits ``(n_sentences, n_logits)`` of sentences padded to one length, with a mask."""
    longest = max(map(len, sentences))
    device = device_of(model)
    logits = []
    with torch.inference_mode():
        for start in range(0, len(sentences), _BATCH):
            part = slice(start, start + _BATCH)
            inputs = {
                "input_ids": [[*tokens, *[1] * (longest - len(tokens))] for tokens in sentences[part]],
                "attention_mask": [[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in sentences[part]],
            }
            if token_types is not None:
                inputs["token_type_ids"] = [[*types, *[0] * (longest - len(types))] for types in token_types[part]]
            tensors = {name: torch.tensor(rows).to(device) for name, rows in inputs.items()}
            logits.append(model(**tensors).logits.cpu().numpy())
    return np.asarray(np.concatenate(logits), dtype=np.float32)


def difference_from_transformers(
    model: nn.Module, sentences: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None
) -> float:
    """Return the largest difference of a logit between our evaluator and `transformers` on the same weights.

    The weights are those of a random map; the model is left as it is.
    """
    layers = find_layers(model)
    evaluator = Evaluator(model, layers, sentences, token_types=token_types)
    bit_map = tuple(int(width) for width in np.random.default_rng(0).choice(WIDTHS, size=len(layers)))
    quantised = copy.deepcopy(model)
    for layer, width in zip(layers, bit_map, strict=True):
        evaluator.bank.write_weight(layer, width, quantised.get_parameter(layer.parameter).data)
    return float(np.abs(evaluator.logits(bit_map) - padded_logits(quantised, sentences, token_types)).max())
