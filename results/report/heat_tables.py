"""Heat maps of all layers as tables, which fit any width: the bits of some maps, and the damage of each layer alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from objectives.errors import InputError
from objectives.layers import Layer
from results.plots.heat_maps import MOST_SENSITIVITY_WIDTHS, thousandths
from results.plots.plot_info import BitsInfo, LayerGrid, layer_grid

EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Where the colours of damages change, in thousandths of a nat."""

_Cell = tuple[str, str, str]  # the class of its colour, its text, and what a pointer shows


def bits_tables(info: BitsInfo) -> Markup:
    """Return the width of every layer, one table a map, with the model's input at the top."""
    layers = [cell.layer for cell in info.grid.cells]
    figures = []
    for shown in info.maps:
        cells = [
            (f"w{width}", str(width), f"{layer}: {width} bits")
            for layer, width in zip(layers, shown.bit_map, strict=True)
        ]
        figures.append(_figure(info.grid, shown.title, cells))
    return Markup("\n").join(figures)


def sensitivity_tables(layers: Sequence[Layer], run: Path) -> Markup:
    """Return the damage of each layer alone, one table for each of the narrowest widths; empty if a run has none.

    Raises:
        InputError: the run's ``sensitivity.csv`` cannot be read.
    """
    path = run / "sensitivity.csv"
    if not path.is_file():
        return Markup()
    try:
        table = pd.read_csv(path, dtype={"width": int, "damage": float}).set_index(["width", "layer"])["damage"]
        widths = sorted({int(width) for width, _ in table.index})[:MOST_SENSITIVITY_WIDTHS]
        damages = {width: table[width].loc[[layer.name for layer in layers]] for width in widths}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}); put it back from a copy, or remove it") from None
    figures = []
    for width, column in damages.items():
        cells = [
            (f"s{np.searchsorted(EDGES, 1000 * damage, side='right')}", thousandths(damage), f"{layer}: {damage:.3g}")
            for layer, damage in column.items()
        ]
        title = (f"{width} bits", "all other layers in FP32", f"sum {1000 * column.sum():.3g} thousandths of a nat")
        figures.append(_figure(layer_grid(layers), title, cells))
    return Markup("\n").join(figures)


def _figure(grid: LayerGrid, title: Sequence[str], cells: Sequence[_Cell]) -> Markup:
    rows: list[list[tuple[int | None, _Cell]]] = [[] for _ in grid.rows]
    for place, cell in zip(grid.cells, cells, strict=True):
        rows[place.row].append((place.column, cell))
    lines = [_line(name, row, len(grid.columns)) for name, row in zip(grid.rows, rows, strict=True)]
    first, *others = title
    caption = Markup("<br>").join([first, *(Markup("<small>{}</small>").format(line) for line in others)])
    return Markup(
        '<figure><figcaption>{}</figcaption><table class="bits" aria-label="{}"><tbody>\n{}\n</tbody></table></figure>'
    ).format(caption, ", ".join(title), Markup("\n").join(lines))


def _line(name: str, row: Sequence[tuple[int | None, _Cell]], n_columns: int) -> Markup:
    head = Markup('<tr><th scope="row" title="{0}">{0}</th>').format(name)
    if any(column is None for column, _ in row):  # layers outside the blocks share the row
        spans = [max(n_columns // len(row), 1)] * len(row)
        parts = [_td(cell, span) for (_, cell), span in zip(row, spans, strict=True)]
    else:
        places = dict(row)
        parts = [_td(places[at]) if at in places else Markup("<td></td>") for at in range(n_columns)]
    return head + Markup("").join(parts) + Markup("</tr>")


def _td(cell: _Cell, span: int = 1) -> Markup:
    colour, text, hint = cell
    spanned = Markup(' colspan="{}"').format(span) if span > 1 else Markup()
    return Markup('<td class="{}"{} title="{}">{}</td>').format(colour, spanned, hint, text)
