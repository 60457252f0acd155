"""The head of a model's config, or of a study's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from objectives.errors import InputError
from objectives.heads.base import Head, HeadKind
from objectives.heads.classes import TWO_CLASSES, Classes
from objectives.heads.numbers import Numbers
from objectives.heads.yes_no_labels import YesNoLabels

if TYPE_CHECKING:  # reading a run loads no torch
    from torch import nn

_KINDS: dict[str, type[Head]] = {"classes": Classes, "labels": YesNoLabels, "numbers": Numbers}
PROBLEM_TYPES: dict[HeadKind, str] = {
    "classes": "single_label_classification",
    "labels": "multi_label_classification",
    "numbers": "regression",
}
"""As the configs of ``transformers`` name them."""


def head_of_record(record: Mapping[str, Any] | None) -> Head:
    """Return the head that :meth:`Head.record` recorded; older studies have none and are of two classes."""
    if record is None:
        return TWO_CLASSES
    settings = {key: value for key, value in record.items() if key != "kind"}
    if "variances" in settings:
        settings["variances"] = tuple(settings["variances"])
    return _KINDS[record["kind"]](**settings)


def head_of(model: nn.Module) -> Head:
    """Return the head of a ``transformers`` sequence classifier; see :func:`head_of_config`."""
    return head_of_config(model.config)


def head_of_config(config: Any) -> Head:
    """Return the head of a ``transformers`` config, by its ``problem_type`` and ``num_labels``.

    A config that does not say is decided as ``transformers`` does for whole-number labels: one label is a number, more
    are classes. Numbers have no variances yet.

    Raises:
        InputError: the config's problem type is unknown, or one class is no choice.
    """
    n_logits = int(config.num_labels)
    problem_type = config.problem_type or ("regression" if n_logits == 1 else "single_label_classification")
    kind = next((kind for kind, name in PROBLEM_TYPES.items() if name == problem_type), None)
    if kind is None or (kind == "classes" and n_logits < 2):
        raise InputError(
            f"its config.json has problem_type {problem_type!r} with {n_logits} labels; it must be one of "
            f"{', '.join(PROBLEM_TYPES.values())}, and classes must be two or more"
        )
    return head_of_kind(kind, n_logits)


def head_of_kind(kind: HeadKind, n_logits: int) -> Head:
    """Return the head of so many classes, yes/no labels or numbers; numbers have no variances yet."""
    return Classes(n_logits - 1) if kind == "classes" else _KINDS[kind](n_logits)
