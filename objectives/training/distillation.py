"""Distil an FP32 model into a quantised one of the same size, on unlabelled sentences.

    loss = damage + 4 * mean over blocks of MSE(h, h_fp32) / var(h_fp32)

The damage (mean KL divergence from FP32) follows Hinton et al. (2015, arXiv:1503.02531), and the hidden states h follow
TinyBERT (Jiao et al., EMNLP Findings 2020). The FP32 model was fitted to these sentences and is too sure of them. So
most sentences are augmented: one or two words change, which makes its predictions like those on unseen sentences.

A tenth of the sentences is held out, with as many augmented ones. Their damage after each epoch decides what is kept.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from objectives.batching import by_length, device_of, equal_length_batches
from objectives.evaluation.evaluator import DTYPES, Evaluator
from objectives.heads import TWO_CLASSES, Head
from objectives.loading.fingerprint import short_digest
from objectives.memory import give_back_large_blocks
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import LogOdds, Precision
from objectives.training.augmentation import Augmentation, TokenIds
from objectives.training.student import LATENT_RATE, Student, Trained
from objectives.training.training_state import TrainingState, load_state, save_state

log = logging.getLogger("bitfront")

_HELD_OUT_SHARE = 0.1
_AUGMENTED_SHARE = 0.7
_BATCH_TOKENS = 512
_WARM_UP_SHARE = 0.05
_HIDDEN_WEIGHT = 4.0
_SAVE_EVERY_S = 180.0
_RECIPE = 3  # a state of another recipe is not continued


@dataclass(frozen=True)
class TrainingSentences:
    """Unlabelled sentences to train on.

    Attributes:
        token_ids: each sentence's tokens with special tokens; no map is scored on them.
        special_ids: the special tokens, which augmentation never changes.
    """

    token_ids: TokenIds
    special_ids: Collection[int]


@dataclass(frozen=True)
class Training:
    """How to distil.

    Attributes:
        trained: ``scales``, or ``weights``: codes too.
        epochs: passes over the sentences.
        seed: of the held-out sentences, the order and the augmentation.
        precision: of the matrix products.
    """

    trained: Trained = "scales"
    epochs: int = 1
    seed: int = 0
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Distilled:
    """The result of a distillation.

    Attributes:
        model: the distilled model if it does less damage on the held-out sentences, else the original model.
        damage_before: damage of the original model on these sentences, nats a sentence, lower is better.
        damage_after: damage of the best distilled model on these sentences, kept or not.
        finished: whether training went to its end; if not, it can be continued.
    """

    model: QuantizedModel
    damage_before: float
    damage_after: float
    finished: bool = True

    @property
    def kept(self) -> bool:
        """Whether the distilled model does less damage."""
        return self.damage_after < self.damage_before


def distil(
    quantized: QuantizedModel,
    fp32: nn.Module,
    sentences: TrainingSentences,
    training: Training = Training(),
    *,
    head: Head = TWO_CLASSES,
    state: Path | None = None,
    report_progress: Callable[[int, int], object] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Distilled:
    """Distil a model into a quantised one, and keep the best result on a held-out tenth of the sentences.

    A seed reproduces the result exactly on the same machine with the same number of threads, also if training was
    stopped or killed and continued. Neither model is changed.

    Args:
        quantized: the model to start from; the result has the same size.
        fp32: the ``transformers`` sequence classifier that it was quantised from.
        sentences: at least two sentences.
        training: how.
        head: of the model; of numbers, with the variances of the search.
        state: a file that training is written to every few minutes and when it stops, and continued from. A state of
            another training is not used, and the caller removes it once the result is safe.
        report_progress: called before each batch with the number of batches so far, and their total.
        should_stop: called before each batch; if true, training stops and the best model so far is returned.

    Raises:
        ValueError: there are fewer than two sentences.
    """
    if len(sentences.token_ids) < 2:
        raise ValueError(f"distillation needs at least two sentences, got {len(sentences.token_ids)}")
    return _Distillation(quantized, fp32, sentences, training, head).run(state, report_progress, should_stop)


def seconds_per_epoch(
    quantized: QuantizedModel, fp32: nn.Module, sentences: TrainingSentences, training: Training, head: Head
) -> float:
    """Estimate how long one of the epochs of ``distil`` takes, from a few steps and a few held-out sentences."""
    timed = _Distillation(quantized, fp32, sentences, training, head)
    batches = sorted(timed.batches(0), key=lambda batch: sum(len(timed.sentences[index]) for index in batch))
    usual, held_out = batches[len(batches) // 2], len(timed.held_out)
    timed.train(usual, 0, len(batches))  # the first step prepares kernels and the optimiser's memory
    began = time.monotonic()
    for step in (1, 2):
        timed.train(usual, step, len(batches))
    trained = time.monotonic()
    timed.held_out = timed.held_out[:64]
    timed.damage(timed.student.network)
    judged_s = (time.monotonic() - trained) * held_out / len(timed.held_out)
    return len(batches) * (trained - began) / 2 + judged_s


class _Distillation:
    def __init__(
        self, quantized: QuantizedModel, fp32: nn.Module, sentences: TrainingSentences, training: Training, head: Head
    ) -> None:
        give_back_large_blocks()  # a sixth of the peak
        self.quantized, self.fp32, self.training, self.head = quantized, fp32, training, head
        rng = np.random.default_rng(training.seed)
        order = rng.permutation(len(sentences.token_ids))
        shuffled = [sentences.token_ids[index] for index in order]
        n_held_out = max(1, round(_HELD_OUT_SHARE * len(order)))
        self.sentences = shuffled[n_held_out:]
        self.augmentation = Augmentation.of(self.sentences, sentences.special_ids)
        self.held_out = shuffled[:n_held_out]
        self.held_out += [self.augmentation(ids, rng) for ids in self.held_out]
        # A short training has to move codes faster; a long one can afford less of the noise that this brings.
        rate = LATENT_RATE * math.sqrt(10 / training.epochs)
        self.student = Student(quantized, fp32, training.trained, DTYPES[training.precision], rate)
        self.teacher = network_in(fp32, training.precision)
        self.student.network = network_in(self.student.network, training.precision)

    def run(
        self, path: Path | None, report_progress: Callable[[int, int], object], should_stop: Callable[[], bool]
    ) -> Distilled:
        per_epoch = len(self.batches(0))
        steps, now = self.training.epochs * per_epoch, TrainingState()
        if path is not None and (found := load_state(path, self.identity, self.quantized)) is not None:
            now, tensors = found
            self.student.load(tensors)
        saved = time.monotonic()
        for epoch in range(now.step // per_epoch, self.training.epochs):
            batches = self.batches(epoch)
            for at in range(now.step - epoch * per_epoch, per_epoch):
                report_progress(now.step, steps)
                if should_stop():
                    if path is not None:
                        save_state(path, self.identity, now, self.student.state())
                    # What is trained may be better than the best of all epochs; the state does without it.
                    return self.result(self.better(now) if now.step else now, finished=False)
                if path is not None and time.monotonic() - saved >= _SAVE_EVERY_S:
                    save_state(path, self.identity, now, self.student.state())
                    saved = time.monotonic()
                self.train(batches[at], now.step, steps)
                now = replace(now, step=now.step + 1)
            now = self.better(now)
            log.info("epoch %d of %d: held-out damage %.4f", epoch + 1, self.training.epochs, now.last_damage)
        return self.result(now, finished=True)

    def batches(self, epoch: int) -> list[list[int]]:
        """Return an epoch's batches of equally long sentences, by their indices, in random order."""
        rng = np.random.default_rng([self.training.seed, epoch, 0])
        batches: list[list[int]] = []
        for length, indices in by_length(self.sentences):
            shuffled, count = rng.permutation(indices).tolist(), max(1, _BATCH_TOKENS // length)
            batches += [shuffled[start : start + count] for start in range(0, len(shuffled), count)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def train(self, batch: Sequence[int], step: int, steps: int) -> None:
        rng = np.random.default_rng([self.training.seed, step, 1])
        token_ids = [self.sentences[index] for index in batch]
        token_ids = [self.augmentation(ids, rng) if rng.random() < _AUGMENTED_SHARE else ids for ids in token_ids]
        loss = loss_of(self.student.network, self.teacher, self.head, self.tensor(token_ids))
        share = min(1.0, len(token_ids) * len(token_ids[0]) / _BATCH_TOKENS)  # a batch of few sentences moves little
        self.student.step(share * loss, _schedule(step / steps))

    def better(self, now: TrainingState) -> TrainingState:
        """Return the state with what is trained as the best so far, if it is."""
        damage = self.damage(self.student.network)
        now = replace(now, last_damage=damage)
        return replace(now, best=self.student.quantized(), best_damage=damage) if damage < now.best_damage else now

    def damage(self, network: nn.Module) -> float:
        """Return the damage on the held-out sentences in the precision of the training."""
        total = 0.0
        with torch.no_grad():
            for _, tokens in equal_length_batches(self.held_out, _BATCH_TOKENS):
                ids = tokens.to(device_of(network))
                outputs, targets = (
                    self.head.outputs(model(input_ids=ids).logits.float()) for model in (network, self.teacher)
                )
                total += float(self.head.torch_divergences(outputs, targets).sum())
        return total / len(self.held_out)

    def result(self, now: TrainingState, finished: bool) -> Distilled:
        """Compare the best so far with the original, in FP32."""
        if now.best is None:
            before = self.exact_damage(self.quantized)
            return Distilled(self.quantized, before, before, finished)
        before, after = self.exact_damage(self.quantized), self.exact_damage(now.best)
        return Distilled(now.best if after < before else self.quantized, before, after, finished)

    def exact_damage(self, model: QuantizedModel) -> float:
        log_odds = Evaluator(model.decoded(self.fp32), model.layers, self.held_out).fp32_log_odds()
        return float(self.head.divergences(log_odds, self.fp32_log_odds).mean())

    @cached_property
    def fp32_log_odds(self) -> LogOdds:
        return Evaluator(self.fp32, self.quantized.layers, self.held_out).fp32_log_odds()

    @cached_property
    def identity(self) -> str:
        """What a state must have been trained from to be continued."""
        return short_digest(
            json.dumps([asdict(self.training), self.quantized.bit_map, self.sentences, self.held_out, _RECIPE])
        )

    def tensor(self, token_ids: TokenIds) -> Tensor:
        return torch.tensor(token_ids, device=device_of(self.fp32))


def network_in(network: nn.Module, precision: Precision) -> nn.Module:
    """Return a ``transformers`` model that trains fast in a precision: a copy if it has another one."""
    if precision == "fp32":
        return network
    if next(network.parameters()).dtype != DTYPES[precision]:
        network = copy.deepcopy(network).to(DTYPES[precision]).eval()
    if device_of(network).type == "cpu":  # torch's fused attention is slow to differentiate in bf16 there
        network.set_attn_implementation("eager")  # type: ignore[operator]
    return network


def _schedule(progress: float) -> float:
    """Return the factor of the learning rates at a progress of 0..1: a short warm-up, then linearly to zero."""
    return min(1.0, progress / _WARM_UP_SHARE + 0.01) * (1.0 - progress)


def loss_of(student: nn.Module, teacher: nn.Module, head: Head, tokens: Tensor) -> Tensor:
    """Return the loss of a student on sentences ``(n, length)``; see the module's docstring."""
    with torch.no_grad():
        targets = teacher(input_ids=tokens, output_hidden_states=True)
    outputs = student(input_ids=tokens, output_hidden_states=True)
    own, wanted = (head.outputs(output.logits.float()) for output in (outputs, targets))
    damage = head.torch_divergences(own, wanted).mean()
    # The embeddings' output is left out: the blocks above it show better which differences matter.
    hidden_losses = [
        F.mse_loss(hidden.float(), target.float()) / target.float().var()
        for hidden, target in zip(outputs.hidden_states[1:], targets.hidden_states[1:], strict=True)
    ]
    return damage + _HIDDEN_WEIGHT * torch.stack(hidden_losses).mean()
