import numpy as np
import pytest

from objectives.heads import TWO_CLASSES
from search.samplers.common_mode import CommonModeShifts, Floats

FP32 = np.random.default_rng(0).normal(0, 2, 200).astype(np.float32)


@pytest.mark.parametrize("shape", [np.ones_like(FP32), FP32, np.tanh(FP32)])
def test_common_shifts_are_kept_and_their_coefficients_give_the_damage(shape: Floats) -> None:
    """To second order, half the sum of squares is the damage."""
    common = CommonModeShifts(FP32)
    small = np.asarray(0.01 * shape, dtype=np.float32)
    assert common.project(small) == pytest.approx(small, abs=1e-6)
    damage = TWO_CLASSES.divergences(FP32 + small, FP32).mean()
    assert 0.5 * np.square(common.coefficients(small)).sum() == pytest.approx(damage, rel=0.02)


def test_the_rest_of_a_shift_has_no_common_part() -> None:
    common = CommonModeShifts(FP32)
    shifts = np.random.default_rng(1).standard_normal((4, 5, 200)).astype(np.float32)
    rest = shifts - common.project(shifts)
    assert common.project(rest) == pytest.approx(0.0, abs=1e-5)
    assert common.coefficients(shifts).shape == (4, 5, 3)


@pytest.mark.parametrize("log_odds", [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0], [60.0, -60.0, 1.0, 2.0, -3.0]])
def test_equal_or_extreme_log_odds_give_finite_shifts(log_odds: list[float]) -> None:
    common = CommonModeShifts(np.array(log_odds, dtype=np.float32))
    projected = common.project(np.ones(len(log_odds), dtype=np.float32))
    assert np.isfinite(projected).all()
    assert projected == pytest.approx(1.0, abs=1e-2)
