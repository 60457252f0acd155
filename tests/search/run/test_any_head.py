"""A model with any head is searched, judged, reported and distilled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from objectives.metrics import METRIC_NAMES
from objectives.problem import Problem
from objectives.quantization.quantized_model import QuantizedModel
from objectives.training.distillation import Training, TrainingSentences, distil
from results.outcome import Outcome
from results.report.report import write_report
from results.statistics.analysis import analyse
from search.allocation.baselines import first_baselines, knapsack_maps
from search.allocation.constraint import SizeConstraint
from search.allocation.sensitivity import measure
from search.run.worker import make_sampler
from search.study.reading import outcome
from search.study.study import open_study
from tests.objectives.random_models import random_sentences
from tests.search.any_head import HEADS, problem_of_head
from tests.search.studies import run


def searched(problem: Problem, directory: Path, trials: int = 16) -> Outcome:
    """Return a short guided search."""
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    sensitivities = measure(problem, directory)
    assert sensitivities is not None
    assert sensitivities.shifts.shape[2:] == problem.fp32_log_odds.shape
    sampler = make_sampler("guided", problem, constraint, sensitivities, seed=0)
    baselines, note = first_baselines(problem.layers)
    baselines += knapsack_maps(sensitivities.damages, constraint)
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage, problem, "damage", constraint, sampler, baselines, note)
    run(study, problem, trials)
    return outcome(study, "any head")


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", ["three classes", "three labels", "a number"])
@pytest.mark.usefixtures("undrawn")
def test_a_search_ends_in_a_report_in_the_metrics_own_units(tmp_path: Path, name: str) -> None:
    names = ("a", "b", "c")[: 0 if name == "a number" else 3]
    problem = replace(problem_of_head(HEADS[name]), label_names=names, paired=True)
    found = searched(problem, tmp_path)
    assert (found.head, found.metric) == (problem.head, problem.metric)
    assert (found.label_names, found.paired) == (names, True)
    for trial in found.trials:
        evaluation = problem.evaluate(trial.bit_map)
        assert trial.scores == evaluation.scores
        np.testing.assert_array_equal(trial.log_odds, evaluation.log_odds)
    analysis = analyse(found)
    assert analysis.fp32_metric.low < found.fp32.metric < analysis.fp32_metric.high
    for number, intervals in analysis.intervals.items():
        [trial] = [trial for trial in found.trials if trial.number == number]
        assert trial.scores is not None
        assert intervals.metric.low <= trial.scores.metric <= intervals.metric.high <= 1
        assert intervals.damage.low <= trial.scores.damage <= intervals.damage.high
        difference = analysis.against_fp32[number]
        assert difference.difference == pytest.approx(trial.scores.metric - found.fp32.metric)
        assert difference.interval.low <= difference.difference <= difference.interval.high
    write_report(analysis, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "picks.csv")
    assert {found.metric, f"{found.metric}_low", f"{found.metric}_minus_fp32"} <= set(table.columns)
    assert f"{METRIC_NAMES[found.metric]} (95% interval)" in (tmp_path / "run" / "report.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("name", ["three classes", "two numbers"])
def test_distillation_lowers_the_damage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objectives.training.distillation._BATCH_TOKENS", 64)
    for rate in ("_LEVEL_RATE", "_OTHER_RATE"):
        monkeypatch.setattr(f"objectives.training.student.{rate}", 0.003)
    problem = problem_of_head(HEADS[name])
    quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, (2,) * len(problem.layers))
    sentences = TrainingSentences(random_sentences(9, 100), [0])
    distilled = distil(quantized, problem.network, sentences, Training(epochs=3), head=problem.head)
    assert distilled.damage_after < distilled.damage_before
