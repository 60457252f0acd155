"""Drawing the damage of maps on sentences that the search did not see: searched maps against baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from objectives.packing.footprint import AXIS_NAMES, SizeAxis
from results.columns import write_csv
from results.outcome import Origin
from results.plots.distilled import draw_distilled
from results.plots.distilled_info import DistilledPoint
from results.plots.style import BLUE, DAMAGE_FLOOR, GREEN, ORANGE, VERMILION, save_plot, set_damage_axis
from results.statistics.analysis import Analysis

UNSEEN_COLUMNS = ("number", "origin", "label", "compression", "damage", "damage_low", "damage_high", "damage_seen")

_STYLES: dict[Origin, dict[str, Any]] = {
    "sampler": {"label": "searched map", "color": BLUE, "marker": "o", "markersize": 5},
    "plain": {"label": "knapsack on sensitivities", "color": ORANGE, "marker": "^", "markersize": 6},
    "uniform": {"label": "uniform baseline", "color": GREEN, "marker": "D", "markersize": 6},
    "reference": {"label": "reference: the documented map", "color": VERMILION, "marker": "*", "markersize": 15},
}


def unseen_table(analysis: Analysis) -> pd.DataFrame:
    """Return ``unseen.csv``: one row a map scored on unseen sentences, from the largest to the smallest.

    Compression is on the run's size axis; damages are in nats a sentence. ``damage_seen`` is on the search's sentences.
    """
    axis = analysis.outcome.size_axis
    trials = [trial for trial in analysis.outcome.trials if trial.number in analysis.unseen]
    rows = []
    for trial in sorted(trials, key=lambda trial: (trial.compression(axis), trial.number)):
        unseen = analysis.unseen[trial.number]
        assert trial.scores is not None
        damages = (unseen.damage, unseen.interval.low, unseen.interval.high, trial.scores.damage)
        rows.append((trial.number, trial.origin, trial.label, trial.compression(axis), *damages))
    return pd.DataFrame(rows, columns=list(UNSEEN_COLUMNS))


def write_unseen_plot(analysis: Analysis, directory: Path, distilled: Sequence[DistilledPoint] = ()) -> str:
    """Write ``unseen.png``, ``.svg`` and ``.csv`` into a directory, each in one step; return the SVG."""
    table = unseen_table(analysis)
    write_csv(table, directory / "unseen.csv")
    return save_plot(lambda: draw_unseen(table, analysis.outcome.size_axis, distilled), directory, "unseen")


def draw_unseen(table: pd.DataFrame, size_axis: SizeAxis, distilled: Sequence[DistilledPoint] = ()) -> Figure:
    """Draw damage with its 95% intervals against compression, also of distilled maps."""
    figure = Figure(figsize=(5.6, 4.4))  # narrow, so that its text can be read on a phone
    figure.subplots_adjust(left=0.14, right=0.98, bottom=0.115, top=0.815 if distilled else 0.86)
    axes = figure.subplots()
    set_damage_axis(axes, "damage on unseen sentences, nats a sentence")
    for index, (origin, style) in enumerate(_STYLES.items()):
        rows = table[table.origin == origin]
        if rows.empty:
            continue
        low, high, middle = (rows[name].clip(lower=DAMAGE_FLOOR) for name in ("damage_low", "damage_high", "damage"))
        axes.vlines(rows.compression, low, high, color=style["color"], alpha=0.4, linewidth=1.2, zorder=2)
        axes.plot(rows.compression, middle, linestyle="none", zorder=5 - index, **style)
    draw_distilled(axes, distilled, size_axis, lambda point: point.unseen, DAMAGE_FLOOR)
    axes.set_xlabel(f"compression, times ({AXIS_NAMES[size_axis]}); further right is smaller")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5), numticks=50))
    figure.legend(loc="upper center", ncols=2)
    return figure
