from collections import Counter
from math import floor

import pytest
from optuna.storages import InMemoryStorage

from objectives.layers import BitMap
from objectives.packing.footprint import SizeAxis
from objectives.problem import Problem
from search.allocation.baselines import knapsack_maps, uniform_maps
from search.allocation.constraint import SizeConstraint
from search.allocation.knapsack import Choice, Sizes, layer_sizes, to_bit_map
from search.samplers import guided
from search.samplers.guided import GuidedSampler
from search.samplers.local_search import search_locally
from search.samplers.surrogate import Surrogate
from search.study.study import open_study
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
