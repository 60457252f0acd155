"""Polish: a quantised model's full-precision parameters tuned after the search, without a bit more.

Codes stay as they are; so do codewords, as their gradients take those of every weight. Scales, zero points, biases,
LayerNorms and the classification head are tuned so that the model does what the FP32 model does on unlabelled training
sentences: its class probabilities (Hinton et al., 2015, arXiv:1503.02531) and its hidden states (as in TinyBERT, Jiao
et al., EMNLP Findings 2020). The FP32 model has been fitted to these very sentences and is surer of them than of any it
has not seen; so most are shown with a word or two exchanged, where it judges as it does elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from objectives.batching import device_of, equal_length_batches
from objectives.evaluation.evaluator import Evaluator
from objectives.layers import Layer, uniform
from objectives.quantization.bank import FP32_WIDTH
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import divergences

TokenIds = Sequence[Sequence[int]]

_HELD_OUT_SHARE = 0.1
_EXCHANGED_SHARE = 0.7  # of the sentences are shown with words exchanged
_BATCH_TOKENS = 512
_LEARNING_RATE = 1e-3
_WARM_UP_SHARE = 0.05
_HIDDEN_WEIGHT = 4.0
_WIDEST_SHIFTED = 4  # bits: zero points of wider codes are stored too coarsely to be worth tuning
_SAY_EVERY = 0.25


@dataclass(frozen=True)
class Polished:
    """What polishing came to.

    Attributes:
        model: the polished model where it does less damage on the held-out sentences, else the one that was given.
        damage_before: on the held-out sentences, nats a sentence, lower is better.
        damage_after: of the polished model on them, whether it was kept or not.
    """

    model: QuantizedModel
    damage_before: float
    damage_after: float

    @property
    def kept(self) -> bool:
        """Whether the polished model is better."""
        return self.damage_after < self.damage_before


@dataclass(frozen=True)
class TrainingSentences:
    """Unlabelled sentences to polish on.

    Attributes:
        token_ids: each sentence's tokens, special ones included; not those that a search is scored on.
        special_ids: tokens that mark a sentence's ends and are never exchanged.
    """

    token_ids: TokenIds
    special_ids: Collection[int]


def polish(
    quantized: QuantizedModel,
    fp32: nn.Module,
    sentences: TrainingSentences,
    epochs: int,
    seed: int = 0,
    report_progress: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Polished | None:
    """Tune what costs no bits; a tenth of the sentences is held out and decides whether the result is kept.

    Parameters are rounded to what is stored before that is decided. A seed reproduces the result exactly on the same
    machine and number of threads.

    Args:
        quantized: the model to polish; left as it is, and of the same size as the result.
        fp32: the ``transformers`` sequence classifier it was made from; left as it is.
        sentences: two of them at least.
        epochs: passes over the sentences.
        seed: of the held-out sentences, the order and the exchanges.
        report_progress: told now and then how far it is.
        should_stop: asked before each batch; once true, None is returned.

    Raises:
        ValueError: there are fewer than two sentences.
    """
    if len(sentences.token_ids) < 2:
        raise ValueError(f"polishing takes two sentences at least, got {len(sentences.token_ids)}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sentences.token_ids))
    n_held_out = max(1, round(_HELD_OUT_SHARE * len(order)))
    shuffled = [sentences.token_ids[index] for index in order]
    held_out, training = shuffled[:n_held_out], shuffled[n_held_out:]
    exchange = _Exchange.of(training, sentences.special_ids)
    held_out += [exchange(ids, rng) for ids in held_out]
    damage = _damage_on(held_out, fp32, quantized.layers)
    tuned = _tune(quantized, fp32, training, exchange, epochs, rng, report_progress, should_stop)
    if tuned is None:
        return None
    before, after = damage(quantized), damage(tuned)
    return Polished(tuned if after < before else quantized, before, after)


@dataclass(frozen=True)
class _Exchange:
    """Makes sentences that the FP32 model has not seen: words change places, or give way to other sentences' words."""

    pool: Sequence[int]
    special_ids: frozenset[int]

    @classmethod
    def of(cls, token_ids: TokenIds, special_ids: Collection[int]) -> _Exchange:
        special = frozenset(special_ids)
        return cls([token for ids in token_ids for token in ids if token not in special], special)

    def __call__(self, ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        changed = list(ids)
        places = [place for place, token in enumerate(changed) if token not in self.special_ids]
        if len(places) < 2:
            return changed
        for _ in range(rng.integers(1, 3)):
            one, other = rng.choice(places, size=2)
            if rng.random() < 0.5:
                changed[one], changed[other] = changed[other], changed[one]
            else:
                changed[one] = self.pool[int(rng.integers(len(self.pool)))]
        return changed


def _damage_on(token_ids: TokenIds, fp32: nn.Module, layers: Sequence[Layer]) -> Callable[[QuantizedModel], float]:
    own_weights = uniform(layers, FP32_WIDTH)
    expected = Evaluator(fp32, layers, token_ids).log_odds(own_weights)

    def damage(quantized: QuantizedModel) -> float:
        found = Evaluator(quantized.decoded(fp32), layers, token_ids).log_odds(own_weights)
        return float(divergences(found, expected).mean())

    return damage


class _Student(nn.Module):
    """The quantised model, its weights decoded and frozen, with what is tuned around them.

    A layer computes ``gain * (W x + bias + shift * sum(x))``: as if each row of W, and its bias, were scaled by its
    gain after its weights had been shifted. So codes are decoded once, and no gradient of a whole weight is needed.
    """

    def __init__(self, quantized: QuantizedModel, fp32: nn.Module) -> None:
        super().__init__()
        self.network = quantized.decoded(fp32).eval()
        self._quantized = quantized
        searchable = {layer.parameter for layer in quantized.layers}
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in searchable)
        self.log_gains = nn.ParameterList()
        self.shifts = nn.ParameterList()
        self._spreads: list[Tensor] = []
        for layer, (_, parameters) in zip(quantized.layers, quantized.entries, strict=True):
            shifted = parameters.shiftable and parameters.width <= _WIDEST_SHIFTED
            weight = self.network.get_parameter(layer.parameter)
            self.log_gains.append(nn.Parameter(weight.new_zeros(layer.rows)))
            self.shifts.append(nn.Parameter(weight.new_zeros(layer.rows), requires_grad=shifted))
            self._spreads.append(weight.std(dim=1, correction=0))  # the unit of its shift
        for index, layer in enumerate(quantized.layers):
            hook = self._linear if layer.kind == "linear" else self._embedding
            self.network.get_submodule(layer.name).register_forward_hook(hook(index))

    def tuned(self) -> QuantizedModel:
        """Return the quantised model with what has been tuned, rounded to what is stored."""
        with torch.no_grad():
            state = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
            entries = []
            for index, (layer, (codes, parameters)) in enumerate(
                zip(self._quantized.layers, self._quantized.entries, strict=True)
            ):
                gain, shift = self._gain(index), self._shift(index)
                bias = f"{layer.name}.bias"
                if bias in self._quantized.kept:
                    state[bias] *= gain
                entries.append((codes, parameters.adjusted(gain, shift)))
            kept = {name: state[name].float() for name in self._quantized.kept}
        return replace(self._quantized, entries=tuple(entries), kept=kept)

    def _gain(self, index: int) -> Tensor:
        gain: Tensor = self.log_gains[index].exp()
        return gain

    def _shift(self, index: int) -> Tensor:
        shift: Tensor = self.shifts[index] * self._spreads[index]
        return shift

    def _linear(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            if self.shifts[index].requires_grad:
                outputs = outputs + inputs[0].sum(dim=-1, keepdim=True) * self._shift(index)
            return outputs * self._gain(index)

        return hook

    def _embedding(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            rows = inputs[0]
            if not isinstance(rows, Tensor):  # positions that are asked for by their number: left as they are
                return outputs
            if self.shifts[index].requires_grad:
                outputs = outputs + self._shift(index)[rows][..., None]
            return outputs * self._gain(index)[rows][..., None]

        return hook


def _tune(
    quantized: QuantizedModel,
    fp32: nn.Module,
    training: TokenIds,
    exchange: _Exchange,
    epochs: int,
    rng: np.random.Generator,
    report_progress: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> QuantizedModel | None:
    student = _Student(quantized, fp32)
    device = device_of(fp32)
    tuned = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(tuned, lr=_LEARNING_RATE, betas=(0.9, 0.99))
    batches = list(equal_length_batches(training, _BATCH_TOKENS))
    steps, step = epochs * len(batches), 0
    for _ in range(epochs):
        for index in rng.permutation(len(batches)):
            if should_stop():
                return None
            chosen = [training[sentence] for sentence in batches[index][0]]
            shown = [exchange(ids, rng) if rng.random() < _EXCHANGED_SHARE else list(ids) for ids in chosen]
            tokens = torch.tensor(shown, device=device)
            loss = _distance(student.network, fp32, tokens)
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * _rate(step / steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % max(1, int(_SAY_EVERY * steps)) == 0:
                report_progress(f"polishing: {step}/{steps} batches")
    return student.tuned()


def _rate(done: float) -> float:
    """Return the share of the learning rate after a share of all steps: a short rise, then half a cosine to zero."""
    return min(1.0, done / _WARM_UP_SHARE + 0.01) * 0.5 * (1.0 + math.cos(math.pi * done))


def _distance(student: nn.Module, fp32: nn.Module, tokens: Tensor) -> Tensor:
    """Return how far a student is from the FP32 model on sentences ``(n, length)``: damage and hidden states."""
    with torch.no_grad():
        expected = fp32(input_ids=tokens, output_hidden_states=True)
    found = student(input_ids=tokens, output_hidden_states=True)
    damage = _divergences(found.logits, expected.logits).mean()
    # The embeddings' own output is left out: what is above it tells better what in it matters.
    apart = [
        F.mse_loss(hidden, wanted) / wanted.var()
        for hidden, wanted in zip(found.hidden_states[1:], expected.hidden_states[1:], strict=True)
    ]
    return damage + _HIDDEN_WEIGHT * torch.stack(apart).mean()


def _divergences(logits: Tensor, expected: Tensor) -> Tensor:
    """Return ``scores.divergences`` of two-class logits ``(n, 2)``, with gradients."""
    q, p = logits[:, 1] - logits[:, 0], expected[:, 1] - expected[:, 0]
    return F.softplus(q) - F.softplus(p) - torch.sigmoid(p) * (q - p)
