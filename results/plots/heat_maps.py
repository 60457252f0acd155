"""Drawing heat maps of all layers: the widths of some maps side by side, and the damage of each layer alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from objectives.layers import WIDTHS, Layer
from results.columns import write_csv
from results.formatting import DAMAGE
from results.plots.plot_info import BitsInfo, LayerGrid, bits_table, layer_grid
from results.plots.style import save_plot

MOST_SENSITIVITY_WIDTHS = 4
"""How many widths are shown, the narrowest: at larger ones hardly any layer does any damage alone."""

_LEAST_DRAWN = 1e-5  # nats a sentence; smaller damages get the same colour


@dataclass(frozen=True)
class _Panel:
    """One panel: the lines of its title, and a value and a text for each layer."""

    title: tuple[str, ...]
    values: Sequence[float]
    texts: Sequence[str]


def write_bits_plot(info: BitsInfo, directory: Path) -> str:
    """Write ``bits.png``, ``bits.svg`` and ``bits.csv`` into a directory, each in one step; return the SVG."""
    write_csv(bits_table(info), directory / "bits.csv")
    return save_plot(lambda: draw_bits(info), directory, "bits")


def write_sensitivity_plot(
    layers: Sequence[Layer],
    damages: npt.NDArray[np.float64],
    measured: npt.NDArray[np.bool_],
    directory: Path,
    widths: Sequence[int] = WIDTHS,
) -> str:
    """Write ``sensitivity.png``, ``.svg`` and ``.csv`` into a directory, each in one step; return the SVG.

    Args:
        layers: the searchable layers.
        damages: of each layer alone at each width, ``(n_layers, n_widths)``, nats a sentence.
        measured: whether each was evaluated, ``(n_layers, n_widths)``; the others are estimated from the gradient.
        directory: the folder to write into.
        widths: those of the columns.
    """
    write_csv(sensitivity_table(layers, damages, measured, widths), directory / "sensitivity.csv")
    return save_plot(lambda: draw_sensitivity(layers, damages, widths), directory, "sensitivity")


def sensitivity_table(
    layers: Sequence[Layer],
    damages: npt.NDArray[np.float64],
    measured: npt.NDArray[np.bool_],
    widths: Sequence[int] = WIDTHS,
) -> pd.DataFrame:
    """Return one row a layer and width: ``layer``, ``width``, ``damage`` and its ``source``."""
    rows = [
        (layer.name, width, damages[row, column], "measured" if measured[row, column] else "gradient")
        for row, layer in enumerate(layers)
        for column, width in enumerate(widths)
    ]
    return pd.DataFrame(rows, columns=["layer", "width", "damage", "source"])


def draw_bits(info: BitsInfo) -> Figure:
    """Draw the width of every layer, one panel a map, with the model's input at the top."""
    colours = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.05, 0.95, len(WIDTHS))))
    norm = BoundaryNorm(np.arange(WIDTHS[0] - 0.5, WIDTHS[-1] + 1), len(WIDTHS))
    panels = [_Panel(shown.title, shown.bit_map, [str(width) for width in shown.bit_map]) for shown in info.maps]
    return _draw_panels(info.grid, panels, colours, norm, "bits", WIDTHS)


def draw_sensitivity(
    layers: Sequence[Layer], damages: npt.NDArray[np.float64], widths: Sequence[int] = WIDTHS
) -> Figure:
    """Draw the damage of each layer alone, ``(n_layers, n_widths)``, one panel for each of the narrowest widths."""
    highest = max(float(damages.max(initial=0.0)), 10 * _LEAST_DRAWN)
    norm = LogNorm(_LEAST_DRAWN, highest)
    panels = [
        _Panel(
            (f"{width} bits", "all other layers in FP32", f"sum {1000 * column.sum():.3g} thousandths of a nat"),
            np.maximum(column, _LEAST_DRAWN).tolist(),
            [thousandths(damage) for damage in column],
        )
        for width, column in list(zip(widths, damages.T, strict=True))[:MOST_SENSITIVITY_WIDTHS]
    ]
    label = f"{DAMAGE}, nats a sentence (numbers: thousandths)"
    return _draw_panels(layer_grid(layers), panels, matplotlib.colormaps["cividis_r"], norm, label, ())


def _draw_panels(
    grid: LayerGrid, panels: Sequence[_Panel], colours: Colormap, norm: Normalize, label: str, ticks: Sequence[int]
) -> Figure:
    n_columns, n_rows, n_panels = max(len(grid.columns), 1), max(len(grid.rows), 1), max(len(panels), 1)
    cell_width, cell_height, gap = 0.42, 0.27, 0.35  # inches
    left, right, top, bottom = 1.65, 0.15, 0.75, 1.6
    panel_width, panel_height = max(n_columns * cell_width, 2.5), n_rows * cell_height
    width = left + n_panels * panel_width + (n_panels - 1) * gap + right
    height = top + panel_height + bottom
    figure = Figure(figsize=(width, height))
    if not panels:
        figure.text(0.5, 0.5, "no map to show yet", ha="center", va="center")
        return figure
    for index, panel in enumerate(panels):
        corner = ((left + index * (panel_width + gap)) / width, bottom / height)
        axes = figure.add_axes((*corner, panel_width / width, panel_height / height))
        boxes = []
        for cell, value, text in zip(grid.cells, panel.values, panel.texts, strict=True):
            x, span = (0, n_columns) if cell.column is None else (cell.column, 1)
            boxes.append(Rectangle((x + 0.04, cell.row + 0.04), span - 0.08, 0.92))
            text_colour = "white" if _is_dark(colours(norm(value))) else "black"
            axes.text(x + span / 2, cell.row + 0.52, text, color=text_colour, ha="center", va="center", fontsize=8.5)
        patches = PatchCollection(boxes, cmap=colours, norm=norm, linewidths=0)
        patches.set_array(np.array(panel.values))
        axes.add_collection(patches)
        _style_panel(axes, grid, panel.title, labelled=index == 0)
    place = (left / width, 0.42 / height, min(2.8, panel_width) / width, 0.14 / height)
    scale = figure.colorbar(patches, cax=figure.add_axes(place), orientation="horizontal", label=label)
    if ticks:
        scale.set_ticks(list(ticks), minor=False)
    scale.ax.minorticks_off()
    scale.outline.set_visible(False)
    scale.ax.tick_params(labelsize=8.5, length=0)
    scale.ax.xaxis.label.set_fontsize(8.5)
    return figure


def _style_panel(axes: Axes, grid: LayerGrid, title: Sequence[str], labelled: bool) -> None:
    axes.set_xlim(0, max(len(grid.columns), 1))
    axes.set_ylim(len(grid.rows), 0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(grid.columns)) + 0.5, labels=grid.columns, rotation=50, ha="right", fontsize=8.5)
    axes.set_yticks(np.arange(len(grid.rows)) + 0.5, labels=grid.rows if labelled else [], fontsize=8.5)
    axes.annotate(
        "\n".join(title[1:]), (0, 1), xytext=(2, 4), xycoords="axes fraction", textcoords="offset points", fontsize=7.5
    )
    axes.annotate(
        title[0],
        (0, 1),
        xytext=(2, 26),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=10,
        weight="bold",
        parse_math=False,
    )


def _is_dark(colour: Any) -> bool:
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.5


def thousandths(damage: float) -> str:
    """Return a damage in thousandths of a nat, short enough for a cell; empty if it rounds to less than 0.1."""
    if damage < 0.5e-4:
        return ""
    return f"{1000 * damage:.1f}" if damage < 0.00995 else f"{1000 * damage:.0f}"
