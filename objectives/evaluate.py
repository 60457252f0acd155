"""The evaluator: one log-odds a sentence for any bit map."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from objectives.bank import FP32_WIDTH, WeightBank
from objectives.layers import Bits, Layer, uniform
from objectives.scores import LogOdds

# Enough rows for the matrix products to run at full speed, few enough for the activations to stay in the cache.
_BATCH_TOKENS = 2048


class Evaluator:
    """Scores bit maps of one model on one set of sentences.

    It owns a working copy of the model whose weights are those of the map evaluated last, and changes only the layers
    whose width differs from it. Results do not depend on what was evaluated before.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]]) -> None:
        """Copy the model and sort the sentences into batches of equal length, so that nothing is padded.

        Args:
            model: a two-class ``transformers`` sequence classifier in FP32; left as it is.
            layers: its searchable layers.
            token_ids: each sentence's tokens, special ones included.
        """
        self.layers = tuple(layers)
        self.n_sentences = len(token_ids)
        self.bank = WeightBank(layers, {layer.name: model.get_parameter(layer.parameter) for layer in layers})
        self._model = copy.deepcopy(model).eval()
        self._weights = [self._model.get_parameter(layer.parameter) for layer in layers]
        self._loaded: list[int] = [FP32_WIDTH] * len(self.layers)
        self._batches = _equal_length_batches(token_ids)

    def log_odds(self, bits: Bits) -> LogOdds:
        """Return the log-odds ``(n_sentences,)`` of a map, in the order of the sentences.

        Args:
            bits: a width for each layer, 2..8, or ``FP32_WIDTH`` for a layer that keeps its FP32 weights.
        """
        self._load(bits)
        log_odds = np.empty(self.n_sentences, dtype=np.float32)
        with torch.inference_mode():
            for indices, batch in self._batches:
                logits = self._model(input_ids=batch).logits
                log_odds[indices] = (logits[:, 1] - logits[:, 0]).numpy()
        return log_odds

    def fp32_log_odds(self) -> LogOdds:
        """Return the log-odds ``(n_sentences,)`` of the model itself."""
        return self.log_odds(uniform(self.layers, FP32_WIDTH))

    def _load(self, bits: Bits) -> None:
        for index, (layer, width) in enumerate(zip(self.layers, bits, strict=True)):
            if self._loaded[index] != width:
                self.bank.write_weight(layer, width, out=self._weights[index])
                self._loaded[index] = width


def _equal_length_batches(token_ids: Sequence[Sequence[int]]) -> list[tuple[list[int], Tensor]]:
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(token_ids):
        by_length.setdefault(len(ids), []).append(index)
    batches = []
    for length, indices in sorted(by_length.items()):
        step = max(1, _BATCH_TOKENS // length)
        for start in range(0, len(indices), step):
            chunk = indices[start : start + step]
            batches.append((chunk, torch.tensor([token_ids[index] for index in chunk])))
    return batches
