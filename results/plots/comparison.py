"""Drawing the fronts of several runs on one plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from objectives.packing.footprint import SizeAxis
from results.columns import write_csv
from results.plots.pareto import DAMAGE_FLOOR
from results.plots.style import COLOURS, save_plot

Points = Sequence[tuple[float, float]]
"""Compression and damage of maps, by rising compression."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def write_compare_plot(
    runs: Sequence[tuple[str, Points]], references: Points, axis: SizeAxis, table: pd.DataFrame, directory: Path
) -> str:
    """Write ``comparison.png``, ``.svg`` and ``.csv`` into a directory, each in one step; return the SVG."""
    write_csv(table, directory / "comparison.csv")
    return save_plot(lambda: draw_comparison(runs, references, axis), directory, "comparison")


def draw_comparison(runs: Sequence[tuple[str, Points]], references: Points, axis: SizeAxis) -> Figure:
    """Draw the front of each run, and the documented map as each has scored it."""
    figure = Figure(figsize=(9.5, 5.6))
    figure.subplots_adjust(left=0.085, right=0.98, bottom=0.1, top=0.96)
    axes = figure.subplots()
    for at, (name, points) in enumerate(runs):
        heights = [max(damage, DAMAGE_FLOOR) for _, damage in points]
        axes.plot(
            [compression for compression, _ in points],
            heights,
            drawstyle="steps-pre",
            linewidth=1.4,
            markersize=5,
            label=f"\u200b{name}".replace("$", r"\$"),  # a leading underscore would hide it, a dollar begin a formula
            color=COLOURS[at % len(COLOURS)],
            marker=_MARKERS[at % len(_MARKERS)],
        )
    if references:
        axes.plot(
            [compression for compression, _ in references],
            [max(damage, DAMAGE_FLOOR) for _, damage in references],
            linestyle="none",
            marker="*",
            markersize=14,
            color="#000000",
            markeredgecolor="white",
            label="the documented map",
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda damage, _: f"{damage:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"compression, times ({axis}); further right is smaller")
    axes.set_ylabel("damage, nats a sentence")
    if any(points for _, points in runs) or references:
        axes.legend(loc="lower right")
    else:
        axes.set_ylim(1e-4, 1)
        axes.text(0.5, 0.5, "no map is on a front yet", transform=axes.transAxes, ha="center", va="center")
    return figure
