"""Load and check labelled sentences: CoLA from a local directory or the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError, all_faults
from objectives.loading.data_sets import LOCAL_COLA, read_data_set
from objectives.loading.hub import hub_snapshot, local_directory, refuse_lfs_pointers
from objectives.loading.tables import decode_lines, labelling_faults, read_content

Split = Literal["train", "validation"]

_IN_DOMAIN = {"in_domain_train.tsv": True, "in_domain_dev.tsv": True, "out_of_domain_dev.tsv": False}
_FILES: dict[Split, tuple[str, ...]] = {
    "train": ("in_domain_train.tsv",),
    "validation": ("in_domain_dev.tsv", "out_of_domain_dev.tsv"),
}
_GLUE = ("nyu-mll/glue", "glue")
# GLUE keeps the order of CoLA's files: `train` is in_domain_train, and `validation` is in_domain_dev followed by
# out_of_domain_dev. Only a split of exactly this size gets domains.
_GLUE_IN_DOMAIN: dict[Split, tuple[int, int]] = {"train": (8551, 0), "validation": (527, 516)}
_GLUE_FILES = ("README.md", "cola/*")
_DATA_FILES = ("README.md", "*.parquet", "*.csv*", "*.tsv*", "*.json*", "*.arrow")


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences with their labels, in the order of the source; the arrays are copies and read-only.

    Attributes:
        texts: ``n_sentences`` of them, none blank.
        labels: ``(n_sentences,)`` of int8, 0 unacceptable and 1 acceptable; both occur.
        in_domain: ``(n_sentences,)`` of bool, whether the sentence's publication also has training sentences; None if
            the source does not say.
        source: the directory or hub name that they were loaded from.

    Raises:
        InputError: there are no sentences, one is blank, a label is not 0 or 1, or only one label occurs.
        ValueError: an array has another shape or type.
    """

    texts: tuple[str, ...]
    labels: npt.NDArray[np.int8]
    in_domain: npt.NDArray[np.bool_] | None
    source: str

    def __post_init__(self) -> None:
        count = len(self.texts)
        if self.labels.shape != (count,) or self.labels.dtype.kind not in "iu":
            raise ValueError(f"labels must be ({count},) integers, got {self.labels.shape} of {self.labels.dtype}")
        if self.in_domain is not None and (self.in_domain.shape != (count,) or self.in_domain.dtype != np.bool_):
            raise ValueError(f"in_domain must be ({count},) bool, got {self.in_domain.shape} of {self.in_domain.dtype}")
        if count == 0:
            raise InputError(f"sentences {self.source}: at least one of each label is needed, got no sentences")
        faults = labelling_faults(zip(self.texts, self.labels.tolist(), strict=True), "sentence", first_number=0)
        if faults:
            raise all_faults(f"sentences {self.source}", faults)
        if len(set(self.labels.tolist())) == 1:
            raise InputError(
                f"sentences {self.source}: both labels are needed, all {count} sentences have "
                f"{self.labels[0]}; add sentences with the other label"
            )
        object.__setattr__(self, "labels", self.labels.astype(np.int8))
        self.labels.flags.writeable = False
        if self.in_domain is not None:
            object.__setattr__(self, "in_domain", self.in_domain.copy())
            self.in_domain.flags.writeable = False

    def __len__(self) -> int:
        return len(self.texts)


def load_sentences(source: str, split: Split) -> Sentences:
    """Load one split of CoLA, or of a similar data set.

    Args:
        source: a directory in the public CoLA layout (the parent of ``raw``, or ``raw`` itself), or a data set on the
            Hugging Face hub. ``nyu-mll/glue`` is read with its configuration ``cola``. Any other needs the columns
            ``sentence`` and ``label``, and is read in full.
        split: "train" or "validation"; in-domain sentences come before out-of-domain ones.

    Raises:
        InputError: there is no such directory, or it lacks the needed files.
        InputError: lines of a file are faulty; the message lists the faults.
        InputError: the hub cannot be reached, lacks the data set, or requires a login.
        InputError: the data set has no such split or columns, or its sentences are not labelled 0 and 1.
    """
    directory = local_directory(source, "sentences")
    return _load_cola(directory, source, split) if directory is not None else _load_hub(source, split)


def training_order(count: int) -> npt.NDArray[np.int64]:
    """Return the fixed random order in which ``count`` training sentences are used, ``(count,)``.

    Calibration takes sentences from the front and the final checks from the back, so that they differ if there are
    enough.
    """
    return np.random.default_rng(0).permutation(count)


def _load_cola(directory: Path, source: str, split: Split) -> Sentences:
    raw = directory / "raw"
    if not raw.is_dir():
        if directory.resolve().name != "raw":
            raise InputError(
                f"sentences {source}: the public CoLA layout has a folder raw/ with {', '.join(_FILES[split])}, this "
                "directory has none; name the directory that CoLA was unpacked into"
            )
        raw = directory
    missing = [name for name in _FILES[split] if not (raw / name).is_file()]
    if missing:
        raise all_faults(
            f"sentences {source}", [f"{raw / name} is missing; unpack all of CoLA there" for name in missing]
        )
    refuse_lfs_pointers(f"sentences {source}", [raw / name for name in _FILES[split]])
    texts: list[str] = []
    labels: list[int] = []
    in_domain: list[bool] = []
    for name in _FILES[split]:
        rows = _read_tsv(raw / name)
        texts += [text for text, _ in rows]
        labels += [label for _, label in rows]
        in_domain += [_IN_DOMAIN[name]] * len(rows)
    return Sentences(tuple(texts), np.array(labels, dtype=np.int8), np.array(in_domain, dtype=np.bool_), source)


def _read_tsv(path: Path) -> list[tuple[str, int]]:
    """Return sentence and label of each line; its columns are source code, label, original mark and sentence."""
    # Quotes are text in these files.
    lines, undecoded = decode_lines(read_content(path))
    rows: list[tuple[str, int]] = []
    faults: list[str] = []
    for number, line in enumerate(lines, start=1):
        if number in undecoded:
            faults.append(undecoded[number])
            continue
        columns = line.removesuffix("\r").split("\t")
        if len(columns) != 4:
            faults.append(f"line {number}: needs 4 columns separated by tabs, has {len(columns)}")
            continue
        row_faults = labelling_faults([(columns[3], columns[1])], "line", first_number=number)
        faults += row_faults
        if not row_faults:
            rows.append((columns[3], int(columns[1])))
    if not lines:
        faults.append("is empty; unpack CoLA again")
    if faults:
        raise all_faults(str(path), faults)
    return rows


def _load_hub(source: str, split: Split) -> Sentences:
    glue = source in _GLUE
    folder = hub_snapshot(source, "dataset", _GLUE_FILES if glue else _DATA_FILES, LOCAL_COLA)
    try:
        rows = read_data_set(folder, "cola" if glue else None, split)
    except InputError as error:
        raise InputError(f"sentences {source}: {error}") from error
    inside, outside = _GLUE_IN_DOMAIN[split]
    is_cola = glue and len(rows) == inside + outside
    return Sentences(
        tuple(text for text, _ in rows),
        np.array([int(label) for _, label in rows], dtype=np.int8),
        np.arange(len(rows)) < inside if is_cola else None,
        source,
    )
