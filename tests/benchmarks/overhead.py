"""What a trial costs besides its evaluation, with 5,000 trials recorded: proposing, writing, and one evaluation.

`python -m tests.benchmarks overhead` fills a journal with 5,000 random maps of bert-base-uncased's 76 layers and
made-up scores on 1,043 sentences, then goes on with the guided sampler. The cost of an evaluation is measured in the
same run, on random weights of bert-base-uncased's shapes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from transformers import BertConfig, BertForSequenceClassification

from objectives.evaluation.evaluator import Evaluator
from objectives.heads import TWO_CLASSES
from objectives.layers import WIDTHS, BitMap
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import Classifier
from objectives.problem import Evaluation, Problem
from objectives.scores import Labels, LogOdds, score
from search.allocation.constraint import SizeConstraint, repair
from search.allocation.sensitivity import Sensitivities
from search.samplers.guided import GuidedSampler
from search.samplers.optuna_samplers import search_space
from search.storage.stores import JournalStore
from search.study.study import claim, open_study, tell, write_widths
from tests.benchmarks.evaluate import cola_tokens
from tests.search.tiny_problem import ask

RECORDED = 5000
MEASURED = 20


def main(arguments: list[str]) -> None:
    """Print the milliseconds and their share of an evaluation."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig()).eval()
    problem = evaluated_problem(model)
    rng = np.random.default_rng(0)
    maps = [tuple(int(width) for width in rng.choice(WIDTHS, size=len(problem.layers))) for _ in range(3)]
    for bit_map in maps:
        problem.evaluate(bit_map)
    evaluation_s = statistics.median(problem.evaluate(bit_map).elapsed_s for bit_map in maps)

    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    sensitivities = made_up_sensitivities(problem)
    with tempfile.TemporaryDirectory() as directory:
        store = JournalStore(Path(directory) / "study.journal")
        sampler = TimedSampler(constraint, sensitivities, problem.fp32_log_odds, seed=0)
        study = open_study(store.backend, problem, "damage", constraint, sampler, [])
        seen: set[BitMap] = set()
        while len(seen) < RECORDED:
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
    print(f"{RECORDED} trials recorded, {torch.get_num_threads()} threads, one evaluation {evaluation_s:.2f} s")
    parts = {
        "proposing a map": sampler.taken_s[-MEASURED:],
        "proposing and beginning a trial": proposing,
        "recording its scores": telling,
    }
    for name, taken in parts.items():
        median_s = statistics.median(taken)
        print(f"  {name:32} {1000 * median_s:6.1f} ms  {median_s / evaluation_s:.2%} of an evaluation")


class TimedSampler(GuidedSampler):
    """Notes the seconds that each proposal takes."""

    def __init__(
        self, constraint: SizeConstraint, sensitivities: Sensitivities, fp32_log_odds: LogOdds, seed: int
    ) -> None:
        """Propose as the guided sampler does."""
        super().__init__(constraint, sensitivities, fp32_log_odds, seed)
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


def made_up_problem(model: BertForSequenceClassification, sentences: int) -> Problem:
    """Return a problem with a model's layers and random labels and log-odds, which scores nothing."""
    rng = np.random.default_rng(0)
    labels: Labels = rng.integers(0, 2, size=sentences).astype(np.int8)
    log_odds: LogOdds = rng.normal(0, 2, sentences).astype(np.float32)
    return Problem(
        model="random",
        data="random",
        layers=find_layers(model),
        footprint=footprint_of(model),
        labels=labels,
        in_domain=None,
        fp32_log_odds=log_odds,
        fp32=score(log_odds, labels, log_odds),
        fingerprint={},
        classifier=cast(Any, None),
        token_ids=(),
        evaluator=cast(Any, None),
        search_evaluator=cast(Any, None),
        head=TWO_CLASSES,
        metric="mcc",
    )


def made_up_sensitivities(problem: Problem) -> Sensitivities:
    """Return shifts that halve with each bit."""
    rng = np.random.default_rng(1)
    shape = (len(problem.layers), len(WIDTHS), len(problem.labels))
    halving = 2.0 ** -np.arange(len(WIDTHS), dtype=np.float64)[:, None]
    shifts = rng.standard_normal(shape) * rng.lognormal(-2, 0.8, (shape[0], 1, 1)) * halving
    return Sensitivities.from_shifts(
        shifts.astype(np.float32), np.ones(shape[:2], dtype=np.bool_), problem.fp32_log_odds
    )


def made_up_evaluation(problem: Problem, sensitivities: Sensitivities, bit_map: BitMap) -> Evaluation:
    """Return what a map scores where the shifts of its layers add up."""
    choice = np.array(bit_map) - WIDTHS[0]
    log_odds = problem.fp32_log_odds + sensitivities.shifts[np.arange(len(bit_map)), choice].sum(axis=0)
    return Evaluation(score(log_odds, problem.labels, problem.fp32_log_odds), log_odds, "fp32", elapsed_s=1.0)
