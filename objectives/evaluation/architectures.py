"""Where the encoders that ``PackedBert`` computes keep their modules, and what their heads do."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class Architecture:
    """The names of an encoder's modules; all share BERT's computation.

    Attributes:
        name: for the log.
        dense: the head's first product, of each sentence's first token, below the model.
        activation: what follows it.
        classifier: the head's last product, below the model.
        layers: the encoder layers, below the base model; the names after it are below one of these.
    """

    name: str
    dense: str
    activation: Callable[[Tensor], Tensor]
    classifier: str
    layers: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    intermediate: str = "intermediate.dense"
    output: str = "output.dense"
    output_norm: str = "output.LayerNorm"


def _like_roberta(name: str) -> Architecture:
    return Architecture(name, "classifier.dense", torch.tanh, "classifier.out_proj")


_BY_CLASS = {
    "BertForSequenceClassification": Architecture("BERT", "bert.pooler.dense", torch.tanh, "classifier"),
    "RobertaForSequenceClassification": _like_roberta("RoBERTa"),
    "XLMRobertaForSequenceClassification": _like_roberta("XLM-R"),
    "CamembertForSequenceClassification": _like_roberta("CamemBERT"),
    "ElectraForSequenceClassification": Architecture("ELECTRA", "classifier.dense", F.gelu, "classifier.out_proj"),
    "DistilBertForSequenceClassification": Architecture(
        "DistilBERT",
        "pre_classifier",
        torch.relu,
        "classifier",
        layers="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        intermediate="ffn.lin1",
        output="ffn.lin2",
        output_norm="output_layer_norm",
    ),
}


def architecture_of(model: nn.Module, activations: Collection[str] = ("gelu",)) -> Architecture | None:
    """Return the architecture of a ``transformers`` sequence classifier; None if only ``transformers`` computes it.

    ``activations`` are those that the caller computes between encoder layers' products, by their names in configs.
    """
    config = model.config
    plain = (
        getattr(config, "activation", None) or getattr(config, "hidden_act", None)  # DistilBERT's name, and all others'
    ) in activations and getattr(config, "position_embedding_type", "absolute") == "absolute"
    return _BY_CLASS.get(type(model).__name__) if plain and not getattr(config, "is_decoder", False) else None
