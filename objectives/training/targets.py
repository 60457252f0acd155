"""What fine-tuning trains on: the labels of both splits, the head that they need, and the unit of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

from objectives.errors import InputError
from objectives.heads import Head, HeadKind, head_of_kind
from objectives.loading.sentences import Sentences, load_sentences
from objectives.loading.tasks import DataOptions
from objectives.model_labels import fitting_labels, order_by_names, reordered

_SHOWN = 10


@dataclass(frozen=True)
class Targets:
    """Sentences to train on and to validate with, whose labels have one meaning, and the head that predicts them.

    ``names`` has the name of each class, yes/no label or number.
    """

    train: Sentences
    validation: Sentences
    head: Head
    names: tuple[str, ...]


def load_targets(
    data: str, options: DataOptions, predict: HeadKind | None, report_progress: Callable[[str], None]
) -> Targets:
    """Load both splits of a data set; the labels to train on decide what is predicted.

    Args:
        data: as for ``load_sentences``.
        options: what to read.
        predict: what labels are; None to go by them.
        report_progress: called with a line on what was decided, and one on labels that training never sees.

    Raises:
        InputError: a split cannot be loaded, or its labels are not what ``predict`` says.
        InputError: all classes, all numbers or all yes/no labels of the sentences to train on are equal.
        InputError: the splits have other labels, or a class is only in the validation split.
    """
    train = load_sentences(data, "train", options, predict)
    kind: HeadKind = "numbers" if not train.names else "classes" if train.labels.ndim == 1 else "labels"
    columns = train.labels.reshape(len(train), -1)
    if predict not in (None, kind):
        raise InputError(f"{data}: --predict {predict} needs one label a sentence, there are {columns.shape[1]}")
    count = len(train.names) or columns.shape[1]
    own_names = options.label_column if kind != "classes" and len(options.label_column) == count else train.names
    names = tuple(f"LABEL_{name}" if name.isdigit() else name for name in own_names or map(str, range(count)))
    head = head_of_kind(kind, count)
    ranges = (f"{name} from {own.min():g} to {own.max():g}" for name, own in zip(names, columns.T, strict=False))
    report_progress(
        f"the model is to predict {head.description}: {_listed(ranges if kind == 'numbers' else names)}"
        + ("" if predict else " (by the labels; --predict chooses otherwise)")
    )
    fitting_labels(train.labels, head, f"{data}, training sentences")
    if kind == "classes":
        absent = np.setdiff1d(np.arange(count), train.labels)
    else:
        absent = np.flatnonzero(np.ptp(columns, axis=0) == 0)
    if len(absent) == count:
        raise InputError(f"{data}: each label is the same for all {len(train)} training sentences; add others")
    if len(absent):
        never = "is the same for all training sentences" if kind == "labels" else "is the label of no training sentence"
        report_progress(f"note: {_listed(names[label] for label in absent)} {never}, so the model cannot learn it")
    return Targets(train, _matched(load_sentences(data, "validation", options, kind), train, data), head, names)


def _matched(validation: Sentences, train: Sentences, data: str) -> Sentences:
    """Return the validation sentences with their labels in the order of those to train on."""
    if validation.labels.shape[1:] != train.labels.shape[1:]:
        own, other = (part.labels[0].size for part in (validation, train))
        raise InputError(
            f"{data}: each validation sentence has {own} labels, each training sentence {other}; give both the same"
        )
    if not train.names:
        return validation
    try:
        order = order_by_names(validation.names, train.names, numbered=True)
    except InputError:
        order = None  # there are more names than in training
    is_class = train.labels.ndim == 1
    if order is None:
        occurring = np.unique(validation.labels) if is_class else range(len(validation.names))
        new = [validation.names[label] for label in occurring if validation.names[label] not in train.names]
    else:
        validation = replace(validation, labels=reordered(validation.labels, order), names=train.names)
        new = [train.names[label] for label in np.setdiff1d(validation.labels, train.labels)] if is_class else []
    if new:
        raise InputError(
            f"{data}: no training sentence has the label {_listed(new)}, which validation sentences have; add training "
            "sentences with it, or leave these out"
        )
    return validation


@dataclass(frozen=True)
class Unit:
    """The unit of numbers: mean and standard deviation of each over the training sentences, ``(n_numbers,)``.

    Models learn numbers of mean 0 and deviation 1: at a fine-tuning's learning rates a head reaches neither thousands
    nor a mean far from 0. The saved head has the unit in its weights, and predicts the numbers as they were given.
    """

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @classmethod
    def of(cls, numbers: npt.NDArray[np.float64]) -> Unit:
        """Return the unit of numbers ``(n_sentences,)`` or ``(n_sentences, n_numbers)``, none of them constant."""
        columns = numbers.reshape(len(numbers), -1)
        return cls(columns.mean(axis=0), columns.std(axis=0))

    def standardised(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return numbers in this unit, in their shape."""
        columns = numbers.reshape(len(numbers), -1)
        return np.asarray(((columns - self.mean) / self.deviation).reshape(numbers.shape))

    @torch.no_grad()
    def put_into(self, model: PreTrainedModel) -> None:
        """Change the head's last layer, so that a model of standardised numbers predicts them as they were given."""
        _, last = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and not name.startswith(f"{model.base_model_prefix}.")
        ][-1]
        mean, deviation = (last.weight.new_tensor(values) for values in (self.mean, self.deviation))
        last.weight.mul_(deviation[:, None])
        last.bias.mul_(deviation).add_(mean)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
