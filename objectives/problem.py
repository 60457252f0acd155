"""The search problem: one model, its layers and the sentences that score it, loaded and checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from objectives.cache import cache_directory
from objectives.errors import InputError
from objectives.evaluation.evaluator import Evaluator
from objectives.heads import Head, Numbers, head_of
from objectives.layers import BitMap, Layer, uniform
from objectives.loading import AUTO, NONE
from objectives.loading.fingerprint import Fingerprint, fingerprint, sentences_fingerprint
from objectives.loading.holdout import load_scored
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import Classifier, load_classifier
from objectives.loading.sentences import Sentences
from objectives.loading.tasks import ALL_DEFAULT, DataOptions
from objectives.metrics import METRIC_NAMES, MetricName, chance_level, metric_definition, metric_of
from objectives.miniature import SHIPPED
from objectives.model_labels import fitting_labels, matching, names_of_outputs, order_by_scores, reordered
from objectives.packing.footprint import Footprint
from objectives.packing.scheme import QuantizerName
from objectives.quantization.bank import FP32_WIDTH
from objectives.quantization.bank_cache import load_quantizer, make_bank
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import Labels, LogOdds, Precision, Scores, score
from objectives.token_types import follow_separators, types_of

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
    ``label_names`` are of classes or yes/no labels in the outputs' order, "" for one without a name. ``paired`` is
    whether each of the sentences is a pair of texts.
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
    label_names: tuple[str, ...] = ()
    paired: bool = False
    holdout: Holdout | None = None
    options: DataOptions = ALL_DEFAULT
    n_available: int = 0

    @property
    def sampled(self) -> str:
        """How many of the validation sentences are searched with, for people to read; empty if all are."""
        count = len(self.labels)
        return f"{count:,} of {self.n_available:,}, drawn by label" if count < self.n_available else ""

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
            NotFiniteError: an output is not finite.
        """
        return self._evaluate(self.search_evaluator, bit_map)

    def confirm(self, bit_map: BitMap) -> Evaluation:
        """Score a map on every sentence in FP32.

        Raises:
            NotFiniteError: an output is not finite.
        """
        return self._evaluate(self.evaluator, bit_map)

    def searching_in(self, precision: Precision) -> Problem:
        """Return this problem with another precision of the search; models that have FP32 only keep that."""
        if precision == "fp32":
            return replace(self, search_evaluator=self.evaluator)
        faster = Evaluator(self.network, self.layers, self.token_ids, precision, self.evaluator.bank)
        return replace(self, search_evaluator=faster if faster.precision == precision else self.evaluator)

    def holdout_log_odds(self, maps: Sequence[BitMap]) -> tuple[LogOdds, list[LogOdds]]:
        """Return the outputs of the FP32 model and of maps on the holdout set, in FP32.

        Raises:
            InputError: there is no holdout set, or an output is not finite.
        """
        if self.holdout is None:
            raise InputError("there is no holdout set; start a search with --confirm")
        evaluator = self.evaluator_on(self.holdout.token_ids)
        fp32, quantized = evaluator.fp32_log_odds(), [evaluator.log_odds(bit_map) for bit_map in maps]
        if not all(np.isfinite(log_odds).all() for log_odds in (fp32, *quantized)):
            raise InputError("scores on the holdout set are not finite; the model's weights may be damaged")
        return fp32, quantized

    def evaluator_on(self, token_ids: Sequence[Sequence[int]], network: nn.Module | None = None) -> Evaluator:
        """Return an FP32 evaluator on other sentences: of maps, or of another network with these layers."""
        if network is None:
            return Evaluator(self.network, self.layers, token_ids, bank=self.evaluator.bank)
        return Evaluator(self._as_searched(network), self.layers, token_ids)

    def confirm_quantized(self, quantized: QuantizedModel) -> Evaluation:
        """Score a quantised model on every sentence in FP32.

        Raises:
            NotFiniteError: an output is not finite.
        """
        return self.confirm_network(quantized.decoded(self.network))

    def confirm_network(self, network: nn.Module) -> Evaluation:
        """Score another network with these layers on every sentence in FP32, on its device.

        Raises:
            NotFiniteError: an output is not finite.
        """
        return self._evaluate(self.evaluator_on(self.token_ids, network), uniform(self.layers, FP32_WIDTH))

    def _as_searched(self, network: nn.Module) -> nn.Module:
        """Make a network see pairs as the searched one does, and return it."""
        if types_of(self.network, self.token_ids) is not None:
            follow_separators(network, self.classifier.tokenizer.sep_token_id)
        return network

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
    options: DataOptions = ALL_DEFAULT,
    metric: MetricName | Literal["auto"] = "auto",
    sized: Callable[[Classifier, Footprint], Footprint] = lambda classifier, footprint: footprint,
) -> Problem:
    """Load a model and validation sentences and score the FP32 model on them.

    Args:
        model: a local directory, a hub name, or ``miniature``.
        data: a file, a directory or a hub data set, as for ``load_sentences``, or ``miniature``.
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
        options: what to read of the data, and how much. A holdout set is drawn before validation sentences are left
            out, and is cut to as many.
        metric: the task's; ``auto`` for that of the options' task, else the usual one of the model's head.
        sized: called with the model and its footprint before anything is scored or calibrated. It may add sizes to the
            footprint, and may refuse it by an InputError.

    Raises:
        InputError: there is no such device, or no place for the cache.
        InputError: the model or the sentences cannot be used; see ``load_classifier`` and ``load_sentences``.
        InputError: the labels are not the model's, or it is unknown which is which; see ``objectives.model_labels``.
        InputError: the FP32 model's metric is no better than chance, which probably means reversed labels.
        InputError: the metric does not fit the model's head.
    """
    if confirm == AUTO:
        confirm = MINIATURE if data == MINIATURE else NONE
    model_source = str(SHIPPED.model) if model == MINIATURE else model
    data_source = source_of(data)
    confirm_source = str(SHIPPED.held_out) if confirm == MINIATURE else confirm
    # Before anything is loaded, because there may be no place for it.
    cache = cache_directory() if quantizer == "calibrated" or bank_in_files else Path()
    report_progress(f"loading {model}")
    classifier = replace(load_classifier(model_source), max_length=options.max_length)
    scored = load_scored(data_source, confirm_source, options, classifier.label_names, head_of(classifier.model).kind)
    sentences = scored.sentences
    network = classifier.model
    config: Any = network.config
    decided = "" if config.problem_type else ", as transformers decides where its config does not say"
    if config.problem_type is None and sentences.labels.ndim == 2 and config.num_labels > 1:
        config.problem_type = "multi_label_classification"  # as transformers decides
    head = head_of(network)
    metric = metric_of(head, metric, options.metric)
    tokens = classifier.encode(sentences.texts)
    token_ids = tokens.ids
    if tokens.types is not None:
        follow_separators(network, classifier.tokenizer.sep_token_id)
    layers = find_layers(network)
    if unsearched := footprint_of(network).unsearched:
        report_progress(f"not searched: {unsearched}")
    loaded_quantizer = load_quantizer(quantizer, classifier, data_source, group_size, options)
    identity = fingerprint(network, token_ids, sentences.labels, loaded_quantizer.identity)
    if scored.holdout is not None:
        holdout_ids = classifier.encode(scored.holdout.texts).ids
        identity["confirmation"] = sentences_fingerprint(holdout_ids, scored.holdout.labels)
    fp32_log_odds = known_scores(identity)
    footprint = sized(classifier, footprint_of(network, loaded_quantizer.scheme))
    network.to(_parse_device(device))  # type: ignore[arg-type]
    if fp32_log_odds is None:
        report_progress(f"scoring the FP32 model on {len(sentences.texts)} sentences")
        # This evaluator is dropped again: it finds faults before minutes of calibration, which need its memory.
        fp32_log_odds = Evaluator(network, layers, token_ids).fp32_log_odds()
    if not np.isfinite(fp32_log_odds).all():
        raise InputError(f"{model}: the FP32 model's scores are not finite; its weights are damaged, get them again")
    order = scored.order
    if order is None:
        order = _order_by_scores(sentences, head, fp32_log_odds, classifier, report_progress)
    labels = fitting_labels(reordered(sentences.labels, order), head, data)
    if head.kind == "numbers":
        head = Numbers.of(fp32_log_odds)
    label_names = names_of_outputs(sentences.names, order, classifier.label_names)
    definition = metric_definition(metric, head, label_names)
    report_progress(f"the model predicts {head.description}{decided}; scored by {definition}")
    fp32 = score(fp32_log_odds, labels, fp32_log_odds, head, metric)
    if fp32.metric <= chance_level(metric, head, labels):
        labelled = f", with {matching(sentences.names, order)}" if order else ""
        mistake = (
            "Its labels are probably in another order: correct id2label and label2id in its config.json"
            if order
            else "It probably predicts other numbers: choose their --label-column"
        )
        raise InputError(
            f"{model}: its FP32 {METRIC_NAMES[metric]} on {data} is {fp32.metric:.3f}, no better than chance{labelled}"
            f". {mistake}. Or it was never fine-tuned: run `bitfront finetune`"
        )
    model_id = identity["model"]
    bank = make_bank(loaded_quantizer, network, layers, model_id, cache, report_progress, bank_in_files)
    evaluator = Evaluator(network, layers, token_ids, bank=bank)
    problem = Problem(
        model=model,
        data=data,
        layers=layers,
        footprint=footprint,
        labels=labels,
        in_domain=sentences.in_domain,
        fp32_log_odds=fp32_log_odds,
        fp32=fp32,
        fingerprint=identity,
        classifier=classifier,
        token_ids=token_ids,
        evaluator=evaluator,
        search_evaluator=evaluator,
        holdout=None
        if scored.holdout is None
        else Holdout(
            fitting_labels(reordered(scored.holdout.labels, order), head, f"--confirm {confirm}"),
            scored.holdout.in_domain,
            holdout_ids,
            confirm,
        ),
        options=options,
        n_available=scored.n_available,
        head=head,
        metric=metric,
        label_names=label_names,
        paired=isinstance(sentences.texts[0], tuple),
    )
    return problem.searching_in(precision)


def source_of(data: str) -> str:
    """Return where the sentences of ``Problem.data`` lie: the embedded ones have a directory too."""
    return str(SHIPPED.data) if data == MINIATURE else data


def _order_by_scores(
    sentences: Sentences,
    head: Head,
    fp32_log_odds: LogOdds,
    classifier: Classifier,
    report_progress: Callable[[str], None],
) -> list[int]:
    try:
        order = order_by_scores(
            head.predictions(fp32_log_odds), sentences.labels, sentences.names, classifier.label_names
        )
    except InputError as error:
        raise InputError(f"{classifier.source} on {sentences.source}: {error}") from None
    report_progress(f"labels in the order that fits the FP32 model's scores: {matching(sentences.names, order)}")
    return order


def _parse_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu, or install torch built for CUDA")
    return torch.device(name)
