"""The table model: a list of columns, rendered as CSV, HTML, Markdown or terminal lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from math import nan
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
from markupsafe import Markup, escape
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from objectives.files import replacing
from results.statistics.bootstrap import Interval

Row = TypeVar("Row")


@dataclass(frozen=True)
class Measured:
    """A number with its 95% interval."""

    value: float
    interval: Interval


Value = str | int | float | Measured | None


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column of a table whose rows are of one type.

    Attributes:
        name: its name in CSV; empty to leave it out there.
        heading: its heading elsewhere; empty for a column of CSV alone.
        value: a row's value; None if the row has none.
        text: formats a value, and both ends of its interval.
        present: whether HTML, Markdown and the terminal show it; None to show it if a row has a value.
        interval: whether to show intervals; CSV then has ``name_low`` and ``name_high`` too.
        link: the address that a row's cell links to in HTML; empty for no link.
    """

    name: str
    heading: str
    value: Callable[[Row], Value]
    text: Callable[[Any], str] = str
    present: bool | None = None
    interval: bool = False
    link: Callable[[Row], str] | None = None

    def number(self, row: Row) -> int | float | None:
        """Return the number that a row sorts by; None if its value is not a number."""
        value = self.value(row)
        if isinstance(value, Measured):
            return value.value
        return None if isinstance(value, str) else value

    def texts(self, row: Row) -> tuple[str, str]:
        """Return a row's value and its interval as text, each empty if there is none."""
        value = self.value(row)
        if value is None:
            return "", ""
        if not isinstance(value, Measured):
            return self.text(value), ""
        ends = f"{self.text(value.interval.low)} to {self.text(value.interval.high)}" if self.interval else ""
        return self.text(value.value), ends

    def line(self, row: Row) -> str:
        """Return a row's value as one text: ``0.561 (0.512 to 0.607)``."""
        text, ends = self.texts(row)
        return f"{text} ({ends})" if ends else text

    def series(self, rows: Sequence[Row]) -> dict[str, list[str | int | float]]:
        """Return the CSV columns by name: the values, and both ends of the intervals; NaN for a missing number."""
        values = [self.value(row) for row in rows]
        plain = [value.value if isinstance(value, Measured) else value for value in values]
        series = {self.name: [nan if value is None else value for value in plain]}
        if self.interval:
            for end in ("low", "high"):
                ends = [getattr(value.interval, end) if isinstance(value, Measured) else nan for value in values]
                series[f"{self.name}_{end}"] = ends
        return series


def to_frame(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> pd.DataFrame:
    """Return the table for CSV: every named column, numbers as numbers."""
    return pd.DataFrame(
        {name: values for column in columns if column.name for name, values in column.series(rows).items()}
    )


def to_records(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the table for JSON: a dictionary a row with the names and values of :func:`to_frame`."""
    named = {name: values for column in columns if column.name for name, values in column.series(rows).items()}
    return [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV atomically: a reader sees the old file or the new one.

    Raises:
        OSError: the folder cannot be written.
    """
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def to_html(columns: Sequence[Column[Row]], rows: Sequence[Row], classes: str = "") -> Markup:
    """Return a table as escaped HTML: the first column is the row's header, and numbers carry their sort value."""
    columns = shown(columns, rows)
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(column.heading) for column in columns)
    lines = [Markup("\n").join(_html_cell(column, row, column is columns[0]) for column in columns) for row in rows]
    body = Markup("\n").join(Markup("<tr>\n{}\n</tr>").format(line) for line in lines)
    return Markup(
        '<div class="wide">\n<table class="{}">\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>\n</div>'
    ).format(classes, heads, body)


def to_markdown(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> list[str]:
    """Return a table as lines of escaped Markdown."""
    columns = shown(columns, rows)
    cells = [[column.heading for column in columns], ["---"] * len(columns)]
    cells += [[escaped(column.line(row)) for column in columns] for row in rows]
    return [f"| {' | '.join(line)} |" for line in cells]


def to_terminal(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> list[str]:
    """Return a table as plain lines of at most ``width`` characters; long texts wrap."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    columns = shown(columns, rows)
    for column in columns:
        if any(column.number(row) is not None for row in rows):  # numbers never wrap, texts do
            needed = max(map(len, (*column.heading.split(), *(column.line(row) for row in rows))))
            table.add_column(Text(column.heading), justify="right", width=needed)
        else:
            table.add_column(Text(column.heading), overflow="fold")
    for row in rows:
        table.add_row(*(Text(column.line(row)) for column in columns))
    output = StringIO()
    Console(file=output, width=width, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def shown(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> list[Column[Row]]:
    """Return the columns that HTML, Markdown and the terminal show."""

    def is_present(column: Column[Row]) -> bool:
        if column.present is not None:
            return column.present
        return not rows or any(column.value(row) is not None for row in rows)

    return [column for column in columns if column.heading and is_present(column)]


def escaped(text: str) -> str:
    """Escape a text for one line of Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _html_cell(column: Column[Row], row: Row, is_header: bool) -> Markup:
    text, ends = column.texts(row)
    link = column.link(row) if column.link else ""
    content = Markup('<a href="{}">{}</a>').format(link, text) if link else escape(text)
    if ends:
        content += Markup(" <small>{}</small>").format(ends)
    if is_header:
        return Markup('<th scope="row"><span>{}</span></th>').format(content)
    number = column.number(row)
    attributes = Markup("") if number is None else Markup(' class="n" data-sort="{}"').format(number)
    return Markup('<td{} data-label="{}"><span>{}</span></td>').format(attributes, column.heading, content)
