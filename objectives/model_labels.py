"""Labels as a model takes them: in the order of its outputs, in the type of its head, with their names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.heads import Classes, Head

LabelArray = npt.NDArray[Any]
"""``(n,)`` of int8 for classes, ``(n, L)`` of int8 0 and 1 for yes/no labels, ``(n,)`` or ``(n, R)`` of float64 for
numbers."""

_NO_NAME = re.compile(r"(LABEL_)?[0-9]+")
_MOST_ORDERS = 5  # classes; their orders are tried one by one
_CLEAR = 4.0  # standard errors of a correlation of 0


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
            f"the labels are {listed(names)}, the model's are {listed(model_names)}; choose another model, or "
            "another column with --label-column"
        )
    keys = [name_key(name) for name in model_names]
    if {name_key(name) for name in names} <= set(keys):
        return [keys.index(name_key(name)) for name in names]
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
        InputError: no order fits clearly better than chance, there are too many classes to try all orders, or they are
            yes/no labels.
    """
    n_classes = len(model_names)
    unclear = (
        f"the model's labels are {listed(model_names)} and the data's are {listed(names)}, so their order is unknown"
    )
    remedy = "name the model's labels in its config.json (id2label and label2id) as the data does"
    if n_classes > _MOST_ORDERS or labels.ndim > 1:
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


def names_of_outputs(names: Sequence[str], order: Sequence[int], model_names: Sequence[str]) -> tuple[str, ...]:
    """Return the name of each class or yes/no label in the order of the model's outputs; empty for numbers.

    It is the data's, else the model's, else "": numbers, and the names that ``transformers`` makes up, are none.
    """
    if not names:
        return ()
    named = ["" if _NO_NAME.fullmatch(name) else name for name in model_names]
    for name, at in zip(names, order, strict=True):
        named[at] = named[at] if name.isdigit() else name
    return tuple(named)


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


def fitting_labels(labels: LabelArray, head: Head, subject: str) -> LabelArray:
    """Return labels ``(n_sentences, *head.label_shape)`` in the head's type.

    Args:
        labels: of sentences, whole numbers or numbers.
        head: of the model.
        subject: names the sentences in the error.

    Raises:
        InputError: they are of another shape, or not what the head predicts.
    """
    given = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 and not head.label_shape else labels
    needed = f"the model predicts {head.description}"
    if given.shape[1:] != head.label_shape:
        columns = 1 if given.ndim == 1 else given.shape[1]
        found = "1 label column" if columns == 1 else f"{columns} label columns"
        raise InputError(f"{subject}: has {found}, and {needed}; choose data that fit the model")
    if head.kind == "numbers":
        if not np.isfinite(given).all():
            raise InputError(f"{subject}: {needed}, and a label is not finite; correct the data")
        if (np.ptp(given, axis=0) == 0).any():
            raise InputError(f"{subject}: {needed}, and all labels are equal, so nothing can be scored; use more data")
        return np.asarray(given, dtype=head.label_type)
    largest = head.n_classes - 1 if isinstance(head, Classes) else 1
    wrong = given[(given < 0) | (given > largest) | (given != np.round(given))]
    if wrong.size:
        raise InputError(
            f"{subject}: {needed}, so labels are 0 to {largest}, got {wrong.ravel()[0]}; choose data that fit the model"
        )
    return np.asarray(given, dtype=head.label_type)


def name_key(name: object) -> str:
    """Return a name as it is compared: without case, blanks, hyphens and underlines."""
    return re.sub(r"[\s_-]+", "", str(name)).lower()


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first ten of many."""
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _correlation(table: npt.NDArray[np.int64], order: Sequence[int]) -> float:
    """Return the multi-class MCC (Gorodkin 2004) of a confusion table (data, model) under an order; 0 if undefined."""
    n = float(table.sum())
    hits = float(sum(table[own, other] for own, other in enumerate(order)))
    of_data, of_model = table.sum(axis=1).astype(float), table.sum(axis=0).astype(float)
    covariance = hits * n - float(of_data @ of_model[list(order)])
    spread = (n * n - float(of_data @ of_data)) * (n * n - float(of_model @ of_model))
    return covariance / math.sqrt(spread) if spread > 0 else 0.0
