"""Metrics against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from objectives.errors import InputError
from objectives.heads import TWO_CLASSES, Array, Classes, Head, Numbers, YesNoLabels
from objectives.loading.tasks import DataOptions, TaskName
from objectives.metrics import MetricName, chance_level, metric_definition, metric_of, metric_value, metric_values

NUMBER = Numbers(1, (1.0,))


def classes(n_classes: int, seed: int, count: int = 300) -> tuple[Array, Array]:
    """Return labels, and predictions that are right two times out of three."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, count).astype(np.int8)
    return labels, np.where(rng.random(count) < 2 / 3, labels, rng.integers(0, n_classes, count)).astype(np.int16)


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_metrics_of_classes_are_scikit_learns(n_classes: int) -> None:
    head = Classes(n_classes - 1)
    labels, predicted = classes(n_classes, n_classes)
    average = "binary" if n_classes == 2 else "macro"
    assert metric_value("mcc", head, predicted, labels) == pytest.approx(
        matthews_corrcoef(labels, predicted), abs=1e-12
    )
    assert metric_value("accuracy", head, predicted, labels) == pytest.approx(accuracy_score(labels, predicted))
    assert metric_value("f1", head, predicted, labels) == pytest.approx(f1_score(labels, predicted, average=average))


def test_a_class_that_never_occurs_counts_as_in_scikit_learn() -> None:
    labels, predicted = np.array([0, 1, 1, 0, 0]), np.array([0, 1, 0, 0, 3])
    assert metric_value("f1", Classes(3), predicted, labels) == pytest.approx(
        f1_score(labels, predicted, average="macro", zero_division=0)
    )
    assert metric_value("mcc", Classes(3), predicted, labels) == pytest.approx(matthews_corrcoef(labels, predicted))


def test_metrics_of_labels_are_means_over_labels() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = (rng.random((200, 4)) < 0.4).astype(np.int8), (rng.random((200, 4)) < 0.5).astype(np.int8)
    head = YesNoLabels(4)
    assert metric_value("f1", head, predicted, labels) == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert metric_value("accuracy", head, predicted, labels) == pytest.approx(np.mean(labels == predicted))
    each = [matthews_corrcoef(labels[:, at], predicted[:, at]) for at in range(4)]
    assert metric_value("mcc", head, predicted, labels) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_correlations_are_scipys(offset: float) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 11, 200) / 2  # ties, as in real ratings
    predicted = (labels + rng.normal(0, 1, 200) + offset).round(1)
    assert metric_value("pearson", NUMBER, predicted, labels) == pytest.approx(pearsonr(predicted, labels)[0], abs=1e-9)
    assert metric_value("spearman", NUMBER, predicted, labels) == pytest.approx(spearmanr(predicted, labels)[0])
    both = np.column_stack([predicted, -predicted]), np.column_stack([labels, labels])
    assert metric_value("pearson", Numbers(2, (1.0, 1.0)), *both) == pytest.approx(0, abs=1e-12)
    assert metric_value("pearson", NUMBER, np.full(200, 3.0), labels) == 0.0


def test_metrics_of_several_maps_are_those_of_each() -> None:
    labels, _ = classes(3, 0)
    maps = np.stack([classes(3, seed)[1] for seed in range(5)])
    each = [metric_value("mcc", Classes(2), own, labels) for own in maps]
    assert metric_values("mcc", Classes(2), maps, labels).tolist() == each


def test_the_chance_level_is_that_of_the_best_constant_answer() -> None:
    labels = np.array([0] * 50 + [1] * 30 + [2] * 20)
    assert chance_level("accuracy", Classes(2), labels) == 0.5
    assert chance_level("mcc", Classes(2), labels) == 0.0
    assert chance_level("f1", TWO_CLASSES, labels[:80]) == pytest.approx(2 * 30 / (30 + 80))
    assert chance_level("accuracy", YesNoLabels(2), np.array([[0, 1], [0, 1], [1, 1]])) == pytest.approx(
        (2 / 3 + 1) / 2
    )
    assert chance_level("pearson", NUMBER, labels) == 0.0


@pytest.mark.parametrize(
    ("name", "fits"), [("mcc", "classes"), ("accuracy", "classes"), ("pearson", "numbers"), ("spearman", "numbers")]
)
def test_a_metric_must_fit_the_head(name: MetricName, fits: str) -> None:
    head, other = (NUMBER, TWO_CLASSES) if fits == "numbers" else (TWO_CLASSES, NUMBER)
    assert metric_of(head, name) == name
    with pytest.raises(InputError, match=f"metric {name}: does not fit a model that predicts"):
        metric_of(other, name)


def test_a_head_has_a_usual_metric() -> None:
    assert [metric_of(head) for head in (TWO_CLASSES, Classes(2), YesNoLabels(3), NUMBER)] == [
        "mcc", "mcc", "f1", "pearson",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        *(("cola", "mcc"), ("sst2", "accuracy"), ("mrpc", "f1"), ("qqp", "f1"), ("stsb", "pearson")),
        *(("mnli", "accuracy"), ("qnli", "accuracy"), ("rte", "accuracy"), ("wnli", "accuracy")),
        ("none", None),
    ],
)
def test_a_task_has_its_own_metric_where_the_head_can_have_it(task: TaskName, metric: MetricName | None) -> None:
    of_task = DataOptions(task).metric
    assert of_task == metric
    fitting, other = (NUMBER, Classes(2)) if task == "stsb" else (Classes(2), NUMBER)
    assert metric_of(fitting, "auto", of_task) == (metric or "mcc")
    assert metric_of(other, "auto", of_task) == ("mcc" if task == "stsb" else "pearson")
    assert metric_of(NUMBER, "spearman", of_task) == "spearman"


@pytest.mark.parametrize(
    ("name", "head", "names", "definition"),
    [
        ("mcc", TWO_CLASSES, ("no", "yes"), "MCC"),
        ("f1", TWO_CLASSES, ("no", "yes"), "F1 of class 1 ('yes')"),
        ("f1", TWO_CLASSES, ("", ""), "F1 of class 1"),
        ("f1", TWO_CLASSES, (), "F1 of class 1"),
        ("f1", Classes(2), ("a", "b", "c"), "F1, the mean over 3 classes (macro)"),
        ("accuracy", Classes(2), (), "accuracy"),
        ("f1", YesNoLabels(1), ("joy",), "F1"),
        ("accuracy", YesNoLabels(3), (), "accuracy, the mean over 3 yes/no labels"),
        ("spearman", Numbers(2), (), "Spearman rho, the mean over 2 numbers"),
        ("pearson", NUMBER, (), "Pearson r"),
    ],
)
def test_a_metrics_definition_says_what_is_positive_or_averaged(
    name: MetricName, head: Head, names: tuple[str, ...], definition: str
) -> None:
    assert metric_definition(name, head, names) == definition
