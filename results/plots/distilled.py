"""Drawing distilled maps: each at its size, joined to the map as searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from objectives.packing.footprint import SizeAxis
from results.plots.distilled_info import Change, DistilledPoint
from results.plots.style import BLACK

DISTILLED_MARKERS = {"distilled: weights": "v", "distilled: scales": "s"}
"""The marker of each kind of distilled map, by its name in legends."""


def draw_distilled(
    axes: Axes,
    points: Sequence[DistilledPoint],
    size_axis: SizeAxis,
    change: Callable[[DistilledPoint], Change | None],
    floor: float = float("-inf"),
    *,
    run: str = "",
    colour: str = BLACK,
) -> None:
    """Draw one figure of distilled maps with its intervals, and a dotted line from where each map was as searched.

    Args:
        axes: where to draw.
        points: the maps; those without the figure are left out.
        size_axis: what the compression counts.
        change: returns the figure.
        floor: figures below it are drawn there.
        run: what the legend calls the run, where there are several.
        colour: of all that is drawn.
    """
    labelled: set[str] = set()
    for point in points:
        if (figure := change(point)) is None:
            continue
        at = point.trial.compression(size_axis)
        before, after = max(figure.before, floor), max(figure.after, floor)
        axes.plot([at, at], [before, after], color=colour, linestyle=":", linewidth=1.2, zorder=5.5)
        if figure.interval is not None:
            low, high = (max(end, floor) for end in (figure.interval.low, figure.interval.high))
            axes.vlines(at, low, high, color=colour, alpha=0.5, linewidth=2.2, zorder=5.6)
        axes.plot(
            [at],
            [after],
            linestyle="none",
            marker=DISTILLED_MARKERS[point.legend],
            markersize=6.5,
            color=colour,
            markerfacecolor=colour if point.trial.feasible else "white",
            zorder=6.5,
            label=None if point.legend in labelled else f"{run}, {point.legend}" if run else point.legend,
        )
        labelled.add(point.legend)
