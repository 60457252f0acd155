"""What the peers share: the model, the sentences, and the one way in which every result is sized and scored."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from objectives.batching import equal_length_batches
from objectives.evaluation.evaluator import Evaluator
from objectives.loading.sentences import load_texts, training_order
from objectives.problem import Problem, load_problem
from objectives.scores import LogOdds, score
from objectives.training_sentences import unseen_sentences
from tests.shared import COLA, MODEL

CALIBRATION, UNSEEN = 2048, 500
"""Training sentences for calibration (as many as ours), and others that nothing is calibrated or allocated on."""

HAND_WIDTHS, HAND_GROUP = (8, 4), 64
"""Bits of embeddings (and a pooler) that a tool leaves in FP32, coded by hand in groups: finer than rows."""

TokenIds = Sequence[Sequence[int]]
Logits = Callable[[Tensor], npt.NDArray[np.float32]]
"""Takes the tokens of sentences of one length, ``(n, length)``, and returns logits ``(n, 2)``."""

Settings = Iterator[tuple[str, "Callable[[], Result]"]]
"""A peer's settings: what is asked of the tool, and the function that does it."""


@dataclass(frozen=True)
class Result:
    """What a tool made of the model.

    Attributes:
        weights: decoded weights by the parameter's name, and the bits that each takes with its scales and zero points.
            All other tensors stay in FP32.
        seconds: CPU time, because other work may share the machine.
        file_bytes: the length of the file that the tool writes; 0 if it writes none here.
        logits: the result itself, if it is no set of weights; ``stored_bits`` then says what it takes.
    """

    weights: Mapping[str, tuple[Tensor, int]] = field(default_factory=dict)
    seconds: float = 0.0
    file_bytes: int = 0
    logits: Logits | None = None
    stored_bits: int = 0


@dataclass(frozen=True)
class Bed:
    """The model and the sentences; ``limit`` is how many of each kind score, for a quick look."""

    problem: Problem
    limit: int | None = None

    @classmethod
    def load(cls, limit: int | None = None) -> Bed:
        """Load the shared model and sentences."""
        return cls(load_problem(str(MODEL), str(COLA), quantizer="affine"), limit)

    @cached_property
    def training(self) -> list[list[int]]:
        """Training sentences in the order of use; calibration takes the first, sensitivities the next."""
        texts = load_texts(str(COLA))
        ids = self.problem.classifier.encode([texts[index] for index in training_order(len(texts))]).ids
        return [list(tokens) for tokens in ids]

    @cached_property
    def sentences(self) -> dict[str, TokenIds]:
        """The sentences that score, by name."""
        named = {"validation": self.problem.token_ids, "unseen": unseen_sentences(self.problem, UNSEEN)}
        return {name: ids[: self.limit] for name, ids in named.items()}

    @cached_property
    def fp32(self) -> dict[str, LogOdds]:
        """The FP32 model's outputs on the sentences that score."""
        return self._outputs(Result())

    def model(self) -> nn.Module:
        """Return a copy of the FP32 model, for a tool to change."""
        return copy.deepcopy(self.problem.network)

    def batches(self, count: int, max_tokens: int = 256) -> Iterator[dict[str, Tensor]]:
        """Yield the first calibration sentences as the model's inputs; batches are of one length, never padded."""
        for _, tokens in equal_length_batches(self.training[:count], max_tokens):
            yield inputs_of(tokens)

    def stored_bytes(self, result: Result) -> int:
        """Return what a result needs: codes at their width, scales, zero points, and the rest in FP32."""
        if result.logits is not None:
            return -(-result.stored_bits // 8)
        state = self.problem.network.state_dict()
        kept: int = sum(32 * tensor.numel() for name, tensor in state.items() if name not in result.weights)
        return -(-(kept + sum(bits for _, bits in result.weights.values())) // 8)

    def left(self, result: Result) -> list[str]:
        """Return the parameters that we code and a result leaves in FP32."""
        return [layer.parameter for layer in self.problem.layers if layer.parameter not in result.weights]

    def embeddings(self) -> list[str]:
        """Return the parameters of embeddings."""
        return [layer.parameter for layer in self.problem.layers if layer.kind == "embedding"]

    def by_hand(self, parameters: Iterable[str], width: int) -> dict[str, tuple[Tensor, int]]:
        """Return parameters rounded to nearest in groups, and their bits."""
        state = self.problem.network.state_dict()
        return {name: round_groups(state[name], width) for name in parameters}

    def scores(self, result: Result) -> dict[str, float]:
        """Return MCC, the damage on validation sentences and on unseen ones."""
        outputs, problem = self._outputs(result), self.problem
        labels = problem.labels[: self.limit]
        validation = score(outputs["validation"], labels, self.fp32["validation"])
        unseen = problem.head.divergences(outputs["unseen"], self.fp32["unseen"]).mean()
        return {"mcc": validation.metric, "damage": validation.damage, "unseen": float(unseen)}

    def _outputs(self, result: Result) -> dict[str, LogOdds]:
        if result.logits is not None:
            return {name: _by_length(result.logits, ids) for name, ids in self.sentences.items()}
        network = self.model()
        state = network.state_dict()
        for name, (weight, _) in result.weights.items():
            state[name].copy_(weight)
        evaluators = {name: Evaluator(network, self.problem.layers, ids) for name, ids in self.sentences.items()}
        return {name: evaluator.fp32_log_odds() for name, evaluator in evaluators.items()}


def round_groups(weight: Tensor, width: int) -> tuple[Tensor, int]:
    """Return a matrix rounded to nearest between each group's least and greatest weight, and its bits."""
    groups, levels = weight.reshape(-1, HAND_GROUP), 2**width - 1
    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / levels).half().float().clamp(min=2**-24)
    zero_point = (-low / scale).round().clamp(0, levels)
    codes = (groups / scale + zero_point).round().clamp(0, levels)
    decoded = ((codes - zero_point) * scale).reshape(weight.shape)
    return decoded, weight.numel() * width + len(groups) * (16 + width)


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return a model's linear layers but its head, by name: the ones that we search, too."""
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in modules.items() if not name.startswith("classifier")}


def saved_bytes(saved: nn.Module | Mapping[str, object]) -> int:
    """Return the length of what torch writes of a model's tensors."""
    buffer = io.BytesIO()
    torch.save(saved.state_dict() if isinstance(saved, nn.Module) else saved, buffer)
    return buffer.tell()


@contextmanager
def timed(taken: list[float]) -> Iterator[None]:
    """Append the CPU seconds that a block took."""
    began = time.process_time()
    yield
    taken.append(time.process_time() - began)


def inputs_of(tokens: Tensor) -> dict[str, Tensor]:
    """Return the model's inputs for tokens ``(n, length)`` without padding."""
    zeros = torch.zeros_like(tokens)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "token_type_ids": zeros}


def _by_length(logits: Logits, token_ids: TokenIds) -> LogOdds:
    outputs = np.empty(len(token_ids), np.float32)
    for indices, tokens in equal_length_batches(token_ids, 512):
        of_batch = logits(tokens)
        outputs[indices] = of_batch[:, 1] - of_batch[:, 0]
    return outputs
