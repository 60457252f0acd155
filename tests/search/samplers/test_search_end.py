"""When the guided sampler says that a search is done."""

from itertools import cycle, islice
from math import inf

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from objectives.problem import Problem
from search.allocation.baselines import uniform_maps
from search.allocation.constraint import SizeConstraint
from search.samplers import guided
from search.samplers.guided import CONFIDENCE, JUDGED_EVERY, SMALLEST_GAIN, GuidedSampler
from search.study.study import open_study
from search.study.trials import trials_of
from tests.search.studies import guess_of_sensitivities, run


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
