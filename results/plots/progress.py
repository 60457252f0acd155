"""Drawing how the front improved, over evaluations and over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from results.columns import write_csv
from results.plots.progress_info import ProgressInfo, progress_table
from results.plots.style import COLOURS, GREY, drawn_heights, save_plot, set_damage_axis

_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))  # distinct without colour


def write_progress_plot(info: ProgressInfo, directory: Path) -> str:
    """Write ``progress.png``, ``.svg`` and ``.csv`` into a directory, each in one step; return the SVG."""
    write_csv(progress_table(info), directory / "progress.csv")
    return save_plot(lambda: draw_progress(info), directory, "progress")


def draw_progress(info: ProgressInfo) -> Figure:
    """Draw the least damage so far at each size: against evaluations above, against time below."""
    figure = Figure(figsize=(5.6, 5.8))  # narrow, so that its text can be read on a phone
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.085, top=0.89, hspace=0.28)
    by_count, by_time = figure.subplots(2, 1, sharey=True)
    unit_s, unit = (3600.0, "hours") if info.elapsed_s > 2 * 3600 else (60.0, "minutes")
    for index, (request, steps) in enumerate(info.lines):
        if not steps:
            continue
        heights = drawn_heights(step.damage for step in (*steps, steps[-1]))
        style: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": _DASHES[index % len(_DASHES)],
            "linewidth": 1.6,
            "drawstyle": "steps-post",
            "label": request,
        }
        by_count.plot([*(step.evaluations for step in steps), info.evaluations], heights, **style)
        by_time.plot([*(step.finished_s / unit_s for step in steps), info.elapsed_s / unit_s], heights, **style)
    by_count.set_xlabel("maps evaluated")
    by_time.set_xlabel(f"{unit} since the first evaluation began, pauses included")
    if 0 < info.baselines < info.evaluations:
        by_count.axvline(info.baselines + 0.5, color=GREY, linewidth=1, label="the sampler begins")
    for axes in (by_count, by_time):
        set_damage_axis(axes, "")
        axes.set_xlim(left=0)
    figure.supylabel("least damage so far, nats a sentence", fontsize=10)
    handles, labels = by_count.get_legend_handles_labels()
    if any(steps for _, steps in info.lines):
        figure.legend(handles, labels, loc="upper center", ncols=3)
    else:
        figure.text(0.5, 0.5, "no map has been scored yet", ha="center", va="center")
    return figure
