"""Read labelled sentences from local files: CSV, TSV, JSON lines and Parquet, by the split that a file's name says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

from objectives.errors import InputError, all_faults
from objectives.loading.hub import first_line, refuse_lfs_pointers
from objectives.loading.tables import Rows, decode_lines, read_content, read_delimited
from objectives.loading.tasks import LABEL_COLUMNS, DataOptions

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = ".parquet"
_ENDINGS = (*_DELIMITERS, *_JSON, _PARQUET)
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")
_COLA_COLUMNS = ("source", "label", "mark", "sentence")


def files_of_split(directory: Path, names: Sequence[str]) -> list[Path]:
    """Return the files of a split, in order: ``train.csv``, or shards as ``data/train-00000-of-00002.parquet``.

    Args:
        directory: where they are; its folder ``data`` is looked into as well.
        names: names that the split may have, the likeliest first.

    Raises:
        InputError: there are files of several formats.
    """
    folders = [folder for folder in (directory, directory / "data") if folder.is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if _ending(path) in _ENDINGS]
    for name in names:
        if chosen := [path for path in files if path.name.split(".")[0].split("-")[0] == name]:
            if len({_ending(path) for path in chosen}) > 1:
                raise InputError(
                    f"sentences {directory}: split {name!r} has files of several formats "
                    f"({', '.join(path.name for path in chosen)}); keep one of them"
                )
            return chosen
    return []


def read_file(path: Path, options: DataOptions, labelled: bool = True) -> Rows:
    """Return the rows of a file, which may be compressed.

    Args:
        path: the file; the end of its name says its format.
        options: which columns are texts and labels.
        labelled: whether labels are needed.

    Raises:
        InputError: it cannot be read, has another format, or lacks a column; the message lists all faulty lines.
    """
    ending = _ending(path)
    if ending not in _ENDINGS:
        raise InputError(f"{path}: a file whose name ends with {', '.join(_ENDINGS)} is needed; rename or convert it")
    refuse_lfs_pointers(f"sentences {path}", [path])
    if ending == _PARQUET:
        return _read_parquet(path, options, labelled)
    if ending in _JSON:
        return _read_json(path, options, labelled)
    # GLUE's CoLA is the only one of its files without names of columns.
    headless = ending == ".tsv" and _is_cola(path)
    return read_text_table(
        path,
        _DELIMITERS[ending],
        options,
        labelled,
        names=_COLA_COLUMNS if headless else None,
        quoted=False if headless else None,
    )


def read_text_table(
    path: Path,
    delimiter: str,
    options: DataOptions,
    labelled: bool = True,
    *,
    names: Sequence[str] | None = None,
    quoted: bool | None = None,
    features: Mapping[str, Any] | None = None,
) -> Rows:
    """Return the rows of a file of delimited fields; see ``read_delimited``. ``features`` are those of ``datasets``.

    Raises:
        InputError: as ``read_delimited``, or a column is missing.
    """
    label = options.label_column or LABEL_COLUMNS
    table = read_delimited(path, delimiter, label=label, names=names, quoted=quoted)
    return _rows(path, "line", table.lines, table.columns, table.rows, options, labelled, features or {})


def _rows(
    path: Path,
    unit: str,
    numbers: Sequence[int],
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    options: DataOptions,
    labelled: bool,
    features: Mapping[str, Any],
    faults: Sequence[tuple[int, str]] = (),
) -> Rows:
    """Return the columns of texts and labels of a file's rows."""
    try:
        chosen = options.columns(columns, labelled)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    text_at, label_at = ([columns.index(name) for name in names] for names in (chosen.text, chosen.label))
    pairs = [(tuple(row[at] for at in text_at), tuple(_stripped(row[at]) for at in label_at)) for row in rows]
    texts, (labels, names) = [texts for texts, _ in pairs], named([cells for _, cells in pairs], features, chosen.label)
    return Rows(str(path), unit, numbers, texts, labels, names, faults)


def _stripped(cell: object) -> object:
    return cell.strip() if isinstance(cell, str) else cell


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in _COMPRESSED), "")


def _is_cola(path: Path) -> bool:
    """Return whether the first line of a tab-separated file is a row of CoLA: source, label, mark, sentence."""
    lines, _ = decode_lines(read_content(path).split(b"\n", 1)[0])
    fields = lines[0].split("\t") if lines else []
    return len(fields) == len(_COLA_COLUMNS) and fields[1] in ("0", "1")


def _read_json(path: Path, options: DataOptions, labelled: bool) -> Rows:
    """Read an object from each line; their keys are the columns."""
    lines, undecoded = decode_lines(read_content(path))
    objects: dict[int, Mapping[str, object]] = {}
    faults = [*undecoded.items()]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append((number, f"line {number}: must be a JSON object, is none ({first_line(error)})"))
            continue
        if isinstance(value, dict):
            objects[number] = value
        else:
            faults.append((number, f"line {number}: must be a JSON object, got a {type(value).__name__}"))
    if not objects:
        raise all_faults(str(path), [text for _, text in faults] or ["is empty; rows are needed"])
    columns = tuple(dict.fromkeys(key for value in objects.values() for key in value))
    rows = ([value.get(name) for name in columns] for value in objects.values())
    return _rows(path, "line", [*objects], columns, rows, options, labelled, {}, faults)


def _read_parquet(path: Path, options: DataOptions, labelled: bool) -> Rows:
    try:
        schema = pyarrow.parquet.read_schema(path)
        chosen = options.columns(schema.names, labelled)
        columns = [*dict.fromkeys((*chosen.text, *chosen.label))]
        table = pyarrow.parquet.read_table(path, columns=columns)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:  # pyarrow's errors are these
        raise InputError(
            f"{path}: cannot be read as Parquet ({first_line(error)}); write or download it again"
        ) from error
    features: Mapping[str, Any] = {}
    if b"huggingface" in (schema.metadata or {}):
        from datasets import Features  # a slow import

        features = Features.from_arrow_schema(schema)
    rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
    return _rows(path, "row", range(table.num_rows), columns, rows, options, labelled, features)


def named(
    cells: Sequence[tuple[object, ...]], features: Mapping[str, Any], columns: Sequence[str]
) -> tuple[Sequence[tuple[object, ...]], tuple[str, ...]]:
    """Return the cells of the label columns, and their names: the columns' if there are several, else the features'.

    ``features`` are those of ``datasets``. A list of the numbers of labels that are yes becomes one of 0 and 1.
    """
    if len(columns) > 1:
        return cells, tuple(columns)
    feature = features.get(columns[0]) if columns else None
    of_list = getattr(feature, "feature", None)
    names = tuple(getattr(of_list or feature, "names", None) or ())
    if of_list is None or not names:
        return cells, names
    return [(_yes_no(cell, len(names)),) for (cell,) in cells], names


def _yes_no(cell: object, n_labels: int) -> object:
    return [int(index in cell) for index in range(n_labels)] if isinstance(cell, list) else cell
