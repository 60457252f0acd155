"""The samplers' formulas of any head: equal to those of two classes, and right for more by finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from objectives.heads import TWO_CLASSES, Classes, Head, Numbers, YesNoLabels
from search.allocation.knapsack import allocate
from search.allocation.sensitivity import Sensitivities
from search.samplers.common_mode import CommonModeShifts
from search.samplers.local_search import _derivatives, search_locally
from search.samplers.surrogate import Observations, SurrogateModel
from tests.objectives.stacked import Stacked
from tests.search.synthetic_landscape import SyntheticNetwork

MANY: dict[str, Head] = {
    "three classes": Classes(2),
    "three labels": YesNoLabels(3),
    "two numbers": Numbers(2, (2.0, 0.5)),
}
many = pytest.mark.parametrize("head", MANY.values(), ids=MANY)


def test_two_classes_are_searched_alike_by_the_code_of_many() -> None:
    network = SyntheticNetwork(0)
    plain = network.sensitivities()
    fp32 = network.fp32_log_odds[:, None]
    stacked = Sensitivities.from_shifts(plain.shifts[..., None], plain.measured, fp32, Stacked(1))
    np.testing.assert_allclose(stacked.damages, plain.damages, rtol=1e-6, atol=1e-12)
    observed = network.observe(network.random_maps(20, seed=1))
    start = allocate(plain.damages, network.sizes, budget := int(network.sizes[:, 2].sum()))
    found = []
    for sensitivities, outputs, head in ((plain, network.fp32_log_odds, TWO_CLASSES), (stacked, fp32, Stacked(1))):
        model = SurrogateModel(sensitivities, outputs, 0.4, head)
        surrogate = model.posterior(observed, budget).draw(np.random.default_rng(2), 0.5)
        damage, chosen = search_locally(surrogate, network.sizes, start, budget)
        found.append((damage, surrogate.damage(chosen), model.damage_elsewhere(start, outputs + 0.3), chosen.tolist()))
    assert found[1][:3] == pytest.approx(found[0][:3], rel=1e-4)
    assert found[1][3] == found[0][3]


def outputs_of(head: Head, seed: int, count: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, (count, *head.shape))


@many
def test_the_expansion_is_that_of_finite_differences(head: Head) -> None:
    fp32 = outputs_of(head, 0)
    shift, direction, step = outputs_of(head, 1).ravel(), outputs_of(head, 2).ravel(), 1e-4

    def damage(moved: np.ndarray) -> float:
        return float(head.divergences(fp32 + head.shaped(moved), fp32).mean())

    slope, second, curvature = _derivatives(head, fp32.ravel(), shift)
    ahead, here, behind = (damage(shift + sign * step * direction) for sign in (1, 0, -1))
    assert slope @ direction == pytest.approx((ahead - behind) / (2 * step), rel=1e-4)
    bend = (ahead - 2 * here + behind) / step**2
    assert second @ curvature.mixed(direction) ** 2 >= bend * (1 - 1e-3)  # small pivots are raised to a floor


@many
def test_common_parts_are_orthonormal_in_the_metric_of_the_damage(head: Head) -> None:
    fp32 = outputs_of(head, 0).astype(np.float32)
    common = CommonModeShifts(fp32, head)
    assert common.basis.shape == (fp32.size, 3 * head.n_outputs)
    curvature = head.curvature(head.means(fp32))
    weighted = curvature.mixed(common.basis.T) * np.sqrt(curvature.pivots / len(fp32))
    np.testing.assert_allclose(weighted @ weighted.T, np.eye(len(weighted)), atol=1e-3)
    constant = np.ones(fp32.size, dtype=np.float32)  # moves all sentences alike
    np.testing.assert_allclose(common.project(constant), constant, atol=1e-3)


@many
def test_a_map_that_is_known_is_predicted(head: Head) -> None:
    rng = np.random.default_rng(3)
    fp32 = outputs_of(head, 0).astype(np.float32)
    shifts = (
        rng.normal(size=(6, 7, *fp32.shape)) * 2.0 ** -np.arange(7)[:, None].reshape(7, 1, *(1,) * (fp32.ndim - 1))
    ).astype(np.float32)
    sensitivities = Sensitivities.from_shifts(shifts, np.ones((6, 7), dtype=np.bool_), fp32, head)
    choices = rng.integers(0, 7, size=(10, 6))
    summed = np.array([shifts[np.arange(6), chosen].sum(axis=0).ravel() for chosen in choices])
    observed = Observations(choices, summed, rng.uniform(100, 200, 10))
    surrogate = SurrogateModel(sensitivities, fp32, 0.5, head).posterior(observed, 150.0).draw(rng, 0.0)
    surrogate = surrogate.passing_through(choices[0], summed[0])
    exact = head.divergences(fp32 + head.shaped(summed[0]), fp32).mean()
    assert surrogate.damage(choices[0]) == pytest.approx(exact, rel=1e-4)
