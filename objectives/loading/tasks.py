"""What to read of a data set: GLUE's tasks by name, or the columns and splits that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from objectives.errors import InputError
from objectives.heads import HeadKind
from objectives.loading import AUTO, NONE
from objectives.metrics import MetricName

Split = Literal["train", "validation"]
TaskName = Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]

GLUE = ("nyu-mll/glue", "glue")
"""Names of GLUE on the hub."""


@dataclass(frozen=True)
class Task:
    """One of GLUE's tasks (Wang et al., ICLR 2019).

    Attributes:
        folder: its folder in the archive that GLUE's authors publish.
        metric: its metric.
        label_names: the names of labels 0, 1, ...; empty if labels are numbers.
        validation: the splits to validate on; the first is the default.
    """

    folder: str
    metric: MetricName
    label_names: tuple[str, ...]
    validation: tuple[str, ...] = ("validation",)

    @property
    def kind(self) -> HeadKind:
        """What its labels are."""
        return "classes" if self.label_names else "numbers"


TASKS: Mapping[str, Task] = {
    "cola": Task("CoLA", "mcc", ("unacceptable", "acceptable")),
    "sst2": Task("SST-2", "accuracy", ("negative", "positive")),
    "mrpc": Task("MRPC", "f1", ("not_equivalent", "equivalent")),
    "stsb": Task("STS-B", "pearson", ()),
    "qqp": Task("QQP", "f1", ("not_duplicate", "duplicate")),
    "mnli": Task(
        "MNLI", "accuracy", ("entailment", "neutral", "contradiction"), ("validation_matched", "validation_mismatched")
    ),
    "qnli": Task("QNLI", "accuracy", ("entailment", "not_entailment")),
    "rte": Task("RTE", "accuracy", ("entailment", "not_entailment")),
    "wnli": Task("WNLI", "accuracy", ("not_entailment", "entailment")),
}
assert set(TASKS) == set(get_args(TaskName))

# GLUE's archive has names of its own: "#1 String" and "Quality" (MRPC), gold_label (MNLI), is_duplicate (QQP).
_PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence"), ("question1", "question2")),
    *(("text1", "text2"), ("#1 String", "#2 String")),
)
_SPLITS: Mapping[Split, tuple[str, ...]] = {"train": ("train",), "validation": ("validation", "dev", "valid", "val")}
_SINGLE = ("sentence", "text", "texts", "sentences")
LABEL_COLUMNS = ("label", "labels", "score", "scores", "gold_label", "is_duplicate", "Quality")
"""The usual names of the column of labels, the likeliest first."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that hold texts (one, or two for pairs) and labels (several for several outputs)."""

    text: tuple[str, ...]
    label: tuple[str, ...]


@dataclass(frozen=True)
class DataOptions:
    """What to read of a data set, and how much; each default leaves it to the data.

    Attributes:
        task: a key of ``TASKS``, or none.
        text_column: one column, or two for pairs; empty for the usual names.
        label_column: one column, or one for each yes/no label or number; empty for the usual names.
        train_split: the name of the training split; auto for the usual one.
        validation_split: the name of the validation split; auto for the usual one.
        max_length: the most tokens of an input, which is cut; 0 for the model's limit.
        max_eval_samples: the most validation sentences; 0 for all.
        calibration: a file of texts that takes the place of the training sentences, or none.
    """

    task: TaskName | Literal["none"] = NONE
    text_column: tuple[str, ...] = ()
    label_column: tuple[str, ...] = ()
    train_split: str = AUTO
    validation_split: str = AUTO
    max_length: int = 0
    max_eval_samples: int = 0
    calibration: str = NONE

    @property
    def metric(self) -> MetricName | None:
        """The task's metric; None without a task."""
        return None if self.task == NONE else TASKS[self.task].metric

    def split_names(self, split: Split) -> tuple[str, ...]:
        """Return the names that a split may have, the likeliest first."""
        given = self.train_split if split == "train" else self.validation_split
        usual = TASKS[self.task].validation[:1] if self.task != NONE and split == "validation" else ()
        names = (*usual, *_SPLITS[split]) if given == AUTO else (given,)
        # GLUE's archive calls validation dev.
        return (*names, *(name.replace("validation", "dev") for name in names if name.startswith("validation_")))

    def columns(self, available: Sequence[str], labelled: bool = True) -> Columns:
        """Choose among the columns of a table.

        Args:
            available: their names.
            labelled: whether labels are needed.

        Raises:
            InputError: a column that is needed is not there; the message is without the table's name.
        """
        text = self.text_column or _usual_texts(available)
        label = self.label_column or tuple(name for name in LABEL_COLUMNS if name in available)[:1]
        named = (*self.text_column, *(self.label_column if labelled else ()))
        if missing := [name for name in named if name not in available]:
            fault = f"there is no column {', '.join(map(repr, missing))}"
        elif not text or (labelled and not label):
            fault = "columns 'sentence' and 'label', or others with usual names, are needed"
        else:
            return Columns(text, label if labelled else ())
        options = "--text-column (twice for pairs)" + (" and --label-column" if labelled else "")
        raise InputError(
            f"{fault}, the columns are {', '.join(map(repr, available))}; name the right ones by {options}"
        )


ALL_DEFAULT = DataOptions()


def _usual_texts(available: Sequence[str]) -> tuple[str, ...]:
    pair = next((pair for pair in _PAIRS if set(pair) <= set(available)), ())
    return pair or tuple(name for name in _SINGLE if name in available)[:1]
