"""Read labelled sentences from the folder of a data set, whose files and settings ``datasets`` finds."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from objectives.errors import InputError
from objectives.loading.hub import first_line, quiet_libraries, refuse_lfs_pointers
from objectives.loading.local_files import named, read_text_table
from objectives.loading.tables import Rows
from objectives.loading.tasks import DataOptions, Split

LOCAL_DATA = "name local sentences with --data DIR"
# Settings of a card for CSV files that are followed, or that change no text; others would change what is read.
_FOLLOWED_SETTINGS = frozenset(
    {"name", "version", "data_dir", "data_files", "description", "delimiter", "names", "column_names", "features"}
    | {"quoting", "chunksize", "engine", "memory_map", "usecols", "keep_default_na", "na_filter", "float_precision"}
)
_SAVED_SPLITS, _SAVED = "dataset_dict.json", "state.json"


def read_data_set(
    folder: Path, configuration: str | None, split: Split, options: DataOptions, labelled: bool = True
) -> list[Rows]:
    """Return the rows of a split of a data set that was downloaded from the hub, file by file.

    Files of delimited fields are read by :func:`~objectives.loading.tables.read_delimited`, because the reader of
    ``datasets`` joins rows between quotation marks without a word. ``datasets`` reads all others.

    Args:
        folder: the data set's files and card.
        configuration: its configuration; None for the only one.
        split: "train" or "validation".
        options: names of the split and of the columns.
        labelled: whether labels are needed.

    Raises:
        InputError: there is no such split or column, or a file is faulty.
    """
    import datasets  # a slow import that local files do not need
    from datasets.packaged_modules.csv.csv import Csv

    names = options.split_names(split)
    with _datasets_faults(names[0]):
        builder = datasets.load_dataset_builder(str(folder), configuration)
    files = builder.config.data_files or {}
    name = next((name for name in names if name in files), names[0])
    paths = [Path(path) for path in files.get(name, ())]
    refuse_lfs_pointers(f"split {name!r}", (path for path in paths if path.is_file()))
    if isinstance(builder, Csv) and paths:
        return [_read_delimited(path, builder, options, labelled) for path in paths]
    with _datasets_faults(name):
        table = datasets.load_dataset(str(folder), configuration, split=name)
    return [_rows_of(table, f"split {name!r}", options, labelled)]


def is_saved(directory: Path) -> bool:
    """Return whether a directory was written by ``save_to_disk`` of ``datasets``."""
    return any((directory / name).is_file() for name in (_SAVED_SPLITS, _SAVED))


def read_saved(directory: Path, split: Split, options: DataOptions, labelled: bool = True) -> list[Rows]:
    """Return the rows of a split of a directory that ``save_to_disk`` wrote; the arguments are as above.

    Raises:
        InputError: there is no such split or column, or the directory is damaged.
    """
    import datasets

    names = options.split_names(split)
    with _datasets_faults(names[0]):
        saved = datasets.load_from_disk(str(directory))
    tables = saved if isinstance(saved, datasets.DatasetDict) else {"validation": saved}
    name = next((name for name in names if name in tables), None)
    if name is None:
        raise InputError(f"has no split {' or '.join(map(repr, names))}, it has {', '.join(map(repr, tables))}")
    return [_rows_of(tables[name], f"split {name!r}", options, labelled)]


def _rows_of(table: Any, subject: str, options: DataOptions, labelled: bool) -> Rows:
    """Return the rows of a ``Dataset``."""
    try:
        chosen = options.columns(table.column_names, labelled)
    except InputError as error:
        raise InputError(f"{subject}: {error}") from None
    texts = list(zip(*(table[name] for name in chosen.text), strict=True))
    labels = list(zip(*(table[name] for name in chosen.label), strict=True)) or [()] * len(texts)
    return Rows(subject, "row", range(len(texts)), texts, *named(labels, table.features, chosen.label))


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
            f"the data set has no readable split {split!r} ({first_line(error)}); choose another or {LOCAL_DATA}"
        ) from error
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _read_delimited(path: Path, builder: Any, options: DataOptions, labelled: bool) -> Rows:
    """Return the rows of one file of a data set whose card may say how to read it.

    Args:
        path: the file.
        builder: the ``Csv`` builder of ``datasets``.
        options: which columns are texts and labels.
        labelled: whether labels are needed.
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
            f"follow; save it as Parquet or JSON lines, or {LOCAL_DATA}"
        )
    return read_text_table(
        path,
        config.sep,
        options,
        labelled,
        names=config.names,
        quoted=False if config.quoting == csv.QUOTE_NONE else None,
        features=builder.info.features,
    )
