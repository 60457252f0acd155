"""Polish a quantised model after the search: distil the FP32 model into its parameters, at the same size.

Scales, zero points, biases, LayerNorms and the classification head are tuned on unlabelled training sentences. Codes
and codewords stay fixed, because their gradients need those of every weight.

    loss = damage + 4 * mean over blocks of MSE(h, h_fp32) / var(h_fp32)

The damage (mean KL divergence from FP32) follows Hinton et al. (2015, arXiv:1503.02531), and the hidden states h follow
TinyBERT (Jiao et al., EMNLP Findings 2020). The FP32 model was fitted to these sentences and is too sure of them. So
most sentences are augmented: one or two words change, which makes its predictions like those on unseen sentences.
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
from objectives.heads import TWO_CLASSES, Head
from objectives.quantization.quantized_model import QuantizedModel

TokenIds = Sequence[Sequence[int]]

_HELD_OUT_SHARE = 0.1
_AUGMENTED_SHARE = 0.7
_BATCH_TOKENS = 512
_LEARNING_RATE = 1e-3
_WARM_UP_SHARE = 0.05
_HIDDEN_WEIGHT = 4.0
_WIDEST_SHIFTED = 4  # bits; the stored zero points of wider codes are too coarse to tune
_REPORT_EVERY = 0.25  # of all steps


@dataclass(frozen=True)
class Polished:
    """The result of polishing.

    Attributes:
        model: the polished model if it does less damage on the held-out sentences, else the original model.
        damage_before: damage of the original model on these sentences, nats a sentence, lower is better.
        damage_after: damage of the polished model on these sentences, kept or not.
    """

    model: QuantizedModel
    damage_before: float
    damage_after: float

    @property
    def kept(self) -> bool:
        """Whether the polished model does less damage."""
        return self.damage_after < self.damage_before


@dataclass(frozen=True)
class TrainingSentences:
    """Unlabelled sentences to polish on.

    Attributes:
        token_ids: each sentence's tokens with special tokens; the search scores no map on these sentences.
        special_ids: the special tokens, which augmentation never changes.
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
    head: Head = TWO_CLASSES,
) -> Polished | None:
    """Polish a quantised model, and keep the result if it does less damage on a held-out tenth of the sentences.

    Parameters are rounded to storage precision before this comparison. A seed reproduces the result exactly on the same
    machine with the same number of threads. Neither model is changed.

    Args:
        quantized: the model to polish; the result has the same size.
        fp32: the ``transformers`` sequence classifier that it was quantised from.
        sentences: at least two sentences.
        epochs: passes over the sentences.
        seed: seed of the held-out sentences, the order and the augmentation.
        report_progress: called with a line after each quarter of the batches.
        should_stop: called before each batch; if true, polishing stops and returns None.
        head: of the model; of numbers, with the variances of the search.

    Raises:
        ValueError: there are fewer than two sentences.
    """
    if len(sentences.token_ids) < 2:
        raise ValueError(f"polishing needs at least two sentences, got {len(sentences.token_ids)}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sentences.token_ids))
    n_held_out = max(1, round(_HELD_OUT_SHARE * len(order)))
    shuffled = [sentences.token_ids[index] for index in order]
    held_out, training = shuffled[:n_held_out], shuffled[n_held_out:]
    augmentation = _Augmentation.of(training, sentences.special_ids)
    held_out += [augmentation(ids, rng) for ids in held_out]
    fp32_log_odds = Evaluator(fp32, quantized.layers, held_out).fp32_log_odds()

    def damage(model: QuantizedModel) -> float:
        log_odds = Evaluator(model.decoded(fp32), model.layers, held_out).fp32_log_odds()
        return float(head.divergences(log_odds, fp32_log_odds).mean())

    tuned = _tune(quantized, fp32, head, training, augmentation, epochs, rng, report_progress, should_stop)
    if tuned is None:
        return None
    before, after = damage(quantized), damage(tuned)
    return Polished(tuned if after < before else quantized, before, after)


@dataclass(frozen=True)
class _Augmentation:
    """Makes new sentences from old ones: swaps two words, or replaces a word by one of another sentence, once or twice.

    Calling it returns the changed token ids, of the same length.
    """

    pool: Sequence[int]
    special_ids: frozenset[int]

    @classmethod
    def of(cls, token_ids: TokenIds, special_ids: Collection[int]) -> _Augmentation:
        special = frozenset(special_ids)
        return cls([token for ids in token_ids for token in ids if token not in special], special)

    def __call__(self, ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        changed = list(ids)
        positions = [position for position, token in enumerate(changed) if token not in self.special_ids]
        if len(positions) < 2:
            return changed
        for _ in range(rng.integers(1, 3)):
            i, j = rng.choice(positions, size=2)
            if rng.random() < 0.5:
                changed[i], changed[j] = changed[j], changed[i]
            else:
                changed[i] = self.pool[int(rng.integers(len(self.pool)))]
        return changed


class _Student(nn.Module):
    """The quantised model with frozen decoded weights, and the parameters that are tuned around them.

    Each row of a weight W has a gain and a shift, so that its layer computes

        gain * (W x + bias + shift * sum(x))

    which equals scaling the row and its bias by the gain after adding the shift to the row's weights. Codes are thus
    decoded once, and no weight needs a gradient.
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
            self._spreads.append(weight.std(dim=1, correction=0))  # units of the shifts
        for index, layer in enumerate(quantized.layers):
            hook = self._linear_hook if layer.kind == "linear" else self._embedding_hook
            self.network.get_submodule(layer.name).register_forward_hook(hook(index))

    def tuned(self) -> QuantizedModel:
        """Return the quantised model with the tuned parameters, rounded to storage precision."""
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

    def _linear_hook(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            if self.shifts[index].requires_grad:
                outputs = outputs + inputs[0].sum(dim=-1, keepdim=True) * self._shift(index)
            return outputs * self._gain(index)

        return hook

    def _embedding_hook(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            rows = inputs[0]
            if not isinstance(rows, Tensor):  # positions addressed by their number stay unchanged
                return outputs
            if self.shifts[index].requires_grad:
                outputs = outputs + self._shift(index)[rows][..., None]
            return outputs * self._gain(index)[rows][..., None]

        return hook


def _tune(
    quantized: QuantizedModel,
    fp32: nn.Module,
    head: Head,
    training: TokenIds,
    augmentation: _Augmentation,
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
            batch = [training[sentence] for sentence in batches[index][0]]
            batch = [augmentation(ids, rng) if rng.random() < _AUGMENTED_SHARE else ids for ids in batch]
            tokens = torch.tensor(batch, device=device)
            loss = _loss(student.network, fp32, head, tokens)
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * _schedule(step / steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % max(1, int(_REPORT_EVERY * steps)) == 0:
                report_progress(f"polishing: {step}/{steps} batches")
    return student.tuned()


def _schedule(progress: float) -> float:
    """Return the factor of the learning rate at a progress of 0..1: a short warm-up, then half a cosine to zero."""
    return min(1.0, progress / _WARM_UP_SHARE + 0.01) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _loss(student: nn.Module, fp32: nn.Module, head: Head, tokens: Tensor) -> Tensor:
    """Return the loss of a student on sentences ``(n, length)``; see the module's docstring."""
    with torch.no_grad():
        targets = fp32(input_ids=tokens, output_hidden_states=True)
    outputs = student(input_ids=tokens, output_hidden_states=True)
    damage = head.torch_divergences(head.outputs(outputs.logits), head.outputs(targets.logits)).mean()
    # The embeddings' output is left out: the blocks above it show better which differences matter.
    hidden_losses = [
        F.mse_loss(hidden, target) / target.var()
        for hidden, target in zip(outputs.hidden_states[1:], targets.hidden_states[1:], strict=True)
    ]
    return damage + _HIDDEN_WEIGHT * torch.stack(hidden_losses).mean()
