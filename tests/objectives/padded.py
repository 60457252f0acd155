"""The forward pass by hand, for comparison: `transformers`' own, padded to one length."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from objectives.batching import device_of
from objectives.evaluation.evaluator import Evaluator
from objectives.layers import WIDTHS
from objectives.loading.layer_discovery import find_layers
from objectives.scores import LogOdds

_BATCH = 64


def padded_log_odds(model: nn.Module, sentences: Sequence[Sequence[int]]) -> LogOdds:
    """Return log-odds ``(n_sentences,)`` of sentences padded to one length, with a mask."""
    longest = max(map(len, sentences))
    log_odds = []
    with torch.inference_mode():
        for start in range(0, len(sentences), _BATCH):
            part = sentences[start : start + _BATCH]
            ids = torch.tensor([[*tokens, *[1] * (longest - len(tokens))] for tokens in part])
            mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in part])
            device = device_of(model)
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            log_odds.append((logits[:, 1] - logits[:, 0]).cpu().numpy())
    return np.asarray(np.concatenate(log_odds), dtype=np.float32)


def difference_from_transformers(model: nn.Module, sentences: Sequence[Sequence[int]]) -> float:
    """Return the largest difference of a log-odds between our evaluator and `transformers` on the same weights.

    The weights are those of a random map; the model is left as it is.
    """
    layers = find_layers(model)
    evaluator = Evaluator(model, layers, sentences)
    bit_map = tuple(int(width) for width in np.random.default_rng(0).choice(WIDTHS, size=len(layers)))
    quantised = copy.deepcopy(model)
    for layer, width in zip(layers, bit_map, strict=True):
        evaluator.bank.write_weight(layer, width, quantised.get_parameter(layer.parameter).data)
    return float(np.abs(evaluator.log_odds(bit_map) - padded_log_odds(quantised, sentences)).max())
