"""How damage spreads over the sentences."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from results.statistics.analysis import analyse
from results.statistics.spread import Spread, seen_spread, unseen_spread
from tests.results.synthetic import failed, made_up_outcome, with_unseen


def test_a_spread_is_of_the_sentences() -> None:
    losses = np.arange(1.0, 201.0)
    spread = Spread.of(losses)
    assert (spread.of_99_percent, spread.largest) == (199.0, 200.0)
    assert spread.standard_error == pytest.approx(np.sqrt(201 * 200 / 12) / np.sqrt(200))
    assert isnan(Spread.of(np.ones(1)).standard_error)


def test_each_map_has_the_spread_of_its_own_losses() -> None:
    outcome = made_up_outcome(trials=4)
    trials = (*outcome.trials[:-1], failed(outcome.trials[-1]))
    analysis = analyse(with_unseen(outcome, outcome.trials[:3]))
    for trial in trials[:-1]:
        seen, unseen = seen_spread(analysis, trial), unseen_spread(analysis, trial)
        assert trial.log_odds is not None and seen is not None
        assert seen == Spread.of(outcome.head.divergences(trial.log_odds, outcome.fp32_log_odds))
        assert (unseen is not None) == (trial.number < 3)
        assert unseen is None or unseen.largest >= unseen.of_99_percent > unseen.standard_error
    assert seen_spread(analysis, trials[-1]) is None
