import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, matthews_corrcoef

from objectives.errors import NotFiniteError
from objectives.heads import TWO_CLASSES
from objectives.metrics import metric_value
from objectives.scores import Labels, LogOdds, score


def draw(seed: int, n: int = 200) -> tuple[LogOdds, LogOdds, Labels]:
    rng = np.random.default_rng(seed)
    fp32 = rng.normal(0.5, 2, n).astype(np.float32)
    quantised = (fp32 + rng.normal(0, 0.5, n)).astype(np.float32)
    return quantised, fp32, (rng.random(n) < 0.7).astype(np.int8)


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    log_odds, fp32, labels = draw(seed)
    scores = score(log_odds, labels, fp32)
    predicted = (log_odds > 0).astype(int)
    assert scores.metric == pytest.approx(matthews_corrcoef(labels, predicted), abs=1e-12)
    assert scores.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert scores.agreement == pytest.approx(accuracy_score(fp32 > 0, log_odds > 0))
    probabilities = 1 / (1 + np.exp(-log_odds.astype(np.float64)))
    assert scores.cross_entropy == pytest.approx(log_loss(labels, probabilities), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_damage_is_the_mean_kl_divergence_by_its_definition(seed: int) -> None:
    log_odds, fp32, labels = draw(seed)
    total = 0.0
    for q_odds, p_odds in zip(log_odds.tolist(), fp32.tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-p_odds)), 1 / (1 + math.exp(-q_odds))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert score(log_odds, labels, fp32).damage == pytest.approx(total / len(log_odds), rel=1e-9)


def test_damage_of_a_known_pair() -> None:
    # From 3/4 to 1/2: 0.75 log 1.5 + 0.25 log 0.5.
    fp32, log_odds = np.array([np.log(3)], dtype=np.float32), np.zeros(1, dtype=np.float32)
    assert TWO_CLASSES.divergences(log_odds, fp32)[0] == pytest.approx(
        0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6
    )


def test_damage_is_zero_for_the_same_scores_and_finite_for_extreme_ones() -> None:
    extreme = np.array([-1e4, -90, 0, 90, 1e4], dtype=np.float32)
    assert not TWO_CLASSES.divergences(extreme, extreme).any()
    assert TWO_CLASSES.divergences(-extreme, extreme) == pytest.approx([1e4, 90, 0, 90, 1e4])


@pytest.mark.parametrize(
    ("predicted", "labels", "expected"),
    [([1, 1, 0, 0], [1, 1, 0, 0], 1.0), ([0, 0, 1, 1], [1, 1, 0, 0], -1.0), ([1, 1, 1, 1], [1, 1, 0, 0], 0.0),
     ([1, 0, 1, 0], [1, 1, 0, 0], 0.0), ([1, 0, 0, 0], [1, 1, 0, 0], 2 / math.sqrt(12))],
)  # fmt: skip
def test_mcc_of_known_cases(predicted: list[int], labels: list[int], expected: float) -> None:
    assert metric_value(
        "mcc", TWO_CLASSES, np.array(predicted, dtype=np.int8), np.array(labels, dtype=np.int8)
    ) == pytest.approx(expected)


def test_a_tie_is_predicted_as_argmax_does() -> None:
    assert TWO_CLASSES.predictions(np.array([0.0, -0.0, 1e-30, -1e-30], dtype=np.float32)).tolist() == [0, 0, 1, 0]


def test_scores_that_are_not_finite_are_refused() -> None:
    log_odds, fp32, labels = draw(0)
    broken = log_odds.copy()
    broken[[3, 7]] = np.nan, np.inf
    with pytest.raises(NotFiniteError, match="2 of 200 outputs are not finite"):
        score(broken, labels, fp32)
    with pytest.raises(ValueError, match="arrays must have one shape"):
        score(log_odds[:-1], labels, fp32)
