"""Drawing the Pareto plot with matplotlib: a figure is made as a value, without the global state of pyplot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from objectives.layers import WIDTHS
from results.columns import write_csv
from results.formatting import QUALITY_WORDS
from results.plots.plot_info import ParetoInfo, Point, pareto_table
from results.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, save_plot

DAMAGE_FLOOR = 1e-6
"""A damage below this, in nats a sentence, is drawn here: the axis is logarithmic, and less is rounding."""

_MOST_VECTOR_POINTS = 500  # more than this many dominated trials become one image inside the SVG

_HALO = [withStroke(linewidth=2.5, foreground="white")]  # labels stay readable above points


def write_pareto_plot(info: ParetoInfo, directory: Path) -> str:
    """Write ``pareto.png``, ``pareto.svg`` and ``pareto.csv`` into a directory, each in one step; return the SVG."""
    write_csv(pareto_table(info), directory / "pareto.csv")
    return save_plot(lambda: draw_pareto(info), directory, "pareto")


def draw_pareto(info: ParetoInfo) -> Figure:
    """Draw damage and MCC against compression, one above the other."""
    # Margins are given: to fit them to the text would take as long again as the whole drawing.
    figure = Figure(figsize=(9.5, 8.2))
    top = 0.845 if info.size_axis == "nominal" else 0.895
    figure.subplots_adjust(left=0.085, right=0.98, bottom=0.065, top=top, hspace=0.06)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for axes in (upper, lower):
        axes.axvline(info.min_compression, label=_constraint_label(info), **_CONSTRAINT)
        axes.margins(y=0.07)
    _draw_damage(upper, info)
    _draw_mcc(lower, info)
    lower.set_xlabel(f"compression, times ({info.size_axis}); further right is smaller")
    lower.set_xlim(*_compression_limits(info))
    lower.xaxis.set_major_locator(MaxNLocator(nbins=13, steps=[1, 2, 5, 10]))
    if info.size_axis == "nominal":
        _draw_mean_widths(upper)
    figure.align_ylabels([upper, lower])
    _draw_legend(figure, info, (upper, lower))
    return figure


def _draw_damage(axes: Axes, info: ParetoInfo) -> None:
    axes.set_yscale("log")
    front = info.front
    if front and info.quality == "damage":
        axes.step(_x(front), _damage(front), where="pre", color=BLUE, linewidth=1.4, zorder=2.5)
    others = info.others
    _scatter_others(axes, others, _damage(others))
    _markers(axes, front, _damage(front), label=_front_label(info), **_FRONT)
    _draw_baselines(axes, info, [max(point.damage, DAMAGE_FLOOR) for point in info.baselines])
    _draw_reference(axes, info, [max(info.reference.damage, DAMAGE_FLOOR)] if info.reference else [], named=True)
    axes.set_ylabel("damage, nats a sentence")
    if any(point.damage < DAMAGE_FLOOR for point in info.points):
        note = f"damage below {DAMAGE_FLOOR:g} is drawn at {DAMAGE_FLOOR:g}"
        axes.text(0.99, 0.02, note, transform=axes.transAxes, ha="right", fontsize=8)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5), numticks=50))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda damage, _: f"{damage:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if not info.points:
        axes.set_ylim(1e-4, 1)
        axes.text(0.5, 0.5, "no map has been scored yet", transform=axes.transAxes, ha="center", va="center")


def _draw_mcc(axes: Axes, info: ParetoInfo) -> None:
    band = info.fp32_mcc_interval
    axes.axhspan(band.low, band.high, color=BLACK, alpha=0.07, linewidth=0, zorder=0.5)
    axes.axhline(info.fp32_mcc, color=BLACK, linewidth=1.2, zorder=1.6, label=_FP32_LABEL)
    front = info.front
    if front and info.quality == "mcc":
        axes.step(_x(front), [point.mcc for point in front], where="pre", color=BLUE, linewidth=1.4, zorder=2.5)
    others = info.others
    _scatter_others(axes, others, [point.mcc for point in others])
    # The front's bars overlap where it is dense: they are thin, and those of contenders and reference stand out.
    corrected = [(point.compression, point.corrected) for point in info.points if point.corrected is not None]
    if corrected:
        lows = [known.mcc_interval.low for _, known in corrected]
        highs = [known.mcc_interval.high for _, known in corrected]
        axes.vlines([x for x, _ in corrected], lows, highs, color=BLUE, alpha=0.35, linewidth=1.3, zorder=1.8)
        heights = [known.mcc for _, known in corrected]
        axes.plot([x for x, _ in corrected], heights, label=_CORRECTED_LABEL, **_CORRECTED)
    uniform = [point for point in info.baselines if point.origin != "plain" and not point.on_front]
    _bars(axes, uniform, GREEN, alpha=0.6)
    _bars(axes, [info.reference] if info.reference else [], VERMILION, alpha=0.9)
    _markers(axes, front, [point.mcc for point in front], label=_front_label(info), **_FRONT)
    _draw_baselines(axes, info, [point.mcc for point in info.baselines])
    # In this panel all maps are about as high, and words would cover them.
    _draw_reference(axes, info, [info.reference.mcc] if info.reference else [], named=False)
    axes.set_ylabel("MCC, with 95% intervals")


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
_UNIFORM = ("uniform map (number: its width)", "D", 7, GREEN)
_PLAIN = ("plain allocation", "^", 6, ORANGE)
_CORRECTED_LABEL = "picks corrected for luck, 95% interval"
_FP32_LABEL = "FP32 and its 95% interval"


def _front_label(info: ParetoInfo) -> str:
    return f"front of {QUALITY_WORDS[info.quality]} and size"


def _constraint_label(info: ParetoInfo) -> str:
    return f"constraint: {info.min_compression:.10g}x"


def _draw_legend(figure: Figure, info: ParetoInfo, panels: Sequence[Axes]) -> None:
    """List each mark once, the front first and what it stands against last."""
    handles: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    last = [_CORRECTED_LABEL, _FP32_LABEL, _constraint_label(info)]
    order = [_front_label(info), _REFERENCE_LABEL, _UNIFORM[0], _PLAIN[0], *last]
    labels = sorted(handles, key=lambda label: order.index(label) if label in order else len(order))
    figure.legend([handles[label] for label in labels], labels, loc="upper center", ncols=3)


def _scatter_others(axes: Axes, others: Sequence[Point], heights: Sequence[float]) -> None:
    for feasible, label in ((True, "beaten"), (False, "misses the constraint")):
        chosen = [at for at, point in enumerate(others) if point.feasible == feasible]
        if chosen:
            axes.plot(
                [others[at].compression for at in chosen],
                [heights[at] for at in chosen],
                linestyle="none",
                marker="o",
                markersize=3,
                color=GREY,
                markerfacecolor=GREY if feasible else "white",
                markeredgewidth=0.6,
                alpha=0.55,
                zorder=2,
                rasterized=len(chosen) > _MOST_VECTOR_POINTS,
                label=f"trial of the sampler, {label}",
            )


def _markers(axes: Axes, points: Sequence[Point], heights: Sequence[float], **style: Any) -> None:
    if points:
        axes.plot(_x(points), heights, linestyle="none", **style)


def _draw_baselines(axes: Axes, info: ParetoInfo, heights: Sequence[float]) -> None:
    labelled: set[str] = set()
    for point, height in zip(info.baselines, heights, strict=True):
        label, marker, size, colour = _PLAIN if point.origin == "plain" else _UNIFORM
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
            continue  # they stand where the front does: words would hide it
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


def _draw_reference(axes: Axes, info: ParetoInfo, heights: Sequence[float], named: bool) -> None:
    point = info.reference
    if point is None:
        return
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


def _bars(axes: Axes, points: Sequence[Point], colour: str, alpha: float) -> None:
    barred = [(point.compression, point.mcc_interval) for point in points if point.mcc_interval is not None]
    if barred:
        lows, highs = [interval.low for _, interval in barred], [interval.high for _, interval in barred]
        axes.vlines([x for x, _ in barred], lows, highs, color=colour, alpha=alpha, linewidth=1.3, zorder=1.8)


def _draw_mean_widths(axes: Axes) -> None:
    """Mark above the panel where 8 to 2 bits per weight lie: nominal compression is 32 over the mean width."""
    top = axes.secondary_xaxis("top")
    top.set_xticks([32 / width for width in WIDTHS], labels=[str(width) for width in WIDTHS])
    top.set_xlabel("mean bits per weight")


def _compression_limits(info: ParetoInfo) -> tuple[float, float]:
    marks = [info.min_compression - 1, info.min_compression + 1, *(point.compression for point in info.points)]
    margin = 0.04 * (max(marks) - min(marks)) + 0.2
    return min(marks) - margin, max(marks) + margin


def _x(points: Sequence[Point]) -> list[float]:
    return [point.compression for point in points]


def _damage(points: Sequence[Point]) -> list[float]:
    return [max(point.damage, DAMAGE_FLOOR) for point in points]
