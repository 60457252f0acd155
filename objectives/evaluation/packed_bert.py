"""BERT's forward pass over fixed sentences with exchangeable weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from objectives.batching import by_length, device_of
from objectives.evaluation.attention import Attention, make_attention
from objectives.evaluation.cuda_graphs import Step, kernels_on, record_steps
from objectives.evaluation.forward import States, WeightSlot
from objectives.evaluation.linear import Product, make_product
from objectives.heads import head_of
from objectives.layers import Layer
from objectives.scores import LogOdds

# Tokens in a chunk: enough rows for matrix products at full speed, few enough for activations to stay in the cache. A
# GPU is fastest with few, large kernels.
_CHUNK_TOKENS = 2048
_GPU_CHUNK_TOKENS = 1 << 16


def is_plain_bert(model: nn.Module) -> bool:
    """Return whether :class:`PackedBert` supports a model."""
    config = model.config
    return (
        type(model).__name__ == "BertForSequenceClassification"
        and config.hidden_act == "gelu"  # type: ignore[union-attr]
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not config.is_decoder  # type: ignore[union-attr]
    )


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    epsilon: float
    dtype: torch.dtype
    kernels: ModuleType | None

    def of_sum(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the LayerNorm of ``x + y``, both ``(n, hidden)``; x may be overwritten."""
        if self.kernels is None:
            return self._of(x.add_(y))
        normed: Tensor = self.kernels.add_norm(x, y, self.weight, self.bias, self.epsilon, self.dtype)
        return normed

    def of_product(self, product: Product, x: Tensor, residual: Tensor) -> Tensor:
        """Return the LayerNorm of the product of x plus a residual, ``(n, hidden)``."""
        return self._of(product.plus(x, residual)) if self.kernels is None else self.of_sum(product(x), residual)

    def _of(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon).to(self.dtype)


@dataclass(frozen=True)
class _EncoderLayer:
    """One encoder layer; ``projections`` are query, key and value in one product, or the query in a separate one."""

    projections: tuple[Product, ...]
    attention_output: Product
    attention_norm: _Norm
    intermediate: Product
    output: Product
    output_norm: _Norm

    def feed_forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the hidden states above the layer, ``(n, hidden)``, from those below it, x."""
        mixed = self.attention_norm.of_product(self.attention_output, attended, x)
        return self.output_norm.of_product(self.output, self.intermediate.gelu(mixed), mixed)


@dataclass(frozen=True)
class _Chunk:
    """Some of the sentences by ascending length, with their tokens in one sequence.

    Attributes:
        words: index of each token among the words that occur, ``(tokens,)``.
        positions: position of each token in its sentence, ``(tokens,)``.
        first_tokens: index of each sentence's first token, ``(n_sentences,)``.
        attention: attention over these sentences.
    """

    words: Tensor
    positions: Tensor
    first_tokens: Tensor
    attention: Attention


class PackedBert:
    """BERT for sequence classification over all sentences at once, as ``(tokens, hidden)`` matrices without padding.

    Sentences are sorted by length, so that attention runs over many of one length together. Query, key and value are
    one product. The last layer computes only keys and values for all tokens, because the classifier reads only the
    first token of each sentence. Each layer runs over all chunks, so that its weights are read from memory once. On a
    GPU the embeddings, each layer and the head are one graph each.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]], dtype: torch.dtype
    ) -> None:
        """Copy the tensors that are not quantised and lay out the sentences; weights are written to ``slots`` later."""
        config = model.config
        self._heads: int = config.num_attention_heads  # type: ignore[union-attr,assignment]
        self.dtype = dtype
        self._device = device_of(model)
        self.n_boundaries = int(config.num_hidden_layers)  # type: ignore[union-attr,arg-type]
        self.description = f"lean BERT forward in {'FP32' if dtype == torch.float32 else 'bf16'}"
        bert = model.get_submodule(str(model.base_model_prefix))
        embeddings = bert.get_submodule("embeddings")
        self._hidden = embeddings.get_parameter("word_embeddings.weight").shape[1]
        words, n_positions = self._lay_out(token_ids)

        self._words, self._position_rows, self._type_rows = (
            torch.empty(rows, self._hidden, device=self._device) for rows in (len(words), n_positions, 1)
        )
        self._embedding_norm = self._norm(embeddings, "LayerNorm", torch.float32)
        encoder = list(bert.get_submodule("encoder.layer").children())
        self._layers = [self._encoder_layer(module, separate_query=module is encoder[-1]) for module in encoder]
        self._pooler = self._product(self._hidden, bert.get_parameter("pooler.dense.bias"))
        self._outputs = head_of(model).outputs
        self._classifier = model.get_parameter("classifier.weight").detach().clone()
        self._classifier_bias = model.get_parameter("classifier.bias").detach().clone()

        slots = [
            WeightSlot(self._words, words),
            WeightSlot(self._position_rows, torch.arange(n_positions, device=self._device)),
            # Tokens of a single sentence all have type 0.
            WeightSlot(self._type_rows, torch.arange(1, device=self._device)),
        ]
        self._products: list[Product | None] = [None] * len(slots)  # the product of each slot's weight
        for encoder_layer in self._layers:
            for product in encoder_layer.projections:
                parts = product.weight.split(self._hidden)
                slots += map(WeightSlot, parts)
                self._products += [product] * len(parts)
            others = (encoder_layer.attention_output, encoder_layer.intermediate, encoder_layer.output)
            slots += [WeightSlot(product.weight) for product in others]
            self._products += others
        slots.append(WeightSlot(self._pooler.weight))
        self._products.append(self._pooler)
        assert len(slots) == len(layers)
        self.slots: Sequence[WeightSlot] = slots
        self._recorded = record_steps(self._steps()) if self._device.type == "cuda" else None

    def first_boundary_above(self, layer_index: int) -> int:
        """Return the index of the encoder layer after the one that holds the searchable layer."""
        return 0 if layer_index < 3 else (layer_index - 3) // 6 + 1

    def refresh(self, layer_indices: Sequence[int]) -> None:
        """Refresh the products of these layers, once each."""
        for product in dict.fromkeys(self._products[index] for index in layer_indices):
            if product is not None:
                product.refresh()

    def run(self, start: int, states: States | None, keep: dict[int, States] | None) -> LogOdds:
        """Return the outputs; boundary ``i`` lies below encoder layer ``i``."""
        sorted_log_odds = self.sorted_log_odds(start, states, keep)
        log_odds = np.empty(tuple(sorted_log_odds.shape), dtype=np.float32)
        log_odds[self._order] = sorted_log_odds.cpu().numpy()
        return log_odds

    @torch.inference_mode()
    def sorted_log_odds(self, start: int, states: States | None, keep: dict[int, States] | None) -> Tensor:
        """Return the log-odds by ascending length of the sentences, on the model's device, without waiting for it.

        On a GPU the next call overwrites them.
        """
        embed, *above, head = self._recorded or self._steps()
        if states is None:
            start, states = 0, embed(())
        for number in range(start, self.n_boundaries):
            if keep is not None:
                keep[number] = tuple(part.clone() for part in states) if self._device.type == "cuda" else states
            states = above[number](states)
        (log_odds,) = head(states)
        return log_odds

    def _steps(self) -> list[Step]:
        """Return the steps in order: embeddings, each encoder layer, head.

        They are not kept: they refer to this object, and a reference cycle would delay the release of its memory.
        """
        return [self._embed, *(partial(self._above, layer) for layer in self._layers), self._head]

    def _lay_out(self, token_ids: Sequence[Sequence[int]]) -> tuple[Tensor, int]:
        """Sort sentences and tokens; return the words that occur, ``(n_words,)``, and the number of positions.

        Only these rows of the embeddings are decoded and held.
        """
        order = [index for _, indices in by_length(token_ids) for index in indices]
        words, word_index = np.unique([token for index in order for token in token_ids[index]], return_inverse=True)
        self._order = np.array(order)
        self._chunks: list[_Chunk] = []
        chunk_tokens = _CHUNK_TOKENS if self._device.type == "cpu" else _GPU_CHUNK_TOKENS
        start = 0
        for lengths in _split([len(token_ids[index]) for index in order], chunk_tokens):
            stop = start + sum(lengths)
            first_tokens = np.cumsum(lengths) - lengths
            chunk = _Chunk(
                words=torch.tensor(word_index[start:stop], device=self._device),
                positions=torch.tensor(np.arange(stop - start) - np.repeat(first_tokens, lengths), device=self._device),
                first_tokens=torch.tensor(first_tokens, device=self._device),
                attention=make_attention(lengths, self._heads, self._hidden // self._heads, self._device, self.dtype),
            )
            self._chunks.append(chunk)
            start = stop
        return torch.tensor(words, device=self._device), max(map(len, token_ids))

    def _norm(self, module: nn.Module, name: str, dtype: torch.dtype) -> _Norm:
        norm = module.get_submodule(name)
        assert isinstance(norm, nn.LayerNorm)
        weight, bias = (part.detach().to(dtype, copy=True) for part in (norm.weight, norm.bias))
        return _Norm(weight, bias, norm.eps, self.dtype, kernels_on(self._device))

    def _encoder_layer(self, module: nn.Module, separate_query: bool) -> _EncoderLayer:
        query, key, value = (module.get_parameter(f"attention.self.{part}.bias") for part in ("query", "key", "value"))
        biases = [query, torch.cat([key, value])] if separate_query else [torch.cat([query, key, value])]
        wide = module.get_parameter("intermediate.dense.bias")
        return _EncoderLayer(
            projections=tuple(self._product(self._hidden, bias) for bias in biases),
            attention_output=self._product(self._hidden, module.get_parameter("attention.output.dense.bias")),
            attention_norm=self._norm(module, "attention.output.LayerNorm", self.dtype),
            intermediate=self._product(self._hidden, wide),
            output=self._product(len(wide), module.get_parameter("output.dense.bias")),
            output_norm=self._norm(module, "output.LayerNorm", self.dtype),
        )

    def _product(self, columns: int, bias: Tensor) -> Product:
        return make_product(columns, bias.detach().to(self.dtype, copy=True))

    def _embed(self, _: States) -> States:
        positions = self._position_rows + self._type_rows
        return tuple(
            self._embedding_norm.of_sum(self._words[chunk.words], positions[chunk.positions]) for chunk in self._chunks
        )

    def _above(self, layer: _EncoderLayer, states: States) -> States:
        """Return the hidden states above an encoder layer from those below it; above the last, of first tokens only."""
        above = _above_last if layer is self._layers[-1] else _above_all
        return tuple(above(layer, x, chunk) for x, chunk in zip(states, self._chunks, strict=True))

    def _head(self, states: States) -> States:
        """Return the outputs ``(n_sentences, *head.shape)`` from the hidden states above the last layer."""
        pooled = torch.tanh(self._pooler(torch.cat(states))).float()
        logits = F.linear(pooled, self._classifier, self._classifier_bias)
        return (self._outputs(logits),)


def _above_all(layer: _EncoderLayer, x: Tensor, chunk: _Chunk) -> Tensor:
    """Return the hidden states ``(tokens, hidden)`` above an encoder layer."""
    (projection,) = layer.projections
    return layer.feed_forward(x, chunk.attention(projection(x)))


def _above_last(layer: _EncoderLayer, x: Tensor, chunk: _Chunk) -> Tensor:
    """Return the hidden states of first tokens, ``(n_sentences, hidden)``, above the last encoder layer."""
    query, key_value = layer.projections
    first = x[chunk.first_tokens]
    return layer.feed_forward(first, chunk.attention.of_first_tokens(query(first), key_value(x)))


def _split(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split ascending lengths into chunks of at most ``max_tokens`` tokens, and twice as many if they were padded.

    A longer sentence is a chunk by itself.
    """
    chunks: list[list[int]] = []
    used = max_tokens
    for length in lengths:
        if used + length > max_tokens or (len(chunks[-1]) + 1) * length > 2 * max_tokens:
            chunks.append([])
            used = 0
        chunks[-1].append(length)
        used += length
    return chunks
