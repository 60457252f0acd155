"""Labels: what cells mean, and which of a model's outputs they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from objectives.loading.labels import read_labels
from objectives.loading.tasks import TASKS

MNLI = TASKS["mnli"].label_names


@pytest.mark.parametrize(
    ("cells", "kind", "names", "labels", "read_names"),
    [
        ([0, 1, 1], None, (), [0, 1, 1], ("0", "1")),
        (["0", "2.0"], None, (), [0, 2], ("0", "1", "2")),
        (["neutral", "Entailment", "2"], "classes", MNLI, [1, 0, 2], MNLI),
        (["yes", "no", "yes"], None, (), [1, 0, 1], ("no", "yes")),
        (["yes", "No", "no"], None, (), [1, 0, 0], ("no", "yes")),
        (["0.0", "1.0"], None, (), [0, 1], ("0", "1")),
        ([3.0, 1.0], None, (), [3.0, 1.0], ()),
        ([0, -2], None, (), [0.0, -2.0], ()),
        ([0, 1990, 2020], None, (), [0.0, 1990.0, 2020.0], ()),
        ([20, 3], "classes", (), [20, 3], tuple(map(str, range(21)))),
        (["3.5", "4"], None, (), [3.5, 4.0], ()),
        ([3, 4], "numbers", (), [3.0, 4.0], ()),
        ([[0, 1, 1], [1, 0, 0]], None, (), [[0, 1, 1], [1, 0, 0]], ("0", "1", "2")),
    ],
)
def test_cells_are_read_by_their_kind(cells: Any, kind: Any, names: Any, labels: Any, read_names: Any) -> None:
    array, found, faults = read_labels([(cell,) for cell in cells], kind, names)
    assert not faults
    assert array is not None
    assert (array.tolist(), found) == (labels, read_names)
    assert array.dtype == (np.float64 if not read_names else np.int8)


def test_several_columns_are_yes_no_labels_or_numbers() -> None:
    array, names, _ = read_labels([(0, "1"), (1, 0)], None, ())
    assert array is not None and (array.tolist(), names) == ([[0, 1], [1, 0]], ("0", "1"))
    array, names, _ = read_labels([(0, "1"), (1, 0)], "classes", ())
    assert array is not None and array.tolist() == [[0, 1], [1, 0]]
    array, names, _ = read_labels([(0.5, "1"), (1, 0)], None, ())
    assert array is not None and (array.tolist(), names) == ([[0.5, 1], [1, 0]], ())
    array, names, _ = read_labels([(3, 1), (1, 7)], None, ("size", "cost"))
    assert array is not None and (array.tolist(), names) == ([[3, 1], [1, 7]], ())
    _, _, faults = read_labels([(3, 1), (1, 0)], None, ())  # a slip among yes/no labels
    assert faults == [(0, "label must be 0 or 1, got 3")]
    array, names, _ = read_labels([(0, 1), (1, 0)], "classes", ("mild", "hot"))  # no choice of one
    assert array is not None and (array.tolist(), names) == ([[0, 1], [1, 0]], ("mild", "hot"))


@pytest.mark.parametrize(
    ("cells", "kind", "names", "fault"),
    [
        ([(0,), (-1,)], "classes", (), (1, "label -1 marks a hidden label, as in GLUE's test split; 0 or 1 is needed")),
        ([(0,), (True,)], "classes", (), (1, "label must be 0 or 1, got True")),
        ([("no",), ("",)], "classes", (), (1, "label must be 0 or 1, got ''; or a name, 'no'")),
        (
            [(3,), (0,)],
            "classes",
            MNLI,
            (0, "label must be 0 to 2, got 3; or a name, 'entailment', 'neutral', 'contradi"),
        ),
        ([("0",), ("0_1",)], "classes", (), (1, "label must be 0 or 1, got '0_1'")),
        ([("0",), ("01",)], "classes", (), (1, "label must be 0 or 1, got '01'")),
        ([("1.5",), ("high",)], "numbers", (), (1, "label must be a number, got 'high'")),
        ([([0, 1],), ([1],)], "labels", (), (1, "needs 2 labels as the first row has, has 1")),
        ([([0, 7],)], "labels", (), (0, "label must be 0 or 1, got 7")),
    ],
)
def test_faults_are_by_row(cells: Any, kind: Any, names: Any, fault: tuple[int, str]) -> None:
    labels, _, faults = read_labels(cells, kind, names)
    assert labels is None
    [(row, text)] = faults
    assert row == fault[0]
    assert text.startswith(fault[1])
