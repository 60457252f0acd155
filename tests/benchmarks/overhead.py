"""What a trial costs besides its evaluation, with 5,000 trials recorded: proposing, writing, and one evaluation.

`python -m tests.benchmarks overhead` fills a journal with 5,000 random maps of bert-base-uncased's 76 layers and
made-up scores on 1,043 sentences, then goes on with the guided sampler. The cost of an evaluation is measured in the
same run, on random weights of bert-base-uncased's shapes.

`overhead TRIALS SENTENCES CLASSES`, such as `overhead 1000 2000 3`, does the same with other numbers, and without the
evaluation.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from transformers import BertConfig, BertForSequenceClassification

from objectives.evaluation.evaluator import Evaluator
from objectives.heads import TWO_CLASSES, Classes
from objectives.layers import WIDTHS, BitMap
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import Classifier
from objectives.metrics import metric_of
from objectives.problem import Evaluation, Problem
from objectives.scores import Labels, LogOdds, score
from search.allocation.constraint import SizeConstraint, repair
from search.allocation.sensitivity import Sensitivities
from search.samplers.guided import GuidedSampler
from search.samplers.optuna_samplers import search_space
from search.storage.stores import JournalStore
from search.study.study import claim, open_study, tell, write_widths
from tests.benchmarks.evaluate import cola_tokens
from tests.objectives.random_models import bert_base_shapes
from tests.search.tiny_problem import ask

RECORDED = 5000
MEASURED = 20
_SCORES_NOTHING = SimpleNamespace(bank=SimpleNamespace(fingerprint=""), precision="fp32")


def main(arguments: list[str]) -> None:
    """Print the milliseconds, and their share of an evaluation unless other numbers are named."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if arguments:
        recorded, sentences, n_classes = map(int, arguments)
        problem, evaluation_s = made_up_problem(bert_base_shapes(), sentences, Classes(n_classes - 1)), None
        scored = f"{sentences} sentences of {problem.head.description}"
    else:
        recorded, problem = RECORDED, evaluated_problem(BertForSequenceClassification(BertConfig()).eval())
        maps = [tuple(int(width) for width in rng.choice(WIDTHS, size=len(problem.layers))) for _ in range(3)]
        for bit_map in maps:
            problem.evaluate(bit_map)
        evaluation_s = statistics.median(problem.evaluate(bit_map).elapsed_s for bit_map in maps)
        scored = f"one evaluation {evaluation_s:.2f} s"

    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    sensitivities = made_up_sensitivities(problem)
    with tempfile.TemporaryDirectory() as directory:
        store = JournalStore(Path(directory) / "study.journal")
        sampler = TimedSampler(constraint, sensitivities, problem.fp32_log_odds, 0, problem.head)
        study = open_study(store.backend, problem, "damage", constraint, sampler, [])
        seen: set[BitMap] = set()
        while len(seen) < recorded:
            narrow = rng.integers(3, 9)
            bit_map = tuple(int(width) for width in rng.integers(2, narrow, size=len(problem.layers)))
            seen.add(repair(bit_map, constraint, seen, rng))
        fill(study, problem, constraint, sorted(seen), sensitivities)
        ask(study, problem.layers)  # reads them all once
        proposing, telling = [], []
        for _ in range(MEASURED):
            started = time.perf_counter()
            trial, bit_map = claim(study, problem.layers)
            with store.together():
                write_widths(trial, problem.layers)
            asked = time.perf_counter()
            tell(study, trial, bit_map, made_up_evaluation(problem, sensitivities, bit_map), constraint, "damage")
            proposing.append(asked - started)
            telling.append(time.perf_counter() - asked)
    print(f"{recorded} trials recorded, {torch.get_num_threads()} threads, {scored}")
    parts = {
        "proposing a map": sampler.taken_s[-MEASURED:],
        "proposing and beginning a trial": proposing,
        "recording its scores": telling,
    }
    for name, taken in parts.items():
        median_s = statistics.median(taken)
        share = f"  {median_s / evaluation_s:.2%} of an evaluation" if evaluation_s else ""
        print(f"  {name:32} {1000 * median_s:6.1f} ms{share}")


class TimedSampler(GuidedSampler):
    """Notes the seconds that each proposal takes."""

    def __init__(self, *arguments: Any) -> None:
        """Propose as the guided sampler does."""
        super().__init__(*arguments)
        self.taken_s: list[float] = []

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a map."""
        started = time.perf_counter()
        proposed = super().sample_relative(study, trial, search_space)
        self.taken_s.append(time.perf_counter() - started)
        return proposed


def fill(
    study: optuna.Study, problem: Problem, constraint: SizeConstraint, maps: list[BitMap], sensitivities: Sensitivities
) -> None:
    """Add finished trials in the form in which a search writes them."""
    template = optuna.create_study(directions=["minimize", "minimize"])
    space = search_space(problem.layers)
    for bit_map in maps:
        widths = dict(zip(space, bit_map, strict=True))
        template.enqueue_trial(widths)
        trial, _ = ask(template, problem.layers)
        tell(template, trial, bit_map, made_up_evaluation(problem, sensitivities, bit_map), constraint, "damage")
    study.add_trials(template.get_trials(deepcopy=False))


def evaluated_problem(model: BertForSequenceClassification) -> Problem:
    """Return a problem on random weights; its scores mean nothing, its cost is real."""
    token_ids = cola_tokens()
    evaluator = Evaluator(model, find_layers(model), token_ids)
    classifier = Classifier(model, cast(Any, None), "random")
    made_up = made_up_problem(model, len(token_ids))
    return replace(made_up, classifier=classifier, token_ids=token_ids, evaluator=evaluator, search_evaluator=evaluator)


def made_up_problem(model: BertForSequenceClassification, sentences: int, head: Classes = TWO_CLASSES) -> Problem:
    """Return a problem with a model's layers and random labels and log-odds, which scores nothing."""
    rng = np.random.default_rng(0)
    labels: Labels = rng.integers(0, head.n_classes, size=sentences).astype(np.int8)
    log_odds: LogOdds = rng.normal(0, 2, (sentences, *head.shape)).astype(np.float32)
    metric = metric_of(head)
    return Problem(
        model="random",
        data="random",
        layers=find_layers(model),
        footprint=footprint_of(model),
        labels=labels,
        in_domain=None,
        fp32_log_odds=log_odds,
        fp32=score(log_odds, labels, log_odds, head, metric),
        fingerprint={},
        classifier=cast(Any, None),
        token_ids=(),
        evaluator=cast(Any, _SCORES_NOTHING),
        search_evaluator=cast(Any, _SCORES_NOTHING),
        head=head,
        metric=metric,
    )


def made_up_sensitivities(problem: Problem) -> Sensitivities:
    """Return shifts that halve with each bit."""
    rng = np.random.default_rng(1)
    effects = len(problem.layers), len(WIDTHS)
    halving = 2.0 ** -np.arange(len(WIDTHS), dtype=np.float64)[:, None]
    shifts = rng.standard_normal((*effects, problem.fp32_log_odds.size))
    shifts = shifts * rng.lognormal(-2, 0.8, (effects[0], 1, 1)) * halving
    return Sensitivities.from_shifts(
        shifts.astype(np.float32).reshape(*effects, *problem.fp32_log_odds.shape),
        np.ones(effects, dtype=np.bool_),
        problem.fp32_log_odds,
        problem.head,
    )


def made_up_evaluation(problem: Problem, sensitivities: Sensitivities, bit_map: BitMap) -> Evaluation:
    """Return what a map scores where the shifts of its layers add up."""
    choice = np.array(bit_map) - WIDTHS[0]
    log_odds = problem.fp32_log_odds + sensitivities.shifts[np.arange(len(bit_map)), choice].sum(axis=0)
    scores = score(log_odds, problem.labels, problem.fp32_log_odds, problem.head, problem.metric)
    return Evaluation(scores, log_odds, "fp32", elapsed_s=1.0)
