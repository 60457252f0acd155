"""Drawing the plots with matplotlib: figures are made as values, without the global state of pyplot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from objectives.files import replacing
from objectives.layers import WIDTHS
from results.plot_info import BitsInfo, ParetoInfo, Point, bits_table, pareto_table
from results.tables import write_csv
from results.words import QUALITY_WORDS

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

DAMAGE_FLOOR = 1e-6
"""A damage below this, in nats a sentence, is drawn here: the axis is logarithmic, and less is rounding."""

PNG_DPI = 160
_MOST_VECTOR_POINTS = 500  # more than this many dominated trials become one image inside the SVG

# Okabe and Ito, "Color universal design" (2008): told apart with any common colour blindness.
_BLUE, _VERMILION, _GREEN, _PURPLE, _BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"
_ORANGE = "#E69F00"
_GREY = "#9a9a9a"
_HALO = [withStroke(linewidth=2.5, foreground="white")]  # labels stay readable above points

_STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "bitfront",  # the same outcome gives the same file
}


def write_pareto_plot(info: ParetoInfo, directory: Path) -> str:
    """Write ``pareto.png``, ``pareto.svg`` and ``pareto.csv`` into a directory, each in one step; return the SVG."""
    write_csv(pareto_table(info), directory / "pareto.csv")
    with matplotlib.rc_context(_STYLE):
        return _save(draw_pareto(info), directory, "pareto")


def write_bits_plot(info: BitsInfo, directory: Path) -> str:
    """Write ``bits.png``, ``bits.svg`` and ``bits.csv`` into a directory, each in one step; return the SVG."""
    write_csv(bits_table(info), directory / "bits.csv")
    with matplotlib.rc_context(_STYLE):
        return _save(draw_bits(info), directory, "bits")


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


def draw_bits(info: BitsInfo) -> Figure:
    """Draw the width of every layer, a panel for each map; the input is at the top, the output at the bottom."""
    n_columns, n_rows, n_maps = max(len(info.columns), 1), max(len(info.rows), 1), max(len(info.maps), 1)
    cell_width, cell_height, gap = 0.42, 0.27, 0.35  # inches
    left, right, top, bottom = 1.65, 0.15, 0.75, 1.6
    panel_width, panel_height = max(n_columns * cell_width, 2.5), n_rows * cell_height
    width = left + n_maps * panel_width + (n_maps - 1) * gap + right
    height = top + panel_height + bottom
    figure = Figure(figsize=(width, height))
    if not info.maps:
        figure.text(0.5, 0.5, "no map to show yet", ha="center", va="center")
        return figure
    colours = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.05, 0.95, len(WIDTHS))))
    norm = BoundaryNorm(np.arange(WIDTHS[0] - 0.5, WIDTHS[-1] + 1), len(WIDTHS))
    for at, shown in enumerate(info.maps):
        corner = ((left + at * (panel_width + gap)) / width, bottom / height)
        axes = figure.add_axes((*corner, panel_width / width, panel_height / height))
        boxes, widths = [], []
        for cell, bits in zip(info.cells, shown.bits, strict=True):
            x, span = (0, n_columns) if cell.column is None else (cell.column, 1)
            boxes.append(Rectangle((x + 0.04, cell.row + 0.04), span - 0.08, 0.92))
            widths.append(bits)
            ink = "white" if _is_dark(colours(norm(bits))) else "black"
            axes.text(x + span / 2, cell.row + 0.52, str(bits), color=ink, ha="center", va="center", fontsize=8.5)
        patches = PatchCollection(boxes, cmap=colours, norm=norm, linewidths=0)
        patches.set_array(np.array(widths))
        axes.add_collection(patches)
        _dress_panel(axes, info, shown.title, labelled=at == 0)
    _draw_scale(figure, colours, norm, left / width, 0.42 / height, min(2.8, panel_width) / width, 0.14 / height)
    return figure


def _draw_damage(axes: Axes, info: ParetoInfo) -> None:
    axes.set_yscale("log")
    front = info.front
    if front and info.quality == "damage":
        axes.step(_x(front), _damage(front), where="pre", color=_BLUE, linewidth=1.4, zorder=2.5)
    others = info.others
    _scatter_others(axes, others, _damage(others))
    _markers(axes, front, _damage(front), label=_front_label(info), **_FRONT)
    _draw_contenders(axes, info, [max(point.damage, DAMAGE_FLOOR) for point in info.contenders])
    _draw_reference(axes, info, [max(info.reference.damage, DAMAGE_FLOOR)] if info.reference else [])
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
    axes.axhspan(band.low, band.high, color=_BLACK, alpha=0.07, linewidth=0, zorder=0.5)
    axes.axhline(info.fp32_mcc, color=_BLACK, linewidth=1.2, zorder=1.6, label=_FP32_LABEL)
    front = info.front
    if front and info.quality == "mcc":
        axes.step(_x(front), [point.mcc for point in front], where="pre", color=_BLUE, linewidth=1.4, zorder=2.5)
    others = info.others
    _scatter_others(axes, others, [point.mcc for point in others])
    # The front's bars overlap where it is dense: they are thin, and those of contenders and reference stand out.
    _bars(axes, front, _BLUE, alpha=0.35)
    uniform = [point for point in info.contenders if point.origin != "plain" and not point.on_front]
    _bars(axes, uniform, _GREEN, alpha=0.6)
    _bars(axes, [info.reference] if info.reference else [], _VERMILION, alpha=0.9)
    _markers(axes, front, [point.mcc for point in front], label=_front_label(info), **_FRONT)
    _draw_contenders(axes, info, [point.mcc for point in info.contenders])
    _draw_reference(axes, info, [info.reference.mcc] if info.reference else [])
    axes.set_ylabel("MCC, with 95% intervals")


_CONSTRAINT: dict[str, Any] = {"color": _PURPLE, "linestyle": (0, (5, 3)), "linewidth": 1.4, "zorder": 1.5}
_FRONT: dict[str, Any] = {"color": _BLUE, "marker": "o", "markersize": 5, "zorder": 4}


_REFERENCE_LABEL = "reference: the documented map"
# Label, marker, its size and its colour.
_UNIFORM = ("uniform map (number: its width)", "D", 7, _GREEN)
_PLAIN = ("plain allocation", "^", 6, _ORANGE)
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
    order = [_front_label(info), _REFERENCE_LABEL, _UNIFORM[0], _PLAIN[0], _FP32_LABEL, _constraint_label(info)]
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
                color=_GREY,
                markerfacecolor=_GREY if feasible else "white",
                markeredgewidth=0.6,
                alpha=0.55,
                zorder=2,
                rasterized=len(chosen) > _MOST_VECTOR_POINTS,
                label=f"trial of the sampler, {label}",
            )


def _markers(axes: Axes, points: Sequence[Point], heights: Sequence[float], **style: Any) -> None:
    if points:
        axes.plot(_x(points), heights, linestyle="none", **style)


def _draw_contenders(axes: Axes, info: ParetoInfo, heights: Sequence[float]) -> None:
    labelled: set[str] = set()
    for point, height in zip(info.contenders, heights, strict=True):
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


def _draw_reference(axes: Axes, info: ParetoInfo, heights: Sequence[float]) -> None:
    point = info.reference
    if point is None:
        return
    axes.plot(
        [point.compression],
        heights,
        linestyle="none",
        marker="*",
        markersize=16,
        color=_VERMILION,
        markerfacecolor=_VERMILION if point.feasible else "white",
        markeredgewidth=1.2,
        zorder=6,
        label=_REFERENCE_LABEL,
    )
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
    """Mark above the panel where 8 to 2 bits a weight lie: nominal compression is 32 over the mean width."""
    top = axes.secondary_xaxis("top")
    top.set_xticks([32 / width for width in WIDTHS], labels=[str(width) for width in WIDTHS])
    top.set_xlabel("mean bits a weight")


def _compression_limits(info: ParetoInfo) -> tuple[float, float]:
    marks = [info.min_compression - 1, info.min_compression + 1, *(point.compression for point in info.points)]
    margin = 0.04 * (max(marks) - min(marks)) + 0.2
    return min(marks) - margin, max(marks) + margin


def _x(points: Sequence[Point]) -> list[float]:
    return [point.compression for point in points]


def _damage(points: Sequence[Point]) -> list[float]:
    return [max(point.damage, DAMAGE_FLOOR) for point in points]


def _dress_panel(axes: Axes, info: BitsInfo, title: Sequence[str], labelled: bool) -> None:
    axes.set_xlim(0, max(len(info.columns), 1))
    axes.set_ylim(len(info.rows), 0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(info.columns)) + 0.5, labels=info.columns, rotation=50, ha="right", fontsize=8.5)
    axes.set_yticks(np.arange(len(info.rows)) + 0.5, labels=info.rows if labelled else [], fontsize=8.5)
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


def _draw_scale(
    figure: Figure, colours: ListedColormap, norm: BoundaryNorm, left: float, bottom: float, width: float, height: float
) -> None:
    axes = figure.add_axes((left, bottom, width, height))
    axes.imshow([list(WIDTHS)], cmap=colours, norm=norm, aspect="auto")
    axes.set_xticks(range(len(WIDTHS)), labels=[str(bits) for bits in WIDTHS], fontsize=8.5)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("bits", fontsize=8.5)


def _is_dark(colour: Any) -> bool:
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.5


def _save(figure: Figure, directory: Path, stem: str) -> str:
    """Save a figure as PNG and SVG, each in one step, and return the text of the SVG."""
    with replacing(directory / f"{stem}.png") as temporary:
        figure.savefig(temporary, dpi=PNG_DPI)
    with replacing(directory / f"{stem}.svg") as temporary:
        figure.savefig(temporary, dpi=PNG_DPI, metadata={"Date": None})
        return temporary.read_text(encoding="utf-8")
