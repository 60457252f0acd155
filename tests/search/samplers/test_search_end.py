"""When the guided sampler says that a search is done."""

from itertools import cycle, islice
from math import inf

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from objectives.problem import Evaluation, Problem
from objectives.scores import score
from search.allocation.baselines import uniform_maps
from search.allocation.constraint import SizeConstraint
from search.allocation.knapsack import to_bit_map, to_choice
from search.samplers import guided
from search.samplers.guided import CONFIDENCE, JUDGED_EVERY, SMALLEST_GAIN, GuidedSampler
from search.study.study import open_study, tell
from search.study.trials import trials_of
from tests.search.studies import guess_of_sensitivities, run
from tests.search.tiny_problem import ask


def test_a_search_is_done_once_few_draws_promise_a_gain(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    sampler = GuidedSampler(constraint, guess_of_sensitivities(problem), problem.fp32_log_odds, seed=0)
    study = open_study(InMemoryStorage(), problem, "damage", constraint, sampler, uniform_maps(problem.layers))
    run(study, problem, JUDGED_EVERY)
    trials = trials_of(study)
    sizes = len(sampler._budgets) // guided._RUNGS_A_STEP
    gains = [list(islice(sampler.possible_gains(trials, size), 5)) for size in range(sizes)]
    assert np.isfinite(gains).all() and (np.array(gains) <= 1.0).all()
    assert list(islice(sampler.possible_gains([], 0), 2)) == [inf, inf]
    assert gains[0] == list(islice(sampler.possible_gains(trials, 0), 5))  # by the seed

    most = round((1 - CONFIDENCE) * guided._DRAWS)
    for above, is_done in ((most, True), (most + 1, False)):
        draws = [SMALLEST_GAIN * 1.1] * above + [SMALLEST_GAIN * 0.9] * (guided._DRAWS - above)
        monkeypatch.setattr(sampler, "possible_gains", lambda trials, size, draws=draws: cycle(draws))
        assert not sampler._nothing_left(trials), "not every budget has had its turn"
        assert sampler._nothing_left(trials * 4) == is_done


def test_a_search_ends_where_layers_add_up_and_goes_on_while_a_clearly_better_map_is_left(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraint = SizeConstraint(problem.footprint, "nominal", 12.8)  # two sizes, which a short search knows well
    sensitivities, fp32 = guess_of_sensitivities(problem), problem.fp32_log_odds

    def searched(trials: int) -> tuple[bool, list[float]]:
        """Return whether a search of so many trials is done, and the damage of its best map at each size."""
        sampler = GuidedSampler(constraint, sensitivities, fp32, seed=0)
        study = open_study(InMemoryStorage(), problem, "damage", constraint, sampler, uniform_maps(problem.layers))
        for _ in range(trials):
            trial, bit_map = ask(study, problem.layers)
            chosen = np.arange(len(bit_map)), to_choice(bit_map)
            outputs = fp32 + sensitivities.shifts[chosen].sum(axis=0)
            scores = score(outputs, problem.labels, fp32, problem.head, problem.metric)
            tell(study, trial, bit_map, Evaluation(scores, outputs, "fp32", elapsed_s=1.0), constraint, "damage")
        found = sampler._no_maps()
        found.update(trials_of(study))
        best = found.best(sampler._budgets[:: guided._RUNGS_A_STEP])
        damages = [sampler.damage_elsewhere(to_bit_map(one.chosen), one.log_odds) for one in best if one]
        return sampler.is_done(study), damages

    done, best = searched(3 * JUDGED_EVERY)
    assert done
    with monkeypatch.context() as careless:
        careless.setattr(
            GuidedSampler, "_propose", lambda sampler, budget, rng: to_bit_map(rng.integers(0, 4, len(problem.layers)))
        )
        done, worse = searched(JUDGED_EVERY)
    assert not done
    assert all(better < 0.9 * damage for better, damage in zip(best, worse, strict=True))
