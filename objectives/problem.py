"""The problem to search: one model, its layers and the sentences that score it, loaded and checked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs
import torch
from torch import nn

from objectives.errors import InputError
from objectives.evaluation.evaluator import Evaluator
from objectives.layers import BitMap, Layer, uniform
from objectives.loading import AUTO, NONE
from objectives.loading.fingerprint import Fingerprint, fingerprint, sentences_fingerprint
from objectives.loading.holdout import divide
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import Classifier, load_classifier
from objectives.loading.sentences import Sentences, load_sentences, tokenize, training_order
from objectives.miniature import SHIPPED
from objectives.packing.footprint import Footprint
from objectives.packing.scheme import QuantizerName
from objectives.quantization.bank import FP32_WIDTH
from objectives.quantization.bank_cache import load_quantizer, make_bank
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import Labels, LogOdds, Precision, Scores, score
from objectives.training.distillation import TrainingSentences

MINIATURE = "miniature"
"""The name of the embedded model and of its sentences."""


@dataclass(frozen=True)
class Evaluation:
    """What one map scored: its scores, the log-odds ``(n_sentences,)`` they follow from, computed how and how long."""

    scores: Scores
    log_odds: LogOdds
    precision: Precision
    elapsed_s: float


@dataclass(frozen=True)
class Holdout:
    """The sentences that no search sees: their labels, domains and tokens, and where they are from in words."""

    labels: Labels
    in_domain: npt.NDArray[np.bool_] | None
    token_ids: Sequence[Sequence[int]]
    source: str


@dataclass(frozen=True)
class Problem:
    """A model and labelled sentences, ready to score bit maps; see :func:`load_problem`.

    ``search_evaluator`` scores what is searched; ``evaluator`` is FP32, for all that must be exact. They are the same
    if the search's precision is FP32.
    """

    model: str
    data: str
    layers: tuple[Layer, ...]
    footprint: Footprint
    labels: Labels
    in_domain: npt.NDArray[np.bool_] | None
    fp32_log_odds: LogOdds
    fp32: Scores
    fingerprint: Fingerprint
    classifier: Classifier
    token_ids: Sequence[Sequence[int]]
    evaluator: Evaluator
    search_evaluator: Evaluator
    holdout: Holdout | None = None

    @property
    def network(self) -> nn.Module:
        """The FP32 model itself."""
        return self.classifier.model

    @property
    def codes(self) -> str:
        """The fingerprint of the codes that lie in files of the cache; empty where the bank makes them as it goes."""
        return self.evaluator.bank.fingerprint

    def evaluate(self, bit_map: BitMap) -> Evaluation:
        """Score a map on every sentence, in the precision of the search.

        Raises:
            ValueError: a log-odds is not finite.
        """
        return self._evaluate(self.search_evaluator, bit_map)

    def confirm(self, bit_map: BitMap) -> Evaluation:
        """Score a map on every sentence in FP32.

        Raises:
            ValueError: a log-odds is not finite.
        """
        return self._evaluate(self.evaluator, bit_map)

    def holdout_log_odds(self, maps: Sequence[BitMap]) -> tuple[LogOdds, list[LogOdds]]:
        """Return the log-odds of the FP32 model and of maps on the confirmation sentences, in FP32.

        Raises:
            InputError: there are none, or a log-odds is not finite.
        """
        if self.holdout is None:
            raise InputError("no sentences were held back; name some with --confirm")
        evaluator = self.evaluator_on(self.holdout.token_ids)
        fp32, *scored = [evaluator.log_odds(bit_map) for bit_map in (uniform(self.layers, FP32_WIDTH), *maps)]
        if not all(np.isfinite(log_odds).all() for log_odds in (fp32, *scored)):
            raise InputError("scores on the confirmation sentences are not finite")
        return fp32, scored

    def evaluator_on(self, token_ids: Sequence[Sequence[int]]) -> Evaluator:
        """Return what scores maps on other sentences, in FP32."""
        return Evaluator(self.network, self.layers, token_ids, bank=self.evaluator.bank)

    def confirm_quantized(self, quantized: QuantizedModel) -> Evaluation:
        """Score a quantised model on every sentence in FP32.

        Raises:
            ValueError: a log-odds is not finite.
        """
        return self.confirm_network(quantized.decoded(self.network))

    def confirm_network(self, network: nn.Module) -> Evaluation:
        """Score a model with weights of its own, on the device of this one's, on every sentence in FP32.

        Raises:
            ValueError: a log-odds is not finite.
        """
        evaluator = Evaluator(network, self.layers, self.token_ids)
        return self._evaluate(evaluator, uniform(self.layers, FP32_WIDTH))

    def _evaluate(self, evaluator: Evaluator, bit_map: BitMap) -> Evaluation:
        started = time.perf_counter()
        log_odds = evaluator.log_odds(bit_map)
        scores = score(log_odds, self.labels, self.fp32_log_odds)
        return Evaluation(scores, log_odds, evaluator.precision, elapsed_s=time.perf_counter() - started)


def load_problem(
    model: str,
    data: str,
    precision: Precision = "fp32",
    device: str = "cpu",
    quantizer: QuantizerName = "affine",
    report_progress: Callable[[str], None] = lambda _: None,
    bank_in_files: bool = False,
    confirm: str = NONE,
    group_size: int = 0,
) -> Problem:
    """Load a model and validation sentences and score the FP32 model on them.

    Args:
        model: a local directory, a hub name, or ``miniature``.
        data: a local directory in the public CoLA layout, a hub data set, or ``miniature``.
        precision: of the evaluations that the search makes.
        device: where to compute: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        quantizer: how weights become codes.
        report_progress: told in one line what is being done.
        bank_in_files: keep every quantiser's codes in files of the cache, so that processes have one copy in memory.
        confirm: the sentences that no search sees, as for ``divide``; ``auto`` for the miniature's held-out ones where
            it is searched with, and for none elsewhere.
        group_size: columns that share a scale and a zero point; 0 for all of a row.

    Raises:
        InputError: there is no such device; the model or the sentences cannot be used (see ``load_classifier`` and
            ``load_sentences``); or the FP32 model's MCC is zero or less, which probably means reversed labels.
    """
    if confirm == AUTO:
        confirm = MINIATURE if data == MINIATURE else NONE
    model_source = str(SHIPPED.model) if model == MINIATURE else model
    data_source = str(SHIPPED.data) if data == MINIATURE else data
    confirm_source = str(SHIPPED.held_out) if confirm == MINIATURE else confirm
    report_progress(f"loading {model}")
    classifier = load_classifier(model_source)
    sentences, held = divide(load_sentences(data_source, "validation"), confirm_source)
    network = classifier.model
    token_ids = tokenize(classifier.tokenizer, sentences.texts, max_tokens=classifier.max_tokens)
    layers = find_layers(network)
    chosen = load_quantizer(quantizer, classifier, data_source, group_size)
    identity = fingerprint(network, token_ids, sentences.labels, chosen.identity)
    holdout = _holdout(held, classifier, confirm)
    if holdout is not None:
        identity["confirmation"] = sentences_fingerprint(holdout.token_ids, holdout.labels)
    network.to(_device(device))  # type: ignore[arg-type]
    report_progress(f"scoring the FP32 model on {len(sentences.texts)} sentences")
    # By an evaluator of its own: what is wrong is told before minutes of calibration, which need the memory.
    fp32_log_odds = Evaluator(network, layers, token_ids).fp32_log_odds()
    if not np.isfinite(fp32_log_odds).all():
        raise InputError(f"{model}: the FP32 model's scores are not finite; its weights are damaged")
    fp32 = score(fp32_log_odds, sentences.labels, fp32_log_odds)
    if fp32.mcc <= 0:
        raise InputError(
            f"{model}: its FP32 MCC on {data} is {fp32.mcc:.3f}, no better than chance: the labels are probably "
            "reversed. Class 1 must mean acceptable (id2label in its config.json); or it was never fine-tuned "
            "(`bitfront finetune`)"
        )
    bank = make_bank(chosen, network, layers, identity["model"], cache_directory(), report_progress, bank_in_files)
    evaluator = Evaluator(network, layers, token_ids, bank=bank)
    search_evaluator = evaluator if precision == "fp32" else Evaluator(network, layers, token_ids, precision, bank)
    return Problem(
        model=model,
        data=data,
        layers=layers,
        footprint=footprint_of(network, bank.scheme),
        labels=sentences.labels,
        in_domain=sentences.in_domain,
        fp32_log_odds=fp32_log_odds,
        fp32=fp32,
        fingerprint=identity,
        classifier=classifier,
        token_ids=token_ids,
        evaluator=evaluator,
        search_evaluator=search_evaluator,
        holdout=holdout,
    )


def polishing_sentences(problem: Problem) -> TrainingSentences:
    """Return the training sentences that go with a problem, for ``polish``: each once, none that maps are scored on.

    Raises:
        InputError: there are fewer than two.
    """
    tokenizer = problem.classifier.tokenizer
    seen = _judging(problem)
    encoded = tokenize(tokenizer, _training_texts(problem), problem.classifier.max_tokens)
    token_ids = [list(tokens) for tokens in dict.fromkeys(map(tuple, encoded)) if tokens not in seen]
    if len(token_ids) < 2:
        raise InputError(f"{problem.data}: has too few training sentences to polish on")
    return TrainingSentences(token_ids, tokenizer.all_special_ids)


def unseen_sentences(problem: Problem, most: int) -> list[list[int]]:
    """Return the tokens of training sentences that a search of a problem does not see, at most so many.

    Those that are also searched with or held back are left out, and those that codes are calibrated on as far as there
    are enough others. They need no labels: damage is measured against the FP32 model.

    Raises:
        InputError: there are no training sentences.
    """
    texts = _training_texts(problem)
    seen = _judging(problem)
    unseen: dict[tuple[int, ...], None] = {}
    for index in reversed(training_order(len(texts))):
        if len(unseen) == most:
            break
        [tokens] = tokenize(problem.classifier.tokenizer, [texts[index]], problem.classifier.max_tokens)
        if tuple(tokens) not in seen:
            unseen[tuple(tokens)] = None
    if not unseen:
        raise InputError(f"{problem.data}: has no training sentences but those that are searched with")
    return [list(tokens) for tokens in unseen]


def _judging(problem: Problem) -> set[tuple[int, ...]]:
    """Return the tokens of the sentences that maps are scored on, those held back included."""
    held = () if problem.holdout is None else problem.holdout.token_ids
    return {tuple(tokens) for tokens in (*problem.token_ids, *held)}


def _training_texts(problem: Problem) -> Sequence[str]:
    source = str(SHIPPED.data) if problem.data == MINIATURE else problem.data
    return load_sentences(source, "train").texts


def _holdout(held: Sentences | None, classifier: Classifier, confirm: str) -> Holdout | None:
    if held is None:
        return None
    token_ids = tokenize(classifier.tokenizer, held.texts, max_tokens=classifier.max_tokens)
    return Holdout(held.labels, held.in_domain, token_ids, confirm)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu, or install torch built for CUDA")
    return torch.device(name)


def cache_directory() -> Path:
    """Return where what can be made again is kept: ``$BITFRONT_CACHE``, else the system's place for caches."""
    return Path(os.environ.get("BITFRONT_CACHE") or platformdirs.user_cache_dir("bitfront"))
