"""The forward pass over a fixed set of sentences: written for this one job for BERT, `transformers`' own for others."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from objectives.layers import Layer
from objectives.scores import LogOdds

# Tokens a chunk: enough rows for the matrix products to run at full speed, few enough for a chunk's activations to
# stay in the cache between them. A GPU has no such cache to fill and wants few, large kernels.
_CHUNK_TOKENS = 1024
_GPU_CHUNK_TOKENS = 1 << 16
_FALLBACK_TOKENS = 2048


@dataclass(frozen=True)
class WeightSlot:
    """Where a layer's weight goes: ``out`` takes its rows ``rows``, or all of them where that is None."""

    out: Tensor
    rows: Tensor | None = None


class Forward(Protocol):
    """A network with exchangeable weights, over the sentences it was made with.

    Attributes:
        slots: where each searchable layer's weight is to be written, in the order of the layers.
        n_boundaries: how many times the pass can be cut; hidden states exist at boundaries 0..n_boundaries - 1, and a
            pass may start at any of them.
        dtype: of the matrix products.
        description: what it is, in words.
    """

    slots: Sequence[WeightSlot]
    n_boundaries: int
    dtype: torch.dtype
    description: str

    def first_boundary_above(self, layer_index: int) -> int:
        """Return the lowest boundary whose hidden states depend on a layer; ``n_boundaries`` where none does."""
        ...

    def run(self, start: int, states: Tensor | None, keep: dict[int, Tensor] | None) -> LogOdds:
        """Return the log-odds ``(n_sentences,)``.

        Args:
            start: the boundary to start from; -1 for the beginning.
            states: the hidden states at that boundary.
            keep: takes the hidden states of every boundary passed, where given.
        """
        ...


def make_forward(
    model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]], dtype: torch.dtype
) -> Forward:
    """Return the lean forward where it knows the architecture, else the one of ``transformers`` (FP32 only).

    Args:
        model: a two-class sequence classifier in FP32; left as it is.
        layers: its searchable layers.
        token_ids: each sentence's tokens, special ones included.
        dtype: of the matrix products, ``torch.float32`` or ``torch.bfloat16``.
    """
    if _is_plain_bert(model):
        return LeanBert(model, layers, token_ids, dtype)
    return TransformersForward(model, layers, token_ids)


def _is_plain_bert(model: nn.Module) -> bool:
    config = model.config
    return (
        type(model).__name__ == "BertForSequenceClassification"
        and config.hidden_act == "gelu"  # type: ignore[union-attr]
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not config.is_decoder  # type: ignore[union-attr]
    )


class TransformersForward:
    """The model's own forward, in batches of equal length so that nothing is padded."""

    n_boundaries = 0
    dtype = torch.float32
    description = "transformers' forward in FP32, for want of one of our own for this architecture"

    def __init__(self, model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]]) -> None:
        """Copy the model and sort the sentences into batches."""
        self._model = copy.deepcopy(model).eval()
        self.slots: Sequence[WeightSlot] = [
            WeightSlot(self._model.get_parameter(layer.parameter).detach()) for layer in layers
        ]
        self._n_sentences = len(token_ids)
        device = device_of(self._model)
        self._batches = [(at, tokens.to(device)) for at, tokens in equal_length_batches(token_ids, _FALLBACK_TOKENS)]

    def first_boundary_above(self, layer_index: int) -> int:
        """Return 0: there is none."""
        return 0

    def run(self, start: int, states: Tensor | None, keep: dict[int, Tensor] | None) -> LogOdds:
        """Return the log-odds; the pass always starts at the beginning."""
        log_odds = np.empty(self._n_sentences, dtype=np.float32)
        with torch.inference_mode():
            for indices, batch in self._batches:
                logits = self._model(input_ids=batch).logits
                log_odds[indices] = (logits[:, 1] - logits[:, 0]).cpu().numpy()
        return log_odds


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class _EncoderLayer:
    """Weights of one encoder layer; ``qkv``, ``(3 * hidden, hidden)``, is query, key and value one below the other."""

    qkv: Tensor
    qkv_bias: Tensor
    attention_output: Tensor
    attention_output_bias: Tensor
    attention_norm: _Norm
    intermediate: Tensor
    intermediate_bias: Tensor
    output: Tensor
    output_bias: Tensor
    output_norm: _Norm


@dataclass(frozen=True)
class _Run:
    """Sentences of one length within a chunk, one after the other from token ``start``."""

    start: int
    n_sentences: int
    length: int


@dataclass(frozen=True)
class _Chunk:
    """Tokens ``start..stop`` of all and sentences ``first..last`` of the sorted ones."""

    start: int
    stop: int
    first: int
    last: int
    runs: tuple[_Run, ...]


class LeanBert:
    """BERT for sequence classification over all sentences at once, as one ``(tokens, hidden)`` matrix without padding.

    Sentences are sorted by length, so that attention runs over many of one length together. Query, key and value are
    one product. The last layer computes only keys and values for all tokens: the classifier reads nothing but the first
    token of each sentence. It goes layer by layer over all chunks, so that each weight is read from memory once.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]], dtype: torch.dtype
    ) -> None:
        """Copy what is kept in full precision and lay out the sentences; weights are written to ``slots`` later."""
        config = model.config
        self._heads: int = config.num_attention_heads  # type: ignore[union-attr,assignment]
        self.dtype = dtype
        self._device = device_of(model)
        self.n_boundaries = int(config.num_hidden_layers)  # type: ignore[union-attr,arg-type]
        self.description = f"lean BERT forward in {'FP32' if dtype == torch.float32 else 'bf16'}"
        bert = model.get_submodule(str(model.base_model_prefix))
        words, n_positions = self._lay_out(token_ids)

        embeddings = bert.get_submodule("embeddings")
        hidden = embeddings.get_parameter("word_embeddings.weight").shape[1]
        self._words, self._position_rows, self._type_rows = (
            torch.empty(rows, hidden, device=self._device) for rows in (len(words), n_positions, 1)
        )
        self._embedding_norm = self._norm(embeddings, "LayerNorm", torch.float32)
        self._layers = [self._encoder_layer(module) for module in bert.get_submodule("encoder.layer").children()]
        self._pooler = self._empty(hidden, hidden)
        self._pooler_bias = self._copy(bert.get_parameter("pooler.dense.bias"))
        self._classifier = model.get_parameter("classifier.weight").detach().clone()
        self._classifier_bias = model.get_parameter("classifier.bias").detach().clone()

        slots = [
            WeightSlot(self._words, words),
            WeightSlot(self._position_rows, torch.arange(n_positions, device=self._device)),
            WeightSlot(
                self._type_rows, torch.arange(1, device=self._device)
            ),  # a single sentence is of type 0 throughout
        ]
        for layer in self._layers:
            slots += [WeightSlot(part) for part in layer.qkv.split(hidden)]
            slots += [WeightSlot(layer.attention_output), WeightSlot(layer.intermediate), WeightSlot(layer.output)]
        slots.append(WeightSlot(self._pooler))
        assert len(slots) == len(layers)
        self.slots: Sequence[WeightSlot] = slots

    def first_boundary_above(self, layer_index: int) -> int:
        """Return the number of the encoder layer after the one that holds the searchable layer."""
        return 0 if layer_index < 3 else (layer_index - 3) // 6 + 1

    def run(self, start: int, states: Tensor | None, keep: dict[int, Tensor] | None) -> LogOdds:
        """Return the log-odds; boundary ``i`` lies below encoder layer ``i``."""
        sorted_log_odds = self.sorted_log_odds(start, states, keep)
        log_odds = np.empty(len(self._order), dtype=np.float32)
        log_odds[self._order] = sorted_log_odds.cpu().numpy()
        return log_odds

    @torch.inference_mode()
    def sorted_log_odds(self, start: int, states: Tensor | None, keep: dict[int, Tensor] | None) -> Tensor:
        """Return the log-odds by rising length of the sentences, on the model's device, without waiting for it."""
        if states is None:
            start, x = 0, self._embed()
        else:
            x = states.clone() if keep is None else states
        for number in range(start, self.n_boundaries - 1):
            if keep is not None:
                keep[number] = x
                x = x.clone()
            self._apply(self._layers[number], x)
        if keep is not None:
            keep[self.n_boundaries - 1] = x
        first = self._apply_to_first_tokens(self._layers[-1], x)
        pooled = torch.tanh(F.linear(first, self._pooler, self._pooler_bias)).float()
        logits = F.linear(pooled, self._classifier, self._classifier_bias)
        return logits[:, 1] - logits[:, 0]

    def _lay_out(self, token_ids: Sequence[Sequence[int]]) -> tuple[Tensor, int]:
        """Sort sentences and tokens; return the words that occur, ``(n_words,)``, and how many positions do.

        Rows of the embeddings that do not occur are never read: to decode and hold them would be waste.
        """
        order: list[int] = []
        chunks: list[_Chunk] = []
        runs: list[_Run] = []
        start = first = used = 0

        chunk_tokens = _CHUNK_TOKENS if self._device.type == "cpu" else _GPU_CHUNK_TOKENS

        def close() -> None:
            nonlocal start, first, used, runs
            if runs:
                chunks.append(_Chunk(start, start + used, first, len(order), tuple(runs)))
                start, first, used, runs = start + used, len(order), 0, []

        for length, indices in _by_length(token_ids):
            left = list(indices)
            while left:
                fitting = (chunk_tokens - used) // length
                if fitting == 0 and runs:
                    close()
                    continue
                taken, left = left[: max(fitting, 1)], left[max(fitting, 1) :]
                runs.append(_Run(used, len(taken), length))
                used += len(taken) * length
                order += taken
        close()
        self._order = np.array(order)
        self._chunks = chunks
        words, word_index = np.unique([token for index in order for token in token_ids[index]], return_inverse=True)
        lengths = np.array([len(token_ids[index]) for index in order])
        first_tokens = np.cumsum(lengths) - lengths
        positions = np.arange(len(word_index)) - np.repeat(first_tokens, lengths)
        self._word_index, self._positions, self._first_tokens = (
            torch.tensor(indices, device=self._device) for indices in (word_index, positions, first_tokens)
        )
        return torch.tensor(words, device=self._device), int(lengths.max())

    def _empty(self, rows: int, columns: int) -> Tensor:
        return torch.empty(rows, columns, dtype=self.dtype, device=self._device)

    def _copy(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.dtype, copy=True)

    def _norm(self, module: nn.Module, name: str, dtype: torch.dtype) -> _Norm:
        norm = module.get_submodule(name)
        assert isinstance(norm, nn.LayerNorm)
        return _Norm(norm.weight.detach().to(dtype, copy=True), norm.bias.detach().to(dtype, copy=True), norm.eps)

    def _encoder_layer(self, module: nn.Module) -> _EncoderLayer:
        bias: list[Tensor] = [module.get_parameter(f"attention.self.{part}.bias") for part in ("query", "key", "value")]
        intermediate, hidden = module.get_parameter("intermediate.dense.weight").shape
        return _EncoderLayer(
            qkv=self._empty(3 * hidden, hidden),
            qkv_bias=self._copy(torch.cat(bias)),
            attention_output=self._empty(hidden, hidden),
            attention_output_bias=self._copy(module.get_parameter("attention.output.dense.bias")),
            attention_norm=self._norm(module, "attention.output.LayerNorm", self.dtype),
            intermediate=self._empty(intermediate, hidden),
            intermediate_bias=self._copy(module.get_parameter("intermediate.dense.bias")),
            output=self._empty(hidden, intermediate),
            output_bias=self._copy(module.get_parameter("output.dense.bias")),
            output_norm=self._norm(module, "output.LayerNorm", self.dtype),
        )

    def _embed(self) -> Tensor:
        x = self._words[self._word_index] + self._position_rows[self._positions] + self._type_rows
        return self._embedding_norm(x).to(self.dtype)

    def _apply(self, layer: _EncoderLayer, x: Tensor) -> None:
        """Replace the hidden states ``(tokens, hidden)`` by those above an encoder layer."""
        for chunk in self._chunks:
            rows = x[chunk.start : chunk.stop]
            rows.copy_(self._feed_forward(layer, rows, self._attend(layer, rows, chunk)))

    def _apply_to_first_tokens(self, layer: _EncoderLayer, x: Tensor) -> Tensor:
        """Return the hidden states of first tokens alone, ``(n_sentences, hidden)``, above an encoder layer."""
        hidden = x.shape[1]
        first = x[self._first_tokens]
        queries = F.linear(first, layer.qkv[:hidden], layer.qkv_bias[:hidden])
        attended = torch.empty_like(first)
        for chunk in self._chunks:
            keys_values = F.linear(x[chunk.start : chunk.stop], layer.qkv[hidden:], layer.qkv_bias[hidden:])
            sentence = chunk.first
            for run in chunk.runs:
                tokens = keys_values[run.start : run.start + run.n_sentences * run.length]
                key, value = tokens.view(run.n_sentences, run.length, 2, self._heads, -1).permute(2, 0, 3, 1, 4)
                asking = slice(sentence, sentence + run.n_sentences)
                query = queries[asking].view(run.n_sentences, 1, self._heads, -1).transpose(1, 2)
                attended[asking] = F.scaled_dot_product_attention(query, key, value).reshape(run.n_sentences, hidden)
                sentence += run.n_sentences
        return self._feed_forward(layer, first, attended)

    def _attend(self, layer: _EncoderLayer, rows: Tensor, chunk: _Chunk) -> Tensor:
        projected = F.linear(rows, layer.qkv, layer.qkv_bias)
        attended = torch.empty_like(rows)
        for run in chunk.runs:
            tokens = slice(run.start, run.start + run.n_sentences * run.length)
            shape = (run.n_sentences, run.length, 3, self._heads, -1)
            query, key, value = projected[tokens].view(shape).permute(2, 0, 3, 1, 4)
            heads = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
            attended[tokens].view(heads.shape).copy_(heads)
        return attended

    def _feed_forward(self, layer: _EncoderLayer, rows: Tensor, attended: Tensor) -> Tensor:
        mixed = F.linear(attended, layer.attention_output, layer.attention_output_bias)
        mixed = layer.attention_norm(mixed.add_(rows))
        widened = F.gelu(F.linear(mixed, layer.intermediate, layer.intermediate_bias))
        return layer.output_norm(F.linear(widened, layer.output, layer.output_bias).add_(mixed))


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's weights are."""
    return next(model.parameters()).device


def equal_length_batches(token_ids: Sequence[Sequence[int]], max_tokens: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield batches that need no padding: indices of sentences of one length, and their tokens ``(n, length)``.

    Args:
        token_ids: each sentence's tokens.
        max_tokens: in a batch; a longer sentence is a batch by itself.
    """
    for length, indices in _by_length(token_ids):
        step = max(1, max_tokens // length)
        for start in range(0, len(indices), step):
            batch = indices[start : start + step]
            yield batch, torch.tensor([token_ids[index] for index in batch])


def _by_length(token_ids: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Return (length, indices of the sentences of that length), by rising length."""
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(token_ids):
        by_length.setdefault(len(ids), []).append(index)
    return sorted(by_length.items())
