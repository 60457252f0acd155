"""Labels of a data set, read from a table's cells; :mod:`objectives.model_labels` gives them the model's order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from objectives.heads import HeadKind
from objectives.model_labels import LabelArray, listed, name_key

BINARY = ("0", "1")
"""The names of two classes that have no other names."""

_HIDDEN = "label -1 marks a hidden label, as in GLUE's test split"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # float() takes more: 0_1, other digits
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
        names = list({name_key(name): name for name in spellings}.values())
    by_key = {name_key(name): index for index, name in enumerate(names)}
    limit = len(names) or n_classes or 1 + int(max((number for number in numbers if number is not None), default=1))
    limit = max(limit, 2)
    values: list[int] = []
    faults: list[tuple[int, str]] = []
    for index, (cell, number) in enumerate(zip(cells, numbers, strict=True)):
        value = by_key.get(name_key(cell)) if isinstance(cell, str) and number is None else number
        if value == -1:
            faults.append((index, f"{_HIDDEN}; {_rule(limit)} is needed"))
        elif value is None or value not in range(limit):
            named = "" if all(name.isdigit() for name in names) else f"; or a name, {listed(names)}"
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
