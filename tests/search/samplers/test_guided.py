from collections import Counter
from math import floor

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from objectives.heads import TWO_CLASSES, Classes
from objectives.layers import BitMap
from objectives.packing.footprint import SizeAxis
from objectives.problem import Problem
from search.allocation.baselines import knapsack_maps, uniform_maps
from search.allocation.constraint import SizeConstraint
from search.allocation.knapsack import Choice, Sizes, layer_sizes, to_bit_map
from search.samplers import guided
from search.samplers.guided import GuidedSampler
from search.samplers.local_search import search_locally
from search.samplers.surrogate import Observations, Posterior, Surrogate, SurrogateModel
from search.study.study import open_study
from tests.search.any_head import HEADS, problem_of_head
from tests.search.studies import guess_of_sensitivities, run

N_BUDGETS = 32  # eight knapsack budgets, and three budgets after each of them


def searches(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, trials: int
) -> tuple[set[BitMap], list[BitMap], list[int]]:
    """Return a guided search's baselines, and the start and the budget of so many local searches."""
    starts, budgets = [], []

    def recording(surrogate: Surrogate, sizes: Sizes, start: Choice, budget: int) -> tuple[float, Choice]:
        starts.append(to_bit_map(start))
        budgets.append(budget)
        return search_locally(surrogate, sizes, start, budget)

    monkeypatch.setattr(guided, "search_locally", recording)
    monkeypatch.setattr(guided, "_ATTEMPTS", 1)  # one local search a trial
    monkeypatch.setattr(guided, "_INCUMBENT_SHARE", 1.0)  # from the best map of that very budget
    sensitivities = guess_of_sensitivities(problem)
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    baselines = [*uniform_maps(problem.layers), *knapsack_maps(sensitivities.damages, constraint)]
    sampler = GuidedSampler(constraint, sensitivities, problem.fp32_log_odds, seed=0)
    study = open_study(InMemoryStorage(), problem, "damage", constraint, sampler, baselines)
    run(study, problem, len(study.get_trials(deepcopy=False)) + trials)
    return {baseline.bit_map for baseline in baselines}, starts, budgets


@pytest.mark.parametrize(("axis", "min_compression"), [("packed", None), ("nominal", 1.0)])
def test_budgets_lie_between_the_smallest_map_and_the_largest(
    problem: Problem, axis: SizeAxis, min_compression: float | None
) -> None:
    """Also if only the smallest map meets the constraint, or if every map does."""
    highest = floor(1e4 * problem.footprint.highest_compression(axis)) / 1e4
    constraint = SizeConstraint(problem.footprint, axis, min_compression or highest)
    sampler = GuidedSampler(constraint, guess_of_sensitivities(problem), problem.fp32_log_odds, seed=0)
    sizes, _ = layer_sizes(problem.footprint, axis)
    assert all(sizes[:, 0].sum() <= budget <= sizes[:, -1].sum() for budget in sampler._budgets)
    study = open_study(InMemoryStorage(), problem, "damage", constraint, sampler, [])
    run(study, problem, 1)


def test_all_budgets_have_their_turn(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "_UNBEATEN_SHARE", 0.0)
    baselines, starts, budgets = searches(problem, monkeypatch, 3 * N_BUDGETS)
    counts = Counter(budgets)
    assert len(counts) == N_BUDGETS
    assert set(counts.values()) <= {2, 3, 4}  # a round may have begun with the baselines
    assert not baselines.issuperset(starts)


def test_if_only_unbeaten_budgets_are_drawn_each_search_starts_at_a_baseline(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided, "_UNBEATEN_SHARE", 1.0)
    baselines, starts, _ = searches(problem, monkeypatch, N_BUDGETS)
    assert baselines.issuperset(starts)


def test_parts_of_many_sentences_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of_head(HEADS["three classes"])
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    sensitivities = guess_of_sensitivities(problem)
    monkeypatch.setattr(guided, "_MOST_OUTPUTS", 41)
    monkeypatch.setattr(guided, "_OUTPUTS_A_PART", 40)
    monkeypatch.setattr(guided, "_FEWEST_SENTENCES", 20)
    assert [len(range(60)[part]) for part in guided._parts(60, problem.head)] == [20, 20, 20]  # of 40 outputs
    assert guided._parts(20, TWO_CLASSES) == guided._parts(39, Classes(9)) == [slice(0, None, 1)]
    seen = []
    honest = SurrogateModel.posterior

    def posterior(model: SurrogateModel, observations: Observations, size: float) -> Posterior:
        (part,) = [at for at in range(3) if np.array_equal(model.fp32_log_odds, problem.fp32_log_odds[at::3].ravel())]
        trial = problem.evaluate(to_bit_map(observations.choices[0])).log_odds - problem.fp32_log_odds
        np.testing.assert_array_equal(observations.shifts[0], trial[part::3].ravel())
        np.testing.assert_array_equal(model.sums, sensitivities.shifts[:, :, part::3].reshape(model.sums.shape))
        seen.append(part)
        return honest(model, observations, size)

    monkeypatch.setattr(SurrogateModel, "posterior", posterior)
    maps = []
    for _ in range(2):
        sampler = GuidedSampler(constraint, sensitivities, problem.fp32_log_odds, seed=0, head=problem.head)
        study = open_study(InMemoryStorage(), problem, "damage", constraint, sampler, [])
        maps.append(run(study, problem, 8))
    assert set(seen) == {0, 1, 2}
    assert maps[0] == maps[1]
    assert len(set(maps[0])) == 8
