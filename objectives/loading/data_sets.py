"""Read labelled sentences from the folder of a data set, whose files and settings ``datasets`` finds."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from objectives.errors import InputError, all_faults
from objectives.loading.hub import first_line, quiet_libraries, refuse_lfs_pointers
from objectives.loading.tables import labelling_faults, read_delimited

LOCAL_COLA = "name a local CoLA directory with --data DIR"
# Settings of a card for CSV files that are followed, or that change no text; others would change what is read.
_FOLLOWED_SETTINGS = frozenset(
    {"name", "version", "data_dir", "data_files", "description", "delimiter", "names", "column_names", "features"}
    | {"quoting", "chunksize", "engine", "memory_map", "usecols", "keep_default_na", "na_filter", "float_precision"}
)


def read_data_set(folder: Path, configuration: str | None, split: str) -> list[tuple[Any, Any]]:
    """Return the sentence and the label, 0 or 1 as a number or as text, of each row of a split.

    Files of delimited fields are read by :func:`~objectives.loading.tables.read_delimited`, because the reader of
    ``datasets`` joins rows between quotation marks without a word. ``datasets`` reads all others.

    Args:
        folder: the data set's files and card.
        configuration: its configuration; None for the only one.
        split: "train" or "validation".

    Raises:
        InputError: there is no such split or column, or rows are faulty.
    """
    import datasets  # a slow import that a local directory does not need
    from datasets.packaged_modules.csv.csv import Csv

    with _datasets_faults(split):
        builder = datasets.load_dataset_builder(str(folder), configuration)
        paths = [Path(path) for path in (builder.config.data_files or {}).get(split, ())]
    refuse_lfs_pointers(f"split {split!r}", (path for path in paths if path.is_file()))
    if isinstance(builder, Csv) and paths:
        return [row for path in paths for row in _read_delimited(path, builder, split)]
    with _datasets_faults(split):
        table = datasets.load_dataset(str(folder), configuration, split=split)
    _check_columns(table.column_names, split)
    rows: list[tuple[Any, Any]] = list(zip(table["sentence"], table["label"], strict=True))
    if faults := labelling_faults(rows, "row", first_number=0):
        raise all_faults(f"split {split!r}", faults)
    return rows


@contextmanager
def _datasets_faults(split: str) -> Iterator[None]:
    """Silence the library, and raise its errors as an InputError."""
    import datasets

    bars = datasets.are_progress_bars_disabled()
    try:
        with quiet_libraries():
            datasets.disable_progress_bars()
            yield
    except MemoryError:
        raise
    except Exception as error:  # the files may be anything, and so is the type of the error
        raise InputError(
            f"the data set has no readable split {split!r} ({first_line(error)}); choose another or {LOCAL_COLA}"
        ) from error
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _read_delimited(path: Path, builder: Any, split: str) -> list[tuple[str, str]]:
    """Return sentence and label of each row of one file of a data set whose card may say how to read it.

    Args:
        path: the file.
        builder: the ``Csv`` builder of ``datasets``.
        split: its split, for messages.
    """
    config = builder.config
    given = {setting.name for setting in fields(config) if getattr(config, setting.name) != setting.default}
    if config.header in ("infer", 0 if config.names is None else None):
        given.discard("header")
    if len(config.sep or "") == 1:
        given.discard("sep")
    if unknown := sorted(given - _FOLLOWED_SETTINGS):
        raise InputError(
            f"its card reads {path.name} with {', '.join(unknown)}, which bitfront does not "
            f"follow; save it as Parquet or JSON lines, or {LOCAL_COLA}"
        )
    table = read_delimited(
        path, config.sep, names=config.names, quoted=False if config.quoting == csv.QUOTE_NONE else None
    )
    _check_columns(table.columns, split)
    text_at, label_at = table.columns.index("sentence"), table.columns.index("label")
    names = getattr((builder.info.features or {}).get("label"), "names", ())  # of a ClassLabel
    rows = []
    faults = []
    for row, line in zip(table.rows, table.lines, strict=True):
        label = row[label_at].strip()
        label = str(names.index(label)) if label in names else label.removesuffix(".0")
        rows.append((row[text_at], label))
        faults += labelling_faults(rows[-1:], "line", first_number=line)
    if faults:
        raise all_faults(str(path), faults)
    return rows


def _check_columns(columns: Sequence[str], split: str) -> None:
    if {"sentence", "label"} - {*columns}:
        raise InputError(
            f"columns 'sentence' and 'label' are needed, {split!r} has only "
            f"{', '.join(map(repr, columns))}; choose another data set or {LOCAL_COLA}"
        )
