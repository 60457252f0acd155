"""One table model: a table is a list of columns, which CSV, HTML, Markdown and the terminal render alike."""

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
        name: its name in CSV; empty if CSV leaves it out.
        heading: its heading elsewhere; empty if only CSV has it.
        value: a row's value; None if the row has none.
        text: formats a value, and both ends of its interval.
        present: whether HTML, Markdown and the terminal show it; None if they do once a row has a value.
        interval: whether intervals are shown; CSV then has ``name_low`` and ``name_high`` too.
        link: where a row's cell leads in HTML; an empty string for nowhere.
    """

    name: str
    heading: str
    value: Callable[[Row], Value]
    text: Callable[[Any], str] = str
    present: bool | None = None
    interval: bool = False
    link: Callable[[Row], str] | None = None

    def number(self, row: Row) -> int | float | None:
        """Return what a row sorts by; None if its value is no number."""
        value = self.value(row)
        if isinstance(value, Measured):
            return value.value
        return None if isinstance(value, str) else value

    def texts(self, row: Row) -> tuple[str, str]:
        """Return a row's value and its interval in words, each empty if there is none."""
        value = self.value(row)
        if value is None:
            return "", ""
        if not isinstance(value, Measured):
            return self.text(value), ""
        ends = f"{self.text(value.interval.low)} to {self.text(value.interval.high)}" if self.interval else ""
        return self.text(value.value), ends

    def line(self, row: Row) -> str:
        """Return a row's value in words, as ``0.561 (0.512 to 0.607)``."""
        text, ends = self.texts(row)
        return f"{text} ({ends})" if ends else text

    def series(self, rows: Sequence[Row]) -> dict[str, list[str | int | float]]:
        """Return the values by name, and both ends of the intervals; NaN for what is not known."""
        values = [self.value(row) for row in rows]
        plain = [value.value if isinstance(value, Measured) else value for value in values]
        series = {self.name: [nan if value is None else value for value in plain]}
        if self.interval:
            for end in ("low", "high"):
                ends = [getattr(value.interval, end) if isinstance(value, Measured) else nan for value in values]
                series[f"{self.name}_{end}"] = ends
        return series


def to_frame(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> pd.DataFrame:
    """Return a table as CSV has it: every named column, numbers as numbers."""
    return pd.DataFrame(
        {name: values for column in columns if column.name for name, values in column.series(rows).items()}
    )


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV in one step, so that a reader sees the old one or the new.

    Raises:
        OSError: the folder cannot be written.
    """
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def to_html(columns: Sequence[Column[Row]], rows: Sequence[Row], classes: str = "") -> Markup:
    """Return a table as HTML, its texts escaped; the first column names the row, numbers say what they sort by."""
    columns = shown(columns, rows)
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(column.heading) for column in columns)
    lines = [Markup("\n").join(_html_cell(column, row, column is columns[0]) for column in columns) for row in rows]
    body = Markup("\n").join(Markup("<tr>\n{}\n</tr>").format(line) for line in lines)
    return Markup(
        '<div class="wide">\n<table class="{}">\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>\n</div>'
    ).format(classes, heads, body)


def to_markdown(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> list[str]:
    """Return a table as the lines of Markdown, its texts escaped."""
    columns = shown(columns, rows)
    cells = [[column.heading for column in columns], ["---"] * len(columns)]
    cells += [[escaped(column.line(row)) for column in columns] for row in rows]
    return [f"| {' | '.join(line)} |" for line in cells]


def to_terminal(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> list[str]:
    """Return a table as plain lines of at most ``width`` characters; what is too long goes on in the next line."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    columns = shown(columns, rows)
    for column in columns:
        if any(column.number(row) is not None for row in rows):  # numbers stay whole, texts go on in the next line
            needed = max(map(len, (*column.heading.split(), *(column.line(row) for row in rows))))
            table.add_column(Text(column.heading), justify="right", width=needed)
        else:
            table.add_column(Text(column.heading), overflow="fold")
    for row in rows:
        table.add_row(*(Text(column.line(row)) for column in columns))
    drawn = StringIO()
    Console(file=drawn, width=width, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in drawn.getvalue().splitlines()]


def shown(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> list[Column[Row]]:
    """Return the columns that HTML, Markdown and the terminal show."""

    def is_present(column: Column[Row]) -> bool:
        if column.present is not None:
            return column.present
        return not rows or any(column.value(row) is not None for row in rows)

    return [column for column in columns if column.heading and is_present(column)]


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _html_cell(column: Column[Row], row: Row, names_row: bool) -> Markup:
    text, ends = column.texts(row)
    link = column.link(row) if column.link else ""
    inside = Markup('<a href="{}">{}</a>').format(link, text) if link else escape(text)
    if ends:
        inside += Markup(" <small>{}</small>").format(ends)
    if names_row:
        return Markup('<th scope="row"><span>{}</span></th>').format(inside)
    number = column.number(row)
    attributes = Markup("") if number is None else Markup(' class="n" data-sort="{}"').format(number)
    return Markup('<td{} data-label="{}"><span>{}</span></td>').format(attributes, column.heading, inside)
