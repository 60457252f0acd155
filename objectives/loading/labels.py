"""Labels of a data set: read from a table's cells, and brought into the order of a model's outputs by their names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.heads import HeadKind

LabelArray = npt.NDArray[Any]
"""``(n,)`` of int8 for classes, ``(n, L)`` of int8 0 and 1 for yes/no labels, ``(n,)`` or ``(n, R)`` of float64 for
numbers."""
BINARY = ("0", "1")
"""The names of two classes that have no other names."""

_HIDDEN = "label -1 marks a hidden label, as in GLUE's test split"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # float() takes more: 0_1, other digits
_MOST_ORDERS = 5  # classes; their orders are tried one by one
_CLEAR = 4.0  # standard errors of a correlation of 0
_MANY_CLASSES, _FEW_ROWS = 20, 10  # more whole numbers than so many, of which each has few rows, are no classes


def read_labels(
    cells: Sequence[tuple[object, ...]],
    kind: HeadKind | None,
    names: Sequence[str],
    n_classes: int | None = None,
) -> tuple[LabelArray | None, tuple[str, ...], list[tuple[int, str]]]:
    """Return the labels of rows, their names, and the faults as the row's index and a text.

    Args:
        cells: ``n_rows`` of the cells of the label columns: numbers, text, or one list.
        kind: what labels are; None to go by the cells. Lists and several columns are yes/no labels. They are numbers
            if one has a fraction, if all are written as ``3.0`` and are not only 0.0 and 1.0, or if each of several
            columns has more than 0 and 1. One column of whole numbers is a number if one is below -1, or if the
            classes would be more than 20 and have gaps or under 10 rows each. All others are classes.
        names: names of the labels, as the data set's card or the task gives them; empty for none.
        n_classes: the number of classes; None for as many as occur.

    Returns:
        The labels, None if there are faults; the name of each class or yes/no label, empty for numbers.
    """
    rows = [_flat(row) for row in cells]
    kind = kind or _kind_of(cells, rows, names)
    if kind == "numbers":
        return _read_numbers(rows)
    if kind == "labels" or any(len(row) > 1 for row in rows):  # several are no choice of one class
        return _read_yes_no(rows, names)
    return _read_classes(rows, names, n_classes)


def order_by_names(names: Sequence[str], model_names: Sequence[str], numbered: bool) -> list[int] | None:
    """Return the model's output of each class or yes/no label of the data; None if only its scores can tell.

    Names decide if the model has those of the data. Else labels without names keep their numbers, and so do two that
    are numbered in the data. The order of three or more differs between models, and so does that of names in the
    alphabet's order.

    Args:
        names: the names of the data's labels, in their order; empty for numbers.
        model_names: the name of each output of the model.
        numbered: whether the data numbers its labels, or its card or task does.

    Raises:
        InputError: the data has classes that the model does not have.
    """
    if len(names) > len(model_names):
        raise InputError(
            f"the labels are {_listed(names)}, the model's are {_listed(model_names)}; choose another model, or "
            "another column with --label-column"
        )
    keys = [_key(name) for name in model_names]
    if {_key(name) for name in names} <= set(keys):
        return [keys.index(_key(name)) for name in names]
    kept = numbered and (len(names) == 2 or all(name.isdigit() for name in names))
    return list(range(len(names))) if kept else None


def order_by_scores(
    predicted: npt.NDArray[np.integer[Any]], labels: LabelArray, names: Sequence[str], model_names: Sequence[str]
) -> list[int]:
    """Return the model's class of each class of the data, by which order the FP32 model's predictions fit best.

    Args:
        predicted: the model's classes, ``(n,)``.
        labels: the data's classes, ``(n,)``.
        names: the names of the data's classes.
        model_names: the names of the model's classes.

    Raises:
        InputError: no order fits clearly better than chance, or there are too many classes to try all orders.
    """
    n_classes = len(model_names)
    unclear = (
        f"the model's labels are {_listed(model_names)} and the data's are {_listed(names)}, so their order is unknown"
    )
    remedy = "name the model's labels in its config.json (id2label and label2id) as the data does"
    if n_classes > _MOST_ORDERS:
        raise InputError(f"{unclear}; {remedy}")
    table = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(table, (labels, predicted), 1)  # rows are the data's
    orders = list(permutations(range(n_classes), len(names)))
    scores = [_correlation(table[: len(names), :], order) for order in orders]
    best = int(np.argmax(scores))
    if scores[best] * math.sqrt(labels.size) < _CLEAR:
        tried = "; ".join(
            f"{matching(names, orders[index])}: {scores[index]:.3f}" for index in np.argsort(scores)[::-1][:6]
        )
        raise InputError(f"{unclear}, and no order's correlation (MCC) is clearly above chance ({tried}); {remedy}")
    return list(orders[best])


def matching(names: Sequence[str], order: Sequence[int]) -> str:
    """Return for people which of the model's classes each of the data's is."""
    return ", ".join(f"{name!r} as class {at}" for name, at in zip(names, order, strict=True))


def reordered(labels: LabelArray, order: Sequence[int]) -> LabelArray:
    """Return labels with class or column ``order[i]`` in place of i; labels without an order are numbers."""
    if not order:
        return labels
    if labels.ndim == 1:
        return np.asarray(order, dtype=labels.dtype)[labels]
    return labels[:, np.argsort(order)]


def _correlation(table: npt.NDArray[np.int64], order: Sequence[int]) -> float:
    """Return the multi-class MCC (Gorodkin 2004) of a confusion table (data, model) under an order; 0 if undefined."""
    n = float(table.sum())
    hits = float(sum(table[own, other] for own, other in enumerate(order)))
    of_data, of_model = table.sum(axis=1).astype(float), table.sum(axis=0).astype(float)
    covariance = hits * n - float(of_data @ of_model[list(order)])
    spread = (n * n - float(of_data @ of_data)) * (n * n - float(of_model @ of_model))
    return covariance / math.sqrt(spread) if spread > 0 else 0.0


def _kind_of(cells: Sequence[tuple[object, ...]], rows: Sequence[tuple[object, ...]], names: Sequence[str]) -> HeadKind:
    numbers = [[_number(cell) for cell in row] for row in rows]
    flat = [(cell, number) for row in zip(rows, numbers, strict=True) for cell, number in zip(*row, strict=True)]
    floats = all(_is_float(cell) for cell, number in flat if number is not None)
    if any(number is not None and (not number.is_integer() or (floats and number not in (0, 1))) for _, number in flat):
        return "numbers"
    if any(isinstance(row[0], (list, tuple)) for row in cells):
        return "labels"
    if any(len(row) > 1 for row in cells):
        beyond = [any(number not in (None, 0, 1) for number in column) for column in zip(*numbers, strict=True)]
        return "numbers" if all(beyond) else "labels"
    occurring = {number for _, number in flat if number is not None}
    if names or not occurring:
        return "classes"
    count = 1 + int(max(occurring))
    sparse = len(occurring) < count or len(rows) < _FEW_ROWS * count
    return "numbers" if min(occurring) < -1 or (count > _MANY_CLASSES and sparse) else "classes"


def _is_float(cell: object) -> bool:
    """Return whether a number is written as no whole one: 3.0."""
    return isinstance(cell, (float, np.floating)) or (isinstance(cell, str) and not cell.lstrip("-").isdigit())


def _flat(row: tuple[object, ...]) -> tuple[object, ...]:
    [first, *others] = row
    return tuple(first) if isinstance(first, (list, tuple, np.ndarray)) and not others else row


def _read_numbers(
    rows: Sequence[tuple[object, ...]],
) -> tuple[LabelArray | None, tuple[str, ...], list[tuple[int, str]]]:
    values = [[_number(cell) for cell in row] for row in rows]
    faults = [
        (index, f"label must be a number, got {cell!r}")
        for index, row in enumerate(rows)
        for cell, value in zip(row, values[index], strict=True)
        if value is None
    ]
    faults += _uneven(rows)
    if faults:
        return None, (), sorted(faults)
    array = np.array(values, dtype=np.float64)
    return (array[:, 0] if array.shape[1:] == (1,) else array), (), []


def _read_yes_no(
    rows: Sequence[tuple[object, ...]], names: Sequence[str]
) -> tuple[LabelArray | None, tuple[str, ...], list[tuple[int, str]]]:
    faults = [
        (index, f"label must be 0 or 1, got {cell!r}")
        for index, row in enumerate(rows)
        for cell in row
        if _number(cell) not in (0, 1)
    ]
    faults += _uneven(rows)
    if faults:
        return None, (), sorted(faults)
    array = np.array([[int(_number(cell) or 0) for cell in row] for row in rows], dtype=np.int8)
    return array, tuple(names) or tuple(map(str, range(array.shape[1]))), []


def _uneven(rows: Sequence[tuple[object, ...]]) -> Iterator[tuple[int, str]]:
    width = len(rows[0]) if rows else 0
    return (
        (index, f"needs {width} labels as the first row has, has {len(row)}")
        for index, row in enumerate(rows)
        if len(row) != width
    )


def _read_classes(
    rows: Sequence[tuple[object, ...]], names: Sequence[str], n_classes: int | None
) -> tuple[LabelArray | None, tuple[str, ...], list[tuple[int, str]]]:
    cells = [row[0] for row in rows]
    numbers = [_number(cell) for cell in cells]
    if not names and all(number is None for number in numbers):  # labels are names, and nobody gave their order
        spellings = sorted({cell.strip() for cell in cells if isinstance(cell, str)} - {""})
        names = list({_key(name): name for name in spellings}.values())
    by_key = {_key(name): index for index, name in enumerate(names)}
    limit = len(names) or n_classes or 1 + int(max((number for number in numbers if number is not None), default=1))
    limit = max(limit, 2)
    values: list[int] = []
    faults: list[tuple[int, str]] = []
    for index, (cell, number) in enumerate(zip(cells, numbers, strict=True)):
        value = by_key.get(_key(cell)) if isinstance(cell, str) and number is None else number
        if value == -1:
            faults.append((index, f"{_HIDDEN}; {_rule(limit)} is needed"))
        elif value is None or value not in range(limit):
            named = "" if all(name.isdigit() for name in names) else f"; or a name, {_listed(names)}"
            faults.append((index, f"label must be {_rule(limit)}, got {cell!r}{named}"))
        else:
            values.append(int(value))
    if faults:
        return None, (), faults
    dtype = np.int8 if limit <= 127 else np.int64
    return np.array(values, dtype=dtype), tuple(names) or tuple(map(str, range(limit))), []


def _rule(limit: int) -> str:
    return "0 or 1" if limit == 2 else f"0 to {limit - 1}"


def _number(cell: object) -> float | None:
    """Return a cell's number; None if it has none, is true or false, or is not finite."""
    if isinstance(cell, (bool, np.bool_)) or not isinstance(cell, (int, float, str, np.integer, np.floating)):
        return None
    if isinstance(cell, str) and not _NUMBER.fullmatch(cell):
        return None
    number = float(cell)
    return number if math.isfinite(number) else None


def _key(name: object) -> str:
    """Return a name as it is compared: without case, blanks, hyphens and underlines."""
    return re.sub(r"[\s_-]+", "", str(name)).lower()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
