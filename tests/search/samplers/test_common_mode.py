import numpy as np
import pytest

from objectives.scores import divergences
from search.samplers.common_mode import CommonModeShifts, Floats

FP32 = np.random.default_rng(0).normal(0, 2, 200).astype(np.float32)


@pytest.mark.parametrize("alike", [np.ones_like(FP32), FP32, np.tanh(FP32)])
def test_what_is_common_is_kept_and_weighed(alike: Floats) -> None:
    """Half the sum of squares is the damage, as far as the second order goes."""
    common = CommonModeShifts(FP32)
    small = np.asarray(0.01 * alike, dtype=np.float32)
    assert common.project(small) == pytest.approx(small, abs=1e-6)
    damage = divergences(FP32 + small, FP32).mean()
    assert 0.5 * np.square(common.coefficients(small)).sum() == pytest.approx(damage, rel=0.02)


def test_what_is_each_sentences_own_is_left_out() -> None:
    common = CommonModeShifts(FP32)
    shifts = np.random.default_rng(1).standard_normal((4, 5, 200)).astype(np.float32)
    own = shifts - common.project(shifts)
    assert common.project(own) == pytest.approx(0.0, abs=1e-5)
    assert common.coefficients(shifts).shape == (4, 5, 3)


@pytest.mark.parametrize("log_odds", [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0], [60.0, -60.0, 1.0, 2.0, -3.0]])
def test_sentences_that_are_alike_or_far_decided_make_no_trouble(log_odds: list[float]) -> None:
    common = CommonModeShifts(np.array(log_odds, dtype=np.float32))
    found = common.project(np.ones(len(log_odds), dtype=np.float32))
    assert np.isfinite(found).all()
    assert found == pytest.approx(1.0, abs=1e-2)
