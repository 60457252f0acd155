"""Random models and sentences built in memory, for tests that need a network and no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from objectives.layers import Layer
from objectives.loading.layer_discovery import find_layers

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 50,
    "initializer_range": 0.3,
}


def random_bert(seed: int = 0, **changes: Any) -> BertForSequenceClassification:
    """Return a small random BERT in eval mode; ``changes`` go to its config."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForSequenceClassification(BertConfig(**(SMALL | changes)))
    model.eval()
    return model


def random_roberta(seed: int = 0) -> RobertaForSequenceClassification:
    """Return a small random RoBERTa in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RobertaForSequenceClassification(RobertaConfig(**SMALL))
    model.eval()
    return model


def random_sentences(seed: int, n: int = 60) -> list[list[int]]:
    """Return the token ids of so many sentences for such a model."""
    rng = np.random.default_rng(seed)
    return [[int(token) for token in rng.integers(5, 50, size=rng.integers(3, 12))] for _ in range(n)]


def random_types(sentences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return token types of sentences taken as pairs: 1 from a random place on."""
    rng = np.random.default_rng(len(sentences))
    firsts = [int(rng.integers(1, len(tokens) + 1)) for tokens in sentences]
    return [[0] * first + [1] * (len(tokens) - first) for first, tokens in zip(firsts, sentences, strict=True)]


def bert_base_shapes() -> BertForSequenceClassification:
    """Return bert-base-uncased's own shapes without any weights."""
    with torch.device("meta"):
        return BertForSequenceClassification(BertConfig())


def bert_base_layers() -> tuple[Layer, ...]:
    """Return the 76 layers of bert-base-uncased."""
    return find_layers(bert_base_shapes())
