"""Drawing the Pareto plot: damage and metric of every map against its compression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from objectives.layers import WIDTHS
from objectives.metrics import METRIC_NAMES
from objectives.packing.footprint import AXIS_NAMES
from results.columns import write_csv
from results.formatting import DAMAGE, quality
from results.plots.distilled import DISTILLED_MARKERS, draw_distilled
from results.plots.plot_info import ParetoInfo, Point, pareto_table
from results.plots.style import (
    BLACK,
    BLUE,
    DAMAGE_FLOOR,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    drawn_heights,
    save_plot,
    set_damage_axis,
)
from results.statistics.bootstrap import Interval

_MOST_VECTOR_POINTS = 500  # above this number, beaten trials become one image inside the SVG

_HALO = [withStroke(linewidth=2.5, foreground="white")]  # labels stay readable above points


def write_pareto_plot(info: ParetoInfo, directory: Path) -> str:
    """Write ``pareto.png``, ``pareto.svg`` and ``pareto.csv`` into a directory, each in one step; return the SVG."""
    write_csv(pareto_table(info), directory / "pareto.csv")
    return save_plot(lambda: draw_pareto(info), directory, "pareto")


def draw_pareto(info: ParetoInfo) -> Figure:
    """Draw damage and metric against compression, one above the other."""
    # The margins are fixed: fitting them to the text would double the drawing time.
    figure = Figure(figsize=(9.5, 8.2))
    top = 0.845 if info.size_axis == "nominal" else 0.895
    figure.subplots_adjust(left=0.085, right=0.98, bottom=0.065, top=top, hspace=0.06)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for axes in (upper, lower):
        axes.axvline(info.min_compression, label=_constraint_label(info), **_CONSTRAINT)
        axes.margins(y=0.07)
    _draw_damage(upper, info)
    _draw_metric(lower, info)
    lower.set_xlabel(f"compression, times ({AXIS_NAMES[info.size_axis]}); further right is smaller")
    lower.set_xlim(*_compression_limits(info))
    lower.xaxis.set_major_locator(MaxNLocator(nbins=13, steps=[1, 2, 5, 10]))
    if info.size_axis == "nominal":
        _draw_mean_widths(upper)
    figure.align_ylabels([upper, lower])
    _draw_legend(figure, info, (upper, lower))
    return figure


def _draw_damage(axes: Axes, info: ParetoInfo) -> None:
    set_damage_axis(axes, f"{DAMAGE}, nats")
    front = info.front
    if front and info.quality == "damage":
        axes.step(_compressions(front), _damages(front), where="pre", color=BLUE, linewidth=1.4, zorder=2.5)
    others = info.others
    _scatter_others(axes, others, _damages(others))
    _draw_markers(axes, front, _damages(front), label=_front_label(info), **_FRONT)
    _draw_baselines(axes, info, _damages(info.baselines))
    if info.reference:
        _draw_reference(axes, info.reference, _damages([info.reference]), named=True)
    draw_distilled(axes, info.distilled, info.size_axis, lambda point: point.damage, DAMAGE_FLOOR)
    if any(point.damage < DAMAGE_FLOOR for point in info.points):
        note = f"damage below {DAMAGE_FLOOR:g} is drawn at {DAMAGE_FLOOR:g}"
        axes.text(0.99, 0.02, note, transform=axes.transAxes, ha="right", fontsize=8)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5), numticks=50))
    if not info.points:
        axes.set_ylim(1e-4, 1)
        axes.text(0.5, 0.5, "no map has been scored yet", transform=axes.transAxes, ha="center", va="center")


def _draw_metric(axes: Axes, info: ParetoInfo) -> None:
    band = info.fp32_metric_interval
    axes.axhspan(band.low, band.high, color=BLACK, alpha=0.07, linewidth=0, zorder=0.5)
    axes.axhline(info.fp32_metric, color=BLACK, linewidth=1.2, zorder=1.6, label=_FP32_LABEL)
    front = info.front
    if front and info.quality == "mcc":
        axes.step(
            _compressions(front), [point.metric for point in front], where="pre", color=BLUE, linewidth=1.4, zorder=2.5
        )
    others = info.others
    _scatter_others(axes, others, [point.metric for point in others])
    # The intervals of the picks overlap where the front is dense, so they are paler than the others.
    corrected = [(point.compression, point.corrected) for point in info.points if point.corrected is not None]
    _draw_intervals(axes, [(x, estimate.metric_interval) for x, estimate in corrected], BLUE, alpha=0.35)
    if corrected:
        heights = [estimate.metric for _, estimate in corrected]
        axes.plot([x for x, _ in corrected], heights, label=_CORRECTED_LABEL, **_CORRECTED)
    uniform = [point for point in info.baselines if point.origin != "plain" and not point.on_front]
    _draw_intervals(axes, [(point.compression, point.metric_interval) for point in uniform], GREEN, alpha=0.6)
    _draw_markers(axes, front, [point.metric for point in front], label=_front_label(info), **_FRONT)
    _draw_baselines(axes, info, [point.metric for point in info.baselines])
    if info.reference:  # without its name: in this panel all maps are about as high, and text would cover them
        _draw_reference(axes, info.reference, [info.reference.metric], named=False)
        _draw_intervals(axes, [(info.reference.compression, info.reference.metric_interval)], VERMILION, alpha=0.9)
    draw_distilled(axes, info.distilled, info.size_axis, lambda point: point.metric)
    axes.set_ylabel(f"{METRIC_NAMES[info.metric]}, with 95% intervals")


_CONSTRAINT: dict[str, Any] = {"color": PURPLE, "linestyle": (0, (5, 3)), "linewidth": 1.4, "zorder": 1.5}
_FRONT: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 5, "zorder": 4}
_CORRECTED: dict[str, Any] = {
    "color": BLUE,
    "linestyle": "none",
    "marker": "_",
    "markersize": 10,
    "markeredgewidth": 1.6,
    "zorder": 3.9,
}

_REFERENCE_LABEL = "reference: the documented map"
# Label, marker, its size and its colour.
_UNIFORM = ("uniform baseline (number: width)", "D", 7, GREEN)
_KNAPSACK = ("knapsack on sensitivities", "^", 6, ORANGE)
_CORRECTED_LABEL = "picks corrected for luck, 95% interval"
_FP32_LABEL = "FP32 and its 95% interval"


def _front_label(info: ParetoInfo) -> str:
    return f"front of {quality(info.quality, info.metric)} and size"


def _constraint_label(info: ParetoInfo) -> str:
    return f"constraint: {info.min_compression:.10g}x"


def _draw_legend(figure: Figure, info: ParetoInfo, panels: Sequence[Axes]) -> None:
    """List each kind of mark once: the front first, then the other maps, then the lines and intervals."""
    handles: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    last = [_CORRECTED_LABEL, _FP32_LABEL, _constraint_label(info)]
    order = [_front_label(info), _REFERENCE_LABEL, *DISTILLED_MARKERS, _UNIFORM[0], _KNAPSACK[0], *last]
    labels = sorted(handles, key=lambda label: order.index(label) if label in order else len(order))
    figure.legend([handles[label] for label in labels], labels, loc="upper center", ncols=3)


def _scatter_others(axes: Axes, others: Sequence[Point], heights: Sequence[float]) -> None:
    for feasible, label in ((True, "beaten"), (False, "misses the constraint")):
        indices = [index for index, point in enumerate(others) if point.feasible == feasible]
        if indices:
            axes.plot(
                [others[index].compression for index in indices],
                [heights[index] for index in indices],
                linestyle="none",
                marker="o",
                markersize=3,
                color=GREY,
                markerfacecolor=GREY if feasible else "white",
                markeredgewidth=0.6,
                alpha=0.55,
                zorder=2,
                rasterized=len(indices) > _MOST_VECTOR_POINTS,
                label=f"searched map, {label}",
            )


def _draw_markers(axes: Axes, points: Sequence[Point], heights: Sequence[float], **style: Any) -> None:
    if points:
        axes.plot(_compressions(points), heights, linestyle="none", **style)


def _draw_baselines(axes: Axes, info: ParetoInfo, heights: Sequence[float]) -> None:
    labelled: set[str] = set()
    for point, height in zip(info.baselines, heights, strict=True):
        label, marker, size, colour = _KNAPSACK if point.origin == "plain" else _UNIFORM
        axes.plot(
            [point.compression],
            [height],
            linestyle="none",
            marker=marker,
            markersize=size,
            color=colour,
            markerfacecolor=colour if point.feasible else "white",
            markeredgewidth=1.4,
            zorder=5,
            label=None if label in labelled else label,
        )
        labelled.add(label)
        if point.origin == "plain":
            continue  # knapsack maps are close to the front, and text would hide it
        axes.annotate(
            point.short_label,
            (point.compression, height),
            xytext=(6, 5),
            textcoords="offset points",
            color="#00684d",
            weight="bold",
            zorder=7,
            path_effects=_HALO,
            parse_math=False,
        )


def _draw_reference(axes: Axes, point: Point, heights: Sequence[float], named: bool) -> None:
    axes.plot(
        [point.compression],
        heights,
        linestyle="none",
        marker="*",
        markersize=16,
        color=VERMILION,
        markerfacecolor=VERMILION if point.feasible else "white",
        markeredgewidth=1.2,
        zorder=6,
        label=_REFERENCE_LABEL,
    )
    if not named:
        return
    axes.annotate(
        point.label,
        (point.compression, heights[0]),
        xytext=(10, 6),
        textcoords="offset points",
        color="#a84a00",
        weight="bold",
        zorder=7,
        path_effects=_HALO,
        parse_math=False,
    )


def _draw_intervals(axes: Axes, intervals: Sequence[tuple[float, Interval | None]], colour: str, alpha: float) -> None:
    """Draw the intervals that are known, each at its compression."""
    known = [(compression, interval.low, interval.high) for compression, interval in intervals if interval is not None]
    if known:
        axes.vlines(*zip(*known, strict=True), color=colour, alpha=alpha, linewidth=1.3, zorder=1.8)


def _draw_mean_widths(axes: Axes) -> None:
    """Mark 8 to 2 bits a weight above the panel: nominal compression is 32 over the mean width."""
    top = axes.secondary_xaxis("top")
    top.set_xticks([32 / width for width in WIDTHS], labels=[str(width) for width in WIDTHS])
    top.set_xlabel("mean bits per weight")


def _compression_limits(info: ParetoInfo) -> tuple[float, float]:
    marks = [info.min_compression - 1, info.min_compression + 1, *(point.compression for point in info.points)]
    margin = 0.04 * (max(marks) - min(marks)) + 0.2
    return min(marks) - margin, max(marks) + margin


def _compressions(points: Sequence[Point]) -> list[float]:
    return [point.compression for point in points]


def _damages(points: Sequence[Point]) -> list[float]:
    return drawn_heights(point.damage for point in points)
