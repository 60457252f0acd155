"""The table model: which columns are shown, and how each renderer writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from results.columns import Column, Measured, to_frame, to_html, to_markdown, to_terminal, write_csv
from results.statistics.bootstrap import Interval


@dataclass(frozen=True)
class Planet:
    name: str
    mass: float | None = None
    moons: int = 0


def mass(planet: Planet) -> Measured | None:
    return None if planet.mass is None else Measured(planet.mass, Interval(planet.mass - 0.5, planet.mass + 0.5))


COLUMNS: list[Column[Planet]] = [
    Column("name", "planet", lambda row: row.name, link=lambda row: "a.txt" if row.moons else ""),
    Column("mass", "mass", mass, "{:.2f}".format, interval=True),
    Column("moons", "", lambda row: row.moons),
    Column("", "moons in words", lambda row: "none" if not row.moons else f"{row.moons} | <some>"),
    Column("never", "never", lambda row: None),
    Column("kept", "kept", lambda row: None, present=True),
    Column("hidden", "hidden", lambda row: 1, present=False),
]
ROWS = [Planet("Earth", 1.0, 1), Planet("Vulcan")]


def test_csv_has_every_named_column_and_numbers_as_numbers(tmp_path: Path) -> None:
    write_csv(to_frame(COLUMNS, ROWS), tmp_path / "planets.csv")
    lines = (tmp_path / "planets.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [
        "name,mass,mass_low,mass_high,moons,never,kept,hidden",
        "Earth,1.0,0.5,1.5,1,,,1",
        "Vulcan,,,,0,,,1",
    ]
    assert list(to_frame(COLUMNS, []).columns) == list(pd.read_csv(tmp_path / "planets.csv").columns)


def test_pages_show_the_columns_that_have_a_heading_and_a_value() -> None:
    assert to_markdown(COLUMNS, ROWS) == [
        "| planet | mass | moons in words | kept |",
        "| --- | --- | --- | --- |",
        "| Earth | 1.00 (0.50 to 1.50) | 1 \\| \\<some\\> |  |",
        "| Vulcan |  | none |  |",
    ]
    assert to_markdown(COLUMNS, [])[0] == "| planet | mass | moons in words | never | kept |"


def test_html_escapes_texts_and_carries_sort_values() -> None:
    page = to_html(COLUMNS, ROWS, "sortable")
    assert '<th scope="row"><span><a href="a.txt">Earth</a></span></th>' in page
    assert '<th scope="row"><span>Vulcan</span></th>' in page
    assert '<td class="n" data-sort="1.0" data-label="mass"><span>1.00 <small>0.50 to 1.50</small></span></td>' in page
    assert '<td data-label="mass"><span></span></td>' in page
    assert "1 | &lt;some&gt;" in page and "never" not in page


def test_a_terminal_wraps_texts_and_never_numbers() -> None:
    rows = [Planet("a planet with a very long name indeed", 1.0), Planet("[b]", 20.0)]
    lines = to_terminal(COLUMNS, rows, 60)
    assert max(map(len, lines)) <= 60
    [figures] = [line for line in lines if "1.00 (0.50 to 1.50)" in line]
    first_words = [line.split("  ")[0] for line in lines]
    assert " ".join(first_words[lines.index(figures) :]).startswith("a planet with a very long name indeed")
    assert "[b]" in first_words  # no markup
