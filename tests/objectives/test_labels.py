"""Labels must be what the model's head predicts."""

from __future__ import annotations

import numpy as np
import pytest

from objectives.errors import InputError
from objectives.heads import TWO_CLASSES, Array, Classes, Head, Numbers, YesNoLabels
from objectives.labels import fitting_labels


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
