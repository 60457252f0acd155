"""Drawing the fronts of several runs on one plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from objectives.packing.footprint import AXIS_NAMES, SizeAxis
from results.columns import write_csv
from results.formatting import DAMAGE
from results.plots.distilled import draw_distilled
from results.plots.distilled_info import DistilledPoint
from results.plots.style import BLACK, COLOURS, DAMAGE_FLOOR, drawn_heights, save_plot, set_damage_axis

Points = Sequence[tuple[float, float]]
"""The compression and damage of each map, by rising compression."""


@dataclass(frozen=True)
class DrawnRun:
    """One run of a comparison: its name, its front and its distilled maps."""

    name: str
    front: Points
    distilled: Sequence[DistilledPoint] = ()


_MARKERS = ("o", "^", "D", "P", "X", "<", "h")  # none of the distilled maps'


def write_compare_plot(
    runs: Sequence[DrawnRun], references: Points, axis: SizeAxis, table: pd.DataFrame, directory: Path
) -> str:
    """Write ``comparison.png``, ``.svg`` and ``.csv`` into a directory, each in one step; return the SVG."""
    write_csv(table, directory / "comparison.csv")
    return save_plot(lambda: draw_comparison(runs, references, axis), directory, "comparison")


def draw_comparison(runs: Sequence[DrawnRun], references: Points, axis: SizeAxis) -> Figure:
    """Draw the front and the distilled maps of each run, and the documented map as each run scored it."""
    figure = Figure(figsize=(9.5, 5.6))
    figure.subplots_adjust(left=0.085, right=0.98, bottom=0.1, top=0.96)
    axes = figure.subplots()
    for index, run in enumerate(runs):
        # A leading "_" would hide the name, and "$" starts a formula.
        name, colour = f"\u200b{run.name}".replace("$", r"\$"), COLOURS[index % len(COLOURS)]
        axes.plot(
            [compression for compression, _ in run.front],
            drawn_heights(damage for _, damage in run.front),
            drawstyle="steps-pre",
            linewidth=1.4,
            markersize=5,
            label=name,
            color=colour,
            marker=_MARKERS[index % len(_MARKERS)],
        )
        draw_distilled(axes, run.distilled, axis, lambda point: point.damage, DAMAGE_FLOOR, run=name, colour=colour)
    if references:
        axes.plot(
            [compression for compression, _ in references],
            drawn_heights(damage for _, damage in references),
            linestyle="none",
            marker="*",
            markersize=14,
            color=BLACK,
            markeredgecolor="white",
            label="reference: the documented map",
        )
    set_damage_axis(axes, f"{DAMAGE}, nats")
    axes.set_xlabel(f"compression, times ({AXIS_NAMES[axis]}); further right is smaller")
    if any(run.front or run.distilled for run in runs) or references:
        axes.legend(loc="lower right")
    else:
        axes.set_ylim(1e-4, 1)
        axes.text(0.5, 0.5, "no map is on a front yet", transform=axes.transAxes, ha="center", va="center")
    return figure
