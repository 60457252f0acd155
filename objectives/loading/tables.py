"""Read tables in text files: comma-separated and tab-separated values, each by its own rules.

Every row comes with its line, and no line is lost: a quotation mark that joins rows is refused with its line.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pyarrow

from objectives.errors import InputError, all_faults
from objectives.loading.hub import first_line

# What a quoted file is made of: fields without any quotation mark, and fields in marks with the inner ones doubled.
_QUOTED_FILE = re.compile(r'(?:(?:"(?:[^"]|"")*+"|[^"\t\n]*+)(?:\t|\r?\n))*+')
# What the libraries raise for damaged files; pyarrow's are OSErrors and ValueErrors, an encrypted zip a RuntimeError.
_NOT_COMPRESSED = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
        columns: the name of each column.
        rows: ``n_rows`` of as many fields as there are columns.
        lines: ``n_rows``, the 1-based line on which each row begins.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """The texts and labels of the rows of a file or split, as they are in it.

    Attributes:
        subject: the file or split, for messages.
        unit: what is numbered: "line" or "row".
        numbers: ``n_rows``, the number of each.
        texts: ``n_rows`` of one text, or of two for pairs.
        labels: ``n_rows`` of the cells of the label columns; empty cells if labels are not needed.
        names: the names of labels 0, 1, ...; empty if the data does not give them.
        faults: what cannot be read, as the number of its line and a text with it.
    """

    subject: str
    unit: str
    numbers: Sequence[int]
    texts: Sequence[tuple[object, ...]]
    labels: Sequence[tuple[object, ...]]
    names: tuple[str, ...] = ()
    faults: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True)
class _Record:
    """Fields, and their first and last line."""

    fields: list[str]
    first: int
    last: int

    @property
    def place(self) -> str:
        return f"line {self.first}" if self.first == self.last else f"lines {self.first} to {self.last}"


class _QuotationError(Exception):
    """The quotation marks of a file do not fit; the text is the fault with its line."""


def read_delimited(
    path: Path,
    delimiter: str,
    *,
    label: Collection[str] = ("label",),
    names: Sequence[str] | None = None,
    quoted: bool | None = None,
) -> Table:
    """Read a file of delimited fields in UTF-8, which may be compressed (gzip, bzip2, xz, zstd, lz4, zip of one file).

    In quoted files (RFC 4180) a field in quotation marks may hold delimiters, line ends and doubled marks. In others
    a mark is text and each line is a row. A tab-separated file is quoted if each of its fields with a mark is, and
    no mark joins lines that are rows by themselves. Files of other delimiters are always quoted. Blank lines are no
    rows.

    Args:
        path: the file.
        delimiter: one character between two fields.
        label: names of the column whose values tell rows from text, to find rows that a quotation mark joins.
        names: names of the columns; None if the first line has them.
        quoted: whether marks quote; None to go by the delimiter as above.

    Raises:
        InputError: the file cannot be read, is empty or is not UTF-8.
        InputError: a row has another number of fields than there are columns, or a quotation mark is not closed or
            joins rows. The message lists the lines.
    """
    lines, undecoded = decode_lines(read_content(path))
    if undecoded:
        raise all_faults(str(path), [*undecoded.values()])
    try:
        if quoted is None:
            quoted = delimiter != "\t" or _is_quoted(lines, label, names)
        records = list(_quoted(lines, delimiter) if quoted else _plain(lines, delimiter))
    except _QuotationError as error:
        raise InputError(f"{path}: {error}") from None
    if names is None and records:
        names, records = records[0].fields, records[1:]
    if names is None or not records:
        raise InputError(f"{path}: is empty; rows are needed")
    if faults := _faults(records, lines, delimiter, names, label):
        raise all_faults(str(path), faults)
    rows = tuple(tuple(record.fields) for record in records)
    return Table(tuple(names), rows, tuple(record.first for record in records))


def read_content(path: Path) -> bytes:
    """Return a file's bytes, decompressed if its first bytes say that it is compressed.

    Raises:
        InputError: it cannot be read or decompressed, or is an archive of several files.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); check its permissions") from error
    try:
        match content[:4]:
            case b"PK\x03\x04":
                with zipfile.ZipFile(BytesIO(content)) as archive:
                    if len(archive.namelist()) != 1:
                        raise zipfile.BadZipFile(f"{len(archive.namelist())} files in it")
                    return archive.read(archive.namelist()[0])
            case b"\x28\xb5\x2f\xfd":
                return _decompress(content, "zstd")
            case b"\x04\x22\x4d\x18":
                return _decompress(content, "lz4")
            case b"\xfd7zX":
                return lzma.decompress(content)
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if content.startswith(b"BZh"):
            return bz2.decompress(content)
    except _NOT_COMPRESSED as error:
        raise InputError(
            f"{path}: cannot be decompressed to one file ({first_line(error)}); compress or download it again"
        ) from error
    return content


def decode_lines(content: bytes) -> tuple[list[str], dict[int, str]]:
    """Return the lines of a text in UTF-8 without their line feeds, and the faults of those that are not UTF-8.

    Only a line feed ends a line. A faulty line is returned empty; the faults are by 1-based line.
    """
    # splitlines does not fit: it ends lines at characters that are text here.
    raw = content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n") if content else []
    lines: list[str] = []
    faults: dict[int, str] = {}
    for number, line in enumerate(raw, start=1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            faults[number] = f"line {number}: must be UTF-8, byte {error.start + 1} is not"
            lines.append("")
    return lines, faults


def text_faults(texts: Iterable[object], labels: Collection[str]) -> Iterator[str]:
    """Yield the faults of the text or the two texts of a row; ``labels`` are the data's, as files write them."""
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            yield f"sentence must not be empty, got {text!r}"
        elif _holds_rows(text, labels):
            yield (
                "sentence holds other rows with their labels, which a quotation mark joined; split them "
                f"({text[:40]!r}...)"
            )


def _holds_rows(text: str, labels: Collection[str]) -> bool:
    """Return whether a text looks like rows that a quotation mark joined: lines, with a label between tabs in one."""
    lines = [line.removesuffix("\r").split("\t") for line in text.split("\n")] if "\n" in text else ()
    return any(len(fields) > 1 and not set(labels).isdisjoint(fields) for fields in lines)


def _decompress(content: bytes, codec: str) -> bytes:
    with pyarrow.CompressedInputStream(pyarrow.BufferReader(content), codec) as stream:
        return bytes(stream.read())


def _plain(lines: Sequence[str], delimiter: str) -> Iterator[_Record]:
    for number, line in enumerate(lines, start=1):
        if line.strip("\r"):
            yield _Record(line.removesuffix("\r").split(delimiter), number, number)


def _quoted(lines: Sequence[str], delimiter: str) -> Iterator[_Record]:
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _QuotationError(_quotation_fault(error, first, reader.line_num, delimiter)) from error
        if fields:
            yield _Record(fields, first, reader.line_num)


def _quotation_fault(error: csv.Error, first: int, last: int, delimiter: str) -> str:
    cause, where = str(error), f"line {first}"
    if "expected after" in cause:
        later = f", on line {last}," if last > first else ""
        return (
            f"{where}: a field that begins with a quotation mark goes on after its second mark{later} without "
            f"{delimiter!r}; double the marks inside it"
        )
    if "new-line" in cause:
        return f"line {last}: has a carriage return that ends no line; end lines with a line feed"
    if "field limit" in cause or "end of data" in cause:
        return f"{where}: a quotation mark begins a field and none ends it; close it, or double it within marks"
    return f"{where}: {cause}; write the file again"


def _is_quoted(lines: Sequence[str], label: Collection[str], names: Sequence[str] | None) -> bool:
    """Return whether the quotation marks of tab-separated lines quote."""
    if not any('"' in line for line in lines) or not _QUOTED_FILE.fullmatch("".join(f"{line}\n" for line in lines)):
        return False
    plain, quoted = list(_plain(lines, "\t")), list(_quoted(lines, "\t"))
    width = len(names or plain[0].fields)
    if all(len(record.fields) == width for record in plain):
        # Both readings fit; marks that join such rows are text.
        return all(record.first == record.last for record in quoted)
    names, quoted = (quoted[0].fields, quoted[1:]) if names is None else (names, quoted)
    return not _faults(quoted, lines, "\t", names, label)


def _faults(
    records: Sequence[_Record], lines: Sequence[str], delimiter: str, names: Sequence[str], label: Collection[str]
) -> list[str]:
    """Return the rows of another width, and those that quotation marks joined from rows."""
    width = len(names)
    faults = []
    at = next((index for index, name in enumerate(names) if name in label), None)
    labels = {"0", "1"}
    if at is not None:
        labels.update(record.fields[at] for record in records if len(record.fields) == width)
    for record in records:
        if len(record.fields) != width:
            faults.append(
                f"{record.place}: needs {width} fields separated by {delimiter!r}, as many as there are columns, "
                f"has {len(record.fields)}"
            )
        elif at is not None and record.last > record.first:
            own_lines = lines[record.first - 1 : record.last]
            parts = [[part.strip('"') for part in line.removesuffix("\r").split(delimiter)] for line in own_lines]
            # A text of several lines leaves the label on one of them. Delimiters in the text shift it from one side.
            rows = [
                part for part in parts if len(part) >= width and not labels.isdisjoint((part[at], part[at - width]))
            ]
            if len(rows) > 1:
                faults.append(
                    f"{record.place}: a quotation mark joins them to one row, and {len(rows)} of them are rows of "
                    "their own; close it, or double it within marks (if it is meant so, write JSON lines)"
                )
    return faults
