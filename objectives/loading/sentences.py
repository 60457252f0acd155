"""Load and check labelled sentences and pairs: from a file, a directory or the Hugging Face hub."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError, all_faults
from objectives.files import user_path
from objectives.heads import HeadKind
from objectives.loading import NONE
from objectives.loading.data_sets import LOCAL_DATA, is_saved, read_data_set, read_saved
from objectives.loading.hub import hub_snapshot, local_directory, refuse_lfs_pointers
from objectives.loading.labels import BINARY, read_labels
from objectives.loading.local_files import files_of_split, read_file
from objectives.loading.tables import Rows, decode_lines, read_content, text_faults
from objectives.loading.tasks import ALL_DEFAULT, GLUE, TASKS, DataOptions, Split
from objectives.loading.tokenization import Text
from objectives.model_labels import LabelArray

_IN_DOMAIN = {"in_domain_train.tsv": True, "in_domain_dev.tsv": True, "out_of_domain_dev.tsv": False}
_COLA_FILES: dict[Split, tuple[str, ...]] = {
    "train": ("in_domain_train.tsv",),
    "validation": ("in_domain_dev.tsv", "out_of_domain_dev.tsv"),
}
# GLUE keeps the order of CoLA's files: `train` is in_domain_train, and `validation` is in_domain_dev followed by
# out_of_domain_dev. Only a split of exactly this size gets domains.
_GLUE_IN_DOMAIN: dict[Split, tuple[int, int]] = {"train": (8551, 0), "validation": (527, 516)}
_DATA_FILES = ("README.md", "*.parquet", "*.csv*", "*.tsv*", "*.json*", "*.arrow")


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences or pairs with their labels, in the order of the source; the arrays are copies and read-only.

    Attributes:
        texts: ``n_sentences`` of them, none blank; pairs have two.
        labels: ``(n_sentences,)`` of int8 for classes 0, 1, ..., at least two of which occur; ``(n_sentences, L)`` of 0
            and 1 for L yes/no labels; ``(n_sentences,)`` or ``(n_sentences, R)`` of float64 for numbers.
        in_domain: ``(n_sentences,)`` of bool, whether the sentence's publication also has training sentences; None if
            the source does not say.
        source: the file, directory or hub name that they were loaded from.
        names: the name of each class or yes/no label; empty for numbers.
        numbered: whether the order of the names is the data's own; else it is the alphabet's.

    Raises:
        InputError: there are no sentences, one is blank, a label is out of its range, or all labels are the same.
        ValueError: an array has another shape or type.
    """

    texts: tuple[Text, ...]
    labels: LabelArray
    in_domain: npt.NDArray[np.bool_] | None
    source: str
    names: tuple[str, ...] = BINARY
    numbered: bool = True

    def __post_init__(self) -> None:
        count = len(self.texts)
        shape, kinds, rule = self.labels.shape, "iu" if self.names else "f", "integers" if self.names else "numbers"
        if shape[:1] != (count,) or len(shape) > 2 or self.labels.dtype.kind not in kinds:
            raise ValueError(f"labels must be ({count},) {rule}, got {shape} of {self.labels.dtype}")
        if self.in_domain is not None and (self.in_domain.shape != (count,) or self.in_domain.dtype != np.bool_):
            raise ValueError(f"in_domain must be ({count},) bool, got {self.in_domain.shape} of {self.in_domain.dtype}")
        if count == 0:
            raise InputError(f"sentences {self.source}: at least one of each label is needed, got no sentences")
        cells = [(row,) for row in self.labels.tolist()]
        kind: HeadKind = "numbers" if not self.names else "labels" if self.labels.ndim == 2 else "classes"
        rows = Rows(f"sentences {self.source}", "sentence", range(count), [*map(_parts, self.texts)], cells)
        labels, _, _ = _checked([rows], kind, self.names, len(self.names))
        if (self.labels == self.labels[0]).all() and kind != "labels":
            needed = "both labels are" if len(self.names) == 2 else "different labels are"
            raise InputError(
                f"sentences {self.source}: {needed} needed, all {count} sentences have "
                f"{self.labels[0]}; add sentences with another label"
            )
        object.__setattr__(self, "labels", labels)
        self.labels.flags.writeable = False
        if self.in_domain is not None:
            object.__setattr__(self, "in_domain", self.in_domain.copy())
            self.in_domain.flags.writeable = False

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def keys(self) -> tuple[str, ...]:
        """Each text, or both of a pair in one, to find copies."""
        return tuple("\x1f".join(_parts(text)) for text in self.texts)

    def select(self, chosen: npt.NDArray[np.bool_], purpose: str) -> Sentences:
        """Return the sentences of a mask ``(n_sentences,)``; ``purpose`` is added to their source, for messages."""
        return replace(
            self,
            texts=tuple(text for text, is_chosen in zip(self.texts, chosen, strict=True) if is_chosen),
            labels=self.labels[chosen],
            in_domain=None if self.in_domain is None else self.in_domain[chosen],
            source=f"{self.source}, {purpose}",
        )


def load_sentences(
    source: str,
    split: Split,
    options: DataOptions = ALL_DEFAULT,
    kind: HeadKind | None = None,
    n_classes: int | None = None,
) -> Sentences:
    """Load one split of a data set.

    Args:
        source: a file (CSV, TSV, JSON lines, Parquet), which is a validation split; a directory in the public CoLA
            layout (the parent of ``raw``, or ``raw`` itself), with files ``train`` and ``validation`` (or ``dev``), or
            of ``save_to_disk``; or a data set on the Hugging Face hub. Without a task ``nyu-mll/glue`` is CoLA.
        split: "train" or "validation"; CoLA's in-domain sentences come before its out-of-domain ones.
        options: the task, and names of splits and columns.
        kind: what labels are; None to go by the task and the data.
        n_classes: the number of classes; None to go by the data.

    Raises:
        InputError: there is no such file or directory, or it lacks the split or a column.
        InputError: rows of a file are faulty; the message lists the faults.
        InputError: the hub cannot be reached, lacks the data set, or requires a login.
    """
    parts = _read(source, split, options, labelled=True)
    task = _task_of(source, options)
    names = TASKS[task].label_names if task else ()
    labels, read_names, texts = _checked(parts, kind or (TASKS[task].kind if task else None), names, n_classes)
    numbered = bool(names or parts[0].names) or all(name.isdigit() for name in read_names)
    inside = _in_domain(parts, task, split)
    return Sentences(texts, labels, inside, source, read_names, numbered)


def load_texts(source: str, options: DataOptions = ALL_DEFAULT) -> tuple[Text, ...]:
    """Return the texts of the file for calibration, if the options have one, else of the training split.

    Raises:
        InputError: as ``load_sentences``; labels are not needed.
    """
    if options.calibration != NONE:
        parts = [read_file(user_path(options.calibration), options, labelled=False)]
    else:
        parts = _read(source, "train", options, labelled=False)
    return _checked_texts(parts)


def training_order(count: int) -> npt.NDArray[np.int64]:
    """Return the fixed random order in which ``count`` training sentences are used, ``(count,)``.

    Calibration takes sentences from the front and the final checks from the back, so that they differ if there are
    enough.
    """
    return np.random.default_rng(0).permutation(count)


def _task_of(source: str, options: DataOptions) -> str:
    if options.task != NONE or source in GLUE:
        return "cola" if options.task == NONE else options.task
    path = Path(source).expanduser()
    return "cola" if path.is_dir() and _raw_of(path) is not None else ""


def _parts(text: Text) -> tuple[str, ...]:
    return text if isinstance(text, tuple) else (text,)


def _read(source: str, split: Split, options: DataOptions, labelled: bool) -> list[Rows]:
    """Return the rows of a split as they are in its files."""
    path = Path(source).expanduser() if source.startswith("~") else Path(source)
    if path.is_file():
        if split == "train":
            raise InputError(
                f"sentences {source}: one file has no training sentences; name a directory with files train and "
                "validation"
            )
        return [read_file(path, options, labelled)]
    directory = local_directory(source, "sentences")
    if directory is None:
        return _read_hub(source, split, options, labelled)
    if options.task != NONE and (directory / TASKS[options.task].folder).is_dir():
        directory /= TASKS[options.task].folder
    raw = _raw_of(directory)
    if raw is not None:
        return _read_cola(raw, source, split)
    try:
        if is_saved(directory):
            return read_saved(directory, split, options, labelled)
    except InputError as error:
        raise InputError(f"sentences {source}: {error}") from error
    names = options.split_names(split)
    if files := files_of_split(directory, names):
        return [read_file(path, options, labelled) for path in files]
    raise InputError(
        f"sentences {source}: has no {split} split; a directory has files {names[0]}.csv, .tsv, .jsonl or .parquet (or "
        f"{' or '.join(names[1:] or ['others with that name'])}), or was written by save_to_disk, or is CoLA's with a "
        f"folder raw/ with {', '.join(_COLA_FILES[split])}, this directory has none"
    )


def _raw_of(directory: Path) -> Path | None:
    """Return the folder with the files of the public CoLA layout; None if the directory has another layout."""
    if (directory / "raw").is_dir():
        return directory / "raw"
    return directory if directory.resolve().name == "raw" else None


def _read_cola(raw: Path, source: str, split: Split) -> list[Rows]:
    paths = [raw / name for name in _COLA_FILES[split]]
    if missing := [path for path in paths if not path.is_file()]:
        raise all_faults(f"sentences {source}", [f"{path} is missing; unpack all of CoLA there" for path in missing])
    refuse_lfs_pointers(f"sentences {source}", paths)
    return [_read_tsv(path) for path in paths]


def _read_tsv(path: Path) -> Rows:
    """Return sentence and label of each line; its columns are source code, label, original mark and sentence."""
    # Quotes are text in these files.
    lines, undecoded = decode_lines(read_content(path))
    if not lines:
        raise InputError(f"{path}: is empty; unpack CoLA again")
    rows: dict[int, list[str]] = {}
    faults = [*undecoded.items()]
    for number, line in enumerate(lines, start=1):
        columns = line.removesuffix("\r").split("\t")
        if number in undecoded:
            continue
        if len(columns) == 4:
            rows[number] = columns
        else:
            faults.append((number, f"line {number}: needs 4 columns separated by tabs, has {len(columns)}"))
    texts, labels = [(row[3],) for row in rows.values()], [(row[1],) for row in rows.values()]
    return Rows(str(path), "line", [*rows], texts, labels, faults=faults)


def _read_hub(source: str, split: Split, options: DataOptions, labelled: bool) -> list[Rows]:
    configuration = _task_of(source, options) if source in GLUE else None
    patterns = ("README.md", f"{configuration}/*") if configuration else _DATA_FILES
    folder = hub_snapshot(source, "dataset", patterns, LOCAL_DATA)
    try:
        return read_data_set(folder, configuration, split, options, labelled)
    except InputError as error:
        raise InputError(f"sentences {source}: {error}") from error


def _in_domain(parts: Sequence[Rows], task: str, split: Split) -> npt.NDArray[np.bool_] | None:
    """Return which sentences of CoLA are in-domain; None for other data."""
    files = [Path(part.subject).name for part in parts]
    counts = [len(part.texts) for part in parts]
    if task == "cola" and all(name in _IN_DOMAIN for name in files):
        return np.repeat([_IN_DOMAIN[name] for name in files], counts)
    inside, outside = _GLUE_IN_DOMAIN[split]
    return np.arange(inside + outside) < inside if task == "cola" and sum(counts) == inside + outside else None


def _checked(
    parts: Sequence[Rows], kind: HeadKind | None, names: Sequence[str], n_classes: int | None
) -> tuple[LabelArray, tuple[str, ...], tuple[Text, ...]]:
    """Return the labels, their names and the texts of rows.

    Raises:
        InputError: rows are faulty; the message lists the faults of the first file with some.
    """
    cells = [cell for part in parts for cell in part.labels]
    labels, read_names, faults = read_labels(cells, kind, names or parts[0].names, n_classes)
    texts = _checked_texts(parts, faults, {*BINARY, *read_names})
    assert labels is not None
    return labels, read_names, texts


def _checked_texts(
    parts: Sequence[Rows], label_faults: Sequence[tuple[int, str]] = (), labels: Collection[str] = BINARY
) -> tuple[Text, ...]:
    """Return the texts of rows; the faults of their labels are by index over all parts."""
    of_labels = defaultdict(list)
    for index, fault in label_faults:
        of_labels[index].append(fault)
    texts: list[Text] = []
    for part in parts:
        faults = [*part.faults]
        for number, row in zip(part.numbers, part.texts, strict=True):
            own = [*of_labels[len(texts)], *text_faults(row, labels)]
            faults += [(number, f"{part.unit} {number}: {fault}") for fault in own]
            texts.append(str(row[0]) if len(row) == 1 else (str(row[0]), str(row[1])))
        if faults:
            raise all_faults(part.subject, [text for _, text in sorted(faults, key=lambda fault: fault[0])])
    return tuple(texts)
