"""Tiny random models of many architectures, and the gradients of single sentences by autograd, the slow way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from objectives.layers import WIDTHS, Layer
from objectives.loading.layer_discovery import find_layers
from objectives.quantization.bank import FP32_WIDTH, WeightBank
from tests.objectives.random_models import SMALL

_DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 24}
_TOKENS = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
CHANGES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "big_bird": {"attention_type": "original_full"},
    "convbert": {"embedding_size": 16},
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA | {"position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "electra": {"embedding_size": 8},
    "eurobert": _TOKENS,
    "esm": {"pad_token_id": 1, "mask_token_id": 2},
    "flaubert": {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "n_words": 50, "pad_index": 2},
    "funnel": {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24, "block_sizes": [1, 1], "num_decoder_layers": 1},
    "mobilebert": {"embedding_size": 8, "intra_bottleneck_size": 8, "true_hidden_size": 8},
    "modernbert": _TOKENS,
    "longformer": {"attention_window": 4},
    "nystromformer": {"segment_means_seq_len": 8, "num_landmarks": 2},
    "rembert": {"input_embedding_size": 8, "output_embedding_size": 8},
    "roformer": {"embedding_size": 8, "max_position_embeddings": 32},
    "squeezebert": {"embedding_size": 16},
    "xlm": {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "n_words": 50, "pad_index": 2},
}
"""What the configuration of a tiny model takes beside ``SMALL``, by its type."""


def tiny_model(model_type: str, **changes: Any) -> PreTrainedModel:
    """Return a small random classifier of an architecture in eval mode, its weights spread widely.

    It has two classes, unless ``changes`` to its config say otherwise.
    """
    settings = SMALL | {"num_labels": 2} | CHANGES.get(model_type, {}) | changes
    if "block_sizes" in settings:  # Funnel counts its layers so
        del settings["num_hidden_layers"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **settings)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.eval()
    return model


def single_shifts(
    model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]], bank: WeightBank
) -> Tensor:
    """Return what ``first_order_shifts`` does, from the gradient of each weight on each sentence alone."""
    model.requires_grad_(True)  # also what an architecture keeps constant
    shifts = torch.zeros(len(layers), len(WIDTHS), len(token_ids))
    weights = [model.get_parameter(layer.parameter) for layer in layers]
    for sentence, ids in enumerate(token_ids):
        logits = model(input_ids=torch.tensor([list(ids)])).logits[0]
        gradients = torch.autograd.grad(logits[1] - logits[0], weights, allow_unused=True)
        for index, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
            if gradient is None:
                continue
            exact, changed = torch.empty(layer.rows, layer.columns), torch.empty(layer.rows, layer.columns)
            bank.write_weight(layer, FP32_WIDTH, exact)
            for column, width in enumerate(WIDTHS):
                bank.write_weight(layer, width, changed)
                shifts[index, column, sentence] = ((changed - exact) * gradient).sum()
    return shifts


def share_searched(model_type: str) -> float:
    """Return the share of searched weights in an architecture of its default, usual size; nothing is allocated."""
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, num_labels=2))
    n_parameters: int = sum(weight.numel() for weight in model.parameters())
    return sum(layer.elements for layer in find_layers(model)) / n_parameters
