"""Labels in the order of a model's outputs, and in what its head predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from objectives.errors import InputError
from objectives.heads import TWO_CLASSES, Array, Classes, Head, Numbers, YesNoLabels
from objectives.loading.tasks import TASKS
from objectives.model_labels import fitting_labels, names_of_outputs, order_by_names, order_by_scores, reordered

MNLI = TASKS["mnli"].label_names


@pytest.mark.parametrize(
    ("head", "labels", "shape", "kind"),
    [
        (TWO_CLASSES, np.array([0, 1, 1]), (3,), "int8"),
        (Classes(199), np.array([0, 199]), (2,), "int32"),
        (YesNoLabels(2), np.array([[0, 1], [1, 1]]), (2, 2), "int8"),
        (YesNoLabels(1), np.array([[0], [1]]), (2,), "int8"),
        (Numbers(1), np.array([0.5, 2.0]), (2,), "float32"),
        (Numbers(1), np.array([1, 5]), (2,), "float32"),
        (Numbers(2), np.array([[0.5, 1], [2, 3]]), (2, 2), "float32"),
    ],
)
def test_labels_get_the_heads_type(head: Head, labels: Array, shape: tuple[int, ...], kind: str) -> None:
    fitting = fitting_labels(labels, head, "data")
    assert (fitting.shape, str(fitting.dtype)) == (shape, kind)
    assert fitting.ravel().tolist() == labels.ravel().tolist()


@pytest.mark.parametrize(
    ("head", "labels", "reason"),
    [
        (Classes(2), np.array([0, 3]), "predicts 3 classes, so labels are 0 to 2, got 3"),
        (Classes(2), np.array([0.0, 1.5]), "got 1.5"),
        (Classes(2), np.array([[0, 1], [1, 0]]), "has 2 label columns"),
        (YesNoLabels(3), np.array([0, 1]), "has 1 label column, and the model predicts 3 yes/no labels"),
        (YesNoLabels(2), np.array([[0, 1], [2, 1]]), "so labels are 0 to 1, got 2"),
        (Numbers(1), np.array([1.0, np.nan]), "not finite"),
        (Numbers(2), np.array([[1.0, 2.0], [3.0, 2.0]]), "all labels are equal"),
    ],
)
def test_other_labels_are_refused(head: Head, labels: Array, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fitting_labels(labels, head, "data")


@pytest.mark.parametrize(
    ("names", "order", "model_names", "named"),
    [
        (("unacceptable", "acceptable"), [1, 0], ("LABEL_0", "LABEL_1"), ("acceptable", "unacceptable")),
        (("0", "1"), [0, 1], ("negative", "POSITIVE"), ("negative", "POSITIVE")),
        (("0", "1"), [0, 1], ("LABEL_0", "1"), ("", "")),
        (MNLI, [2, 1, 0], ("contradiction", "neutral", "Entailment"), MNLI[::-1]),
        (("no", "yes"), [2, 0], ("LABEL_0", "LABEL_1", "LABEL_2"), ("yes", "", "no")),
        ((), [], ("LABEL_0",), ()),
    ],
)
def test_outputs_are_named_by_the_data_else_by_the_model(
    names: tuple[str, ...], order: list[int], model_names: tuple[str, ...], named: tuple[str, ...]
) -> None:
    assert names_of_outputs(names, order, model_names) == named


@pytest.mark.parametrize(
    ("names", "model_names", "numbered", "order"),
    [
        (MNLI, ("CONTRADICTION", "neutral", "Entailment"), True, [2, 1, 0]),
        (("not_entailment", "entailment"), ("entailment", "not entailment"), False, [1, 0]),
        (("no", "yes"), ("maybe", "no", "yes"), False, [1, 2]),  # no sentence of a sample is "maybe"
        (("0", "1", "2"), ("bad", "fair", "good"), True, [0, 1, 2]),
        (("unacceptable", "acceptable"), ("LABEL_0", "LABEL_1"), True, [0, 1]),
        (("no", "yes"), ("LABEL_0", "LABEL_1"), False, None),
        (MNLI, ("LABEL_0", "LABEL_1", "LABEL_2"), True, None),
        ((), ("LABEL_0",), True, []),
    ],
)
def test_names_decide_and_numbers_stay(names: Any, model_names: Any, numbered: bool, order: list[int] | None) -> None:
    assert order_by_names(names, model_names, numbered) == order


def test_classes_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(InputError, match="the labels are 'entailment', 'neutral', 'contradiction', the model's are"):
        order_by_names(MNLI, ("LABEL_0", "LABEL_1"), True)


def test_scores_decide_between_orders_that_no_name_tells() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300).astype(np.int8)
    order = [2, 0, 1]
    predicted = np.where(random.random(300) < 0.5, np.array(order)[labels], random.integers(0, 3, 300))
    model_names = ("LABEL_0", "LABEL_1", "LABEL_2")
    assert order_by_scores(predicted, labels, MNLI, model_names) == order
    assert reordered(labels, order).tolist() == [order[label] for label in labels]
    with pytest.raises(InputError, match=r"no order's correlation .* is clearly above chance") as caught:
        order_by_scores(random.integers(0, 3, 300), labels, MNLI, model_names)
    assert str(caught.value).count("'entailment' as class") == 6  # all that were tried
    # The oracle of what is printed.
    predicted = np.array([0, 0, 1, 2, 2, 1])
    few = np.array([0, 1, 1, 2, 0, 2], dtype=np.int8)
    with pytest.raises(InputError, match=f"'entailment' as class 0, 'neutral' as class 1, 'contradiction' as class 2: "
                                         f"{matthews_corrcoef(few, predicted):.3f}"):  # fmt: skip
        order_by_scores(predicted, few, MNLI, model_names)


def test_yes_no_labels_that_no_name_tells_are_refused() -> None:
    answers = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.int8)
    with pytest.raises(InputError, match="so their order is unknown; name the model's labels in its config"):
        order_by_scores(answers, answers, ("joy", "anger", "fear"), ("LABEL_0", "LABEL_1", "LABEL_2"))


def test_columns_of_yes_no_labels_are_reordered() -> None:
    assert reordered(np.array([[1, 0, 0], [0, 1, 1]], dtype=np.int8), [2, 0, 1]).tolist() == [[0, 0, 1], [1, 1, 0]]
    assert reordered(np.array([1.5, 2.0]), []).tolist() == [1.5, 2.0]
