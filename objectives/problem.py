"""The search problem: one model, its layers and the sentences that score it, loaded and checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from objectives.cache import cache_directory
from objectives.errors import InputError
from objectives.evaluation.evaluator import Evaluator
from objectives.heads import TWO_CLASSES, Head, Numbers, head_of
from objectives.labels import fitting_labels
from objectives.layers import BitMap, Layer, uniform
from objectives.loading import AUTO, NONE
from objectives.loading.fingerprint import Fingerprint, fingerprint, sentences_fingerprint
from objectives.loading.holdout import split_holdout
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import Classifier, load_classifier
from objectives.loading.sentences import Sentences, load_sentences, training_order
from objectives.metrics import METRIC_NAMES, MetricName, chance_level, metric_of
from objectives.miniature import SHIPPED
from objectives.packing.footprint import Footprint
from objectives.packing.scheme import QuantizerName
from objectives.quantization.bank import FP32_WIDTH
from objectives.quantization.bank_cache import load_quantizer, make_bank
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import Labels, LogOdds, Precision, Scores, score
from objectives.training.distillation import TrainingSentences

MINIATURE = "miniature"
"""The name of the embedded model and its sentences."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a bit map: its scores, outputs ``(n_sentences, *head.shape)``, precision and duration."""

    scores: Scores
    log_odds: LogOdds
    precision: Precision
    elapsed_s: float


@dataclass(frozen=True)
class Holdout:
    """The holdout set, which no search sees: labels, domains, tokens and the setting that named it."""

    labels: Labels
    in_domain: npt.NDArray[np.bool_] | None
    token_ids: Sequence[Sequence[int]]
    source: str


@dataclass(frozen=True)
class Problem:
    """A model and labelled sentences, ready to score bit maps; see :func:`load_problem`.

    ``search_evaluator`` scores maps during the search. ``evaluator`` computes in FP32 for exact results. Both are the
    same object if the search's precision is FP32. ``head`` says what outputs mean, and ``metric`` what is best.
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
    head: Head
    metric: MetricName
    holdout: Holdout | None = None

    @property
    def network(self) -> nn.Module:
        """The FP32 model."""
        return self.classifier.model

    @property
    def codes(self) -> str:
        """The fingerprint of the cached codes; empty if the bank quantises layers on demand."""
        return self.evaluator.bank.fingerprint

    def evaluate(self, bit_map: BitMap) -> Evaluation:
        """Score a map on every sentence in the search's precision.

        Raises:
            NotFiniteError: a log-odds is not finite.
        """
        return self._evaluate(self.search_evaluator, bit_map)

    def confirm(self, bit_map: BitMap) -> Evaluation:
        """Score a map on every sentence in FP32.

        Raises:
            NotFiniteError: a log-odds is not finite.
        """
        return self._evaluate(self.evaluator, bit_map)

    def holdout_log_odds(self, maps: Sequence[BitMap]) -> tuple[LogOdds, list[LogOdds]]:
        """Return the outputs of the FP32 model and of maps on the holdout set, in FP32.

        Raises:
            InputError: there is no holdout set, or a log-odds is not finite.
        """
        if self.holdout is None:
            raise InputError("there is no holdout set; start a search with --confirm")
        evaluator = self.evaluator_on(self.holdout.token_ids)
        fp32, quantized = evaluator.fp32_log_odds(), [evaluator.log_odds(bit_map) for bit_map in maps]
        if not all(np.isfinite(log_odds).all() for log_odds in (fp32, *quantized)):
            raise InputError("scores on the holdout set are not finite; the model's weights may be damaged")
        return fp32, quantized

    def evaluator_on(self, token_ids: Sequence[Sequence[int]]) -> Evaluator:
        """Return an FP32 evaluator of maps on other sentences."""
        return Evaluator(self.network, self.layers, token_ids, bank=self.evaluator.bank)

    def confirm_quantized(self, quantized: QuantizedModel) -> Evaluation:
        """Score a quantised model on every sentence in FP32.

        Raises:
            NotFiniteError: a log-odds is not finite.
        """
        return self.confirm_network(quantized.decoded(self.network))

    def confirm_network(self, network: nn.Module) -> Evaluation:
        """Score another network with these layers on every sentence in FP32, on its device.

        Raises:
            NotFiniteError: a log-odds is not finite.
        """
        return self._evaluate(Evaluator(network, self.layers, self.token_ids), uniform(self.layers, FP32_WIDTH))

    def _evaluate(self, evaluator: Evaluator, bit_map: BitMap) -> Evaluation:
        started = time.perf_counter()
        log_odds = evaluator.log_odds(bit_map)
        scores = score(log_odds, self.labels, self.fp32_log_odds, self.head, self.metric)
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
    known_scores: Callable[[Fingerprint], LogOdds | None] = lambda _: None,
    metric: MetricName | Literal["auto"] = "auto",
) -> Problem:
    """Load a model and validation sentences and score the FP32 model on them.

    Args:
        model: a local directory, a hub name, or ``miniature``.
        data: a local directory in the public CoLA layout, a hub data set, or ``miniature``.
        precision: precision of the search's evaluations.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        quantizer: the quantiser of the weights.
        report_progress: called with a line on each step.
        bank_in_files: keep every quantiser's codes in cache files, so that processes share one copy in memory.
        confirm: the holdout set, as for ``split_holdout``; ``auto`` is the own one of data ``miniature``, else none.
        group_size: columns that share a scale and a zero point; 0 for whole rows.
        known_scores: called with the fingerprint before anything is scored or calibrated. It may refuse it by an
            InputError, and returns the FP32 model's outputs ``(n_sentences, *head.shape)`` if a run has them, else
            None.
        metric: the task's; ``auto`` for the usual one of the model's head.

    Raises:
        InputError: there is no such device, or no place for the cache.
        InputError: the model or the sentences cannot be used; see ``load_classifier`` and ``load_sentences``.
        InputError: the FP32 model's metric is no better than chance, which probably means reversed labels.
        InputError: the metric does not fit the model's head.
    """
    if confirm == AUTO:
        confirm = MINIATURE if data == MINIATURE else NONE
    model_source = str(SHIPPED.model) if model == MINIATURE else model
    data_source = str(SHIPPED.data) if data == MINIATURE else data
    confirm_source = str(SHIPPED.held_out) if confirm == MINIATURE else confirm
    # Before anything is loaded, because there may be no place for it.
    cache = cache_directory() if quantizer == "calibrated" or bank_in_files else Path()
    report_progress(f"loading {model}")
    classifier = load_classifier(model_source)
    sentences, holdout_sentences = split_holdout(load_sentences(data_source, "validation"), confirm_source)
    network = classifier.model
    config: Any = network.config
    decided = "" if config.problem_type else ", as transformers decides where its config does not say"
    if config.problem_type is None and sentences.labels.ndim == 2 and config.num_labels > 1:
        config.problem_type = "multi_label_classification"
    head = head_of(network)
    metric = metric_of(head, metric)
    if head != TWO_CLASSES:
        report_progress(f"the model predicts {head.description}{decided}; scored by {METRIC_NAMES[metric]}")
    labels = fitting_labels(sentences.labels, head, data)
    token_ids = classifier.tokenize(sentences.texts)
    layers = find_layers(network)
    if unsearched := footprint_of(network).unsearched:
        report_progress(f"not searched: {unsearched}")
    loaded_quantizer = load_quantizer(quantizer, classifier, data_source, group_size)
    identity = fingerprint(network, token_ids, sentences.labels, loaded_quantizer.identity)
    holdout = _tokenize_holdout(holdout_sentences, classifier, confirm, head)
    if holdout is not None:
        identity["confirmation"] = sentences_fingerprint(holdout.token_ids, holdout.labels)
    fp32_log_odds = known_scores(identity)
    network.to(_parse_device(device))  # type: ignore[arg-type]
    if fp32_log_odds is None:
        report_progress(f"scoring the FP32 model on {len(sentences.texts)} sentences")
        # This evaluator is dropped again: it finds faults before minutes of calibration, which need its memory.
        fp32_log_odds = Evaluator(network, layers, token_ids).fp32_log_odds()
    if not np.isfinite(fp32_log_odds).all():
        raise InputError(f"{model}: the FP32 model's scores are not finite; its weights are damaged, get them again")
    if head.kind == "numbers":
        head = Numbers.of(fp32_log_odds)
    fp32 = score(fp32_log_odds, labels, fp32_log_odds, head, metric)
    if fp32.metric <= chance_level(metric, head, labels):
        raise InputError(
            f"{model}: its FP32 {METRIC_NAMES[metric]} on {data} is {fp32.metric:.3f}, no better than chance. Its "
            "labels are probably in another order than the data's (id2label in its config.json; for CoLA, class 1 must "
            "mean acceptable). Or it was never fine-tuned: run `bitfront finetune`"
        )
    model_id = identity["model"]
    bank = make_bank(loaded_quantizer, network, layers, model_id, cache, report_progress, bank_in_files)
    evaluator = Evaluator(network, layers, token_ids, bank=bank)
    search_evaluator = evaluator if precision == "fp32" else Evaluator(network, layers, token_ids, precision, bank)
    return Problem(
        model=model,
        data=data,
        layers=layers,
        footprint=footprint_of(network, bank.scheme),
        labels=labels,
        in_domain=sentences.in_domain,
        fp32_log_odds=fp32_log_odds,
        fp32=fp32,
        fingerprint=identity,
        classifier=classifier,
        token_ids=token_ids,
        evaluator=evaluator,
        search_evaluator=search_evaluator,
        head=head,
        metric=metric,
        holdout=holdout,
    )


def polishing_sentences(problem: Problem) -> TrainingSentences:
    """Return a problem's training sentences for ``polish``: each once, without those that score maps.

    Raises:
        InputError: there are fewer than two.
    """
    tokenizer = problem.classifier.tokenizer
    scored = _scored_sentences(problem)
    encoded = problem.classifier.tokenize(_training_texts(problem))
    token_ids = [list(tokens) for tokens in dict.fromkeys(encoded) if tokens not in scored]
    if len(token_ids) < 2:
        raise InputError(f"{problem.data}: polishing needs 2 training sentences, got {len(token_ids)}; add some")
    return TrainingSentences(token_ids, tokenizer.all_special_ids)


def unseen_sentences(problem: Problem, most: int) -> list[list[int]]:
    """Return the tokens of at most ``most`` training sentences that a search does not see.

    Sentences that are also searched with or in the holdout set are left out. Those that codes are calibrated on come
    last. Labels are not needed, because damage is measured against the FP32 model.

    Raises:
        InputError: there are no such sentences.
    """
    texts = _training_texts(problem)
    scored = _scored_sentences(problem)
    unseen: dict[tuple[int, ...], None] = {}
    for index in reversed(training_order(len(texts))):
        if len(unseen) == most:
            break
        [tokens] = problem.classifier.tokenize([texts[index]])
        if tokens not in scored:
            unseen[tokens] = None
    if not unseen:
        raise InputError(f"{problem.data}: has no training sentences that are not searched with; add some")
    return [list(tokens) for tokens in unseen]


def _scored_sentences(problem: Problem) -> set[tuple[int, ...]]:
    """Return the tokens of the sentences that score maps, including the holdout set."""
    holdout = () if problem.holdout is None else problem.holdout.token_ids
    return {tuple(tokens) for tokens in (*problem.token_ids, *holdout)}


def _training_texts(problem: Problem) -> Sequence[str]:
    source = str(SHIPPED.data) if problem.data == MINIATURE else problem.data
    return load_sentences(source, "train").texts


def _tokenize_holdout(sentences: Sentences | None, classifier: Classifier, confirm: str, head: Head) -> Holdout | None:
    if sentences is None:
        return None
    token_ids = classifier.tokenize(sentences.texts)
    labels = fitting_labels(sentences.labels, head, f"--confirm {confirm}")
    return Holdout(labels, sentences.in_domain, token_ids, confirm)


def _parse_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu, or install torch built for CUDA")
    return torch.device(name)
