"""The forward pass of BERT and its kin over fixed sentences with exchangeable weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from objectives.batching import device_of
from objectives.evaluation.architectures import Architecture
from objectives.evaluation.attention import make_attention
from objectives.evaluation.cuda_graphs import Step, record_steps
from objectives.evaluation.forward import Logits, States, WeightSlot
from objectives.evaluation.layout import Chunk, lay_out
from objectives.evaluation.linear import Product
from objectives.evaluation.parts import Norm, Parts
from objectives.layers import Layer


@dataclass(frozen=True)
class _EncoderLayer:
    """One encoder layer; ``projections`` are query, key and value in one product, or the query in a separate one."""

    projections: tuple[Product, ...]
    attention_output: Product
    attention_norm: Norm
    intermediate: Product
    output: Product
    output_norm: Norm

    def feed_forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the hidden states above the layer, ``(n, hidden)``, from those below it, x."""
        mixed = self.attention_norm.of_product(self.attention_output, attended, x)
        return self.output_norm.of_product(self.output, self.intermediate.gelu(mixed), mixed)


class PackedBert:
    """An encoder with a head over all sentences at once, as ``(tokens, hidden)`` matrices without padding.

    Sentences are sorted by length, so that attention runs over many of one length together. Query, key and value are
    one product. The last layer computes only keys and values for all tokens, because the head reads only the first
    token of each sentence. Each layer runs over all chunks, so that its weights are read from memory once. On a GPU the
    embeddings, each layer and the head are one graph each.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: Architecture,
        layers: Sequence[Layer],
        token_ids: Sequence[Sequence[int]],
        token_types: Sequence[Sequence[int]] | None,
        dtype: torch.dtype,
    ) -> None:
        """Copy the tensors that are not quantised and lay out the sentences; weights are written to ``slots`` later.

        Args:
            model: of this architecture.
            architecture: see ``architecture_of``.
            layers: its searchable layers.
            token_ids: each sentence's tokens.
            token_types: each token's type; None for 0 throughout. Not read if the model has no token types.
            dtype: of the matrix products.
        """
        self.dtype = dtype
        self.description = f"lean {architecture.name} forward in {'FP32' if dtype == torch.float32 else 'bf16'}"
        self._device = device_of(model)
        parts = Parts(model, dtype)
        base = str(model.base_model_prefix)
        embeddings, encoder = f"{base}.embeddings", f"{base}.{architecture.layers}"
        self.n_boundaries = len(list(model.get_submodule(encoder).children()))
        hidden = model.get_parameter(f"{encoder}.0.{architecture.query}.weight").shape[1]
        heads = int(model.config.num_attention_heads)  # type: ignore[union-attr,arg-type]

        has_types = hasattr(model.get_submodule(embeddings), "token_type_embeddings")
        position_embeddings = model.get_submodule(f"{embeddings}.position_embeddings")
        layout = lay_out(
            token_ids,
            token_types if has_types else None,
            position_embeddings.padding_idx,  # type: ignore[arg-type]
            self._device,
            lambda lengths: make_attention(lengths, heads, hidden // heads, self._device, dtype),
        )
        self._order, self._chunks = layout.order, layout.chunks

        self._words = parts.embedding(f"{embeddings}.word_embeddings", layout.words)
        self._position_rows = parts.embedding(f"{embeddings}.position_embeddings", layout.positions)
        self._type_rows = (
            parts.embedding(f"{embeddings}.token_type_embeddings", layout.types)
            if has_types
            else torch.zeros_like(self._position_rows[:1])
        )
        self._embedding_norm = parts.norm(f"{embeddings}.LayerNorm", torch.float32)
        # ELECTRA's, if its embeddings are narrower than its layers.
        projects = hasattr(model.get_submodule(base), "embeddings_project")
        self._projection = parts.product(0, f"{base}.embeddings_project") if projects else None
        self._layers = [
            self._encoder_layer(parts, architecture, f"{encoder}.{number}", number + 1)
            for number in range(self.n_boundaries)
        ]
        self._dense = (
            parts.product(self.n_boundaries, architecture.dense)
            if architecture.dense in {layer.name for layer in layers}
            else parts.fixed_product(architecture.dense)
        )
        self._activation = architecture.activation
        self._classifier = parts.fixed_product(architecture.classifier)

        assert len(parts.weights) == len(layers)
        self._weights = [parts.weights[layer.name] for layer in layers]
        self.slots: Sequence[WeightSlot] = [weight.slot for weight in self._weights]
        self._recorded = record_steps(self._steps()) if self._device.type == "cuda" else None

    def first_boundary_above(self, layer_index: int) -> int:
        """Return the index of the encoder layer after the one that holds the searchable layer."""
        return self._weights[layer_index].boundary

    def refresh(self, layer_indices: Sequence[int]) -> None:
        """Refresh the products of these layers, once each."""
        for product in dict.fromkeys(self._weights[index].product for index in layer_indices):
            if product is not None:
                product.refresh()

    def run(self, start: int, states: States | None, keep: dict[int, States] | None) -> Logits:
        """Return the logits; boundary ``i`` lies below encoder layer ``i``."""
        sorted_logits = self.sorted_logits(start, states, keep).cpu().numpy()
        logits = np.empty_like(sorted_logits)
        logits[self._order] = sorted_logits
        return logits

    @torch.inference_mode()
    def sorted_logits(self, start: int, states: States | None, keep: dict[int, States] | None) -> Tensor:
        """Return the logits by ascending length of the sentences, on the model's device, without waiting for it.

        On a GPU the next call overwrites them.
        """
        embed, *above, head = self._recorded or self._steps()
        if states is None:
            start, states = 0, embed(())
        for number in range(start, self.n_boundaries):
            if keep is not None:
                keep[number] = tuple(part.clone() for part in states) if self._device.type == "cuda" else states
            states = above[number](states)
        (logits,) = head(states)
        return logits

    def _steps(self) -> list[Step]:
        """Return the steps in order: embeddings, each encoder layer, head.

        They are not kept: they refer to this object, and a reference cycle would delay the release of its memory.
        """
        return [self._embed, *(partial(self._above, layer) for layer in self._layers), self._head]

    def _encoder_layer(self, parts: Parts, architecture: Architecture, name: str, above: int) -> _EncoderLayer:
        """Return the encoder layer of this name, below boundary ``above``; in the last, the query is separate."""
        query, key, value, attention_output, intermediate, output = (
            f"{name}.{part}"
            for part in (
                *(architecture.query, architecture.key, architecture.value),
                *(architecture.attention_output, architecture.intermediate, architecture.output),
            )
        )
        together = ((query,), (key, value)) if above == self.n_boundaries else ((query, key, value),)
        return _EncoderLayer(
            projections=tuple(parts.product(above, *names) for names in together),
            attention_output=parts.product(above, attention_output),
            attention_norm=parts.norm(f"{name}.{architecture.attention_norm}", self.dtype),
            intermediate=parts.product(above, intermediate),
            output=parts.product(above, output),
            output_norm=parts.norm(f"{name}.{architecture.output_norm}", self.dtype),
        )

    def _embed(self, _: States) -> States:
        places = (self._type_rows[:, None] + self._position_rows).flatten(0, 1)
        embedded = (
            self._embedding_norm.of_sum(self._words[chunk.words], places[chunk.places]) for chunk in self._chunks
        )
        return tuple(embedded) if self._projection is None else tuple(map(self._projection, embedded))

    def _above(self, layer: _EncoderLayer, states: States) -> States:
        """Return the hidden states above an encoder layer from those below it; above the last, of first tokens only."""
        above = _above_last if layer is self._layers[-1] else _above_all
        return tuple(above(layer, x, chunk) for x, chunk in zip(states, self._chunks, strict=True))

    def _head(self, states: States) -> States:
        """Return the logits ``(n_sentences, n_logits)`` from the hidden states above the last layer."""
        first = torch.cat(states).to(self._dense.weight.dtype)
        return (self._classifier(self._activation(self._dense(first)).float()),)


def _above_all(layer: _EncoderLayer, x: Tensor, chunk: Chunk) -> Tensor:
    """Return the hidden states ``(tokens, hidden)`` above an encoder layer."""
    (projection,) = layer.projections
    return layer.feed_forward(x, chunk.attention(projection(x)))


def _above_last(layer: _EncoderLayer, x: Tensor, chunk: Chunk) -> Tensor:
    """Return the hidden states of first tokens, ``(n_sentences, hidden)``, above the last encoder layer."""
    query, key_value = layer.projections
    first = x[chunk.first_tokens]
    return layer.feed_forward(first, chunk.attention.of_first_tokens(query(first), key_value(x)))
