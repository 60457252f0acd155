"""What the Pareto plot and the heat map of bits show, as values that need no plotting library, and their tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from objectives.layers import BitMap, Layer
from objectives.metrics import METRIC_NAMES, MetricName
from objectives.packing.footprint import SizeAxis
from results.columns import Column, Measured, to_frame
from results.formatting import nats, times
from results.outcome import Origin, Quality, Trial
from results.plots.distilled_info import DistilledPoint
from results.statistics.analysis import Analysis
from results.statistics.bootstrap import Interval
from results.statistics.intervals import Estimate
from results.statistics.picks import SMALLEST

MOST_PICKED_MAPS = 4
"""How many picks by size the heat map shows at most."""


@dataclass(frozen=True)
class Point:
    """One complete trial in the Pareto plot.

    Attributes:
        number: the trial's number; ``label`` and ``origin`` are the trial's too.
        compression: on the plot's size axis; higher is smaller.
        damage: nats a sentence; lower is better.
        metric: the task's; higher is better.
        metric_interval: 95%; None if the plot does not draw it.
        feasible: whether it meets the size constraint.
        on_front: whether it is on the front.
        widths: the different widths in its map, rising.
        corrected: its metric, corrected for the luck of selection; None if it is not a pick by size.
    """

    number: int
    label: str
    origin: Origin
    compression: float
    damage: float
    metric: float
    metric_interval: Interval | None
    feasible: bool
    on_front: bool
    widths: tuple[int, ...]
    corrected: Estimate | None = None

    @property
    def short_label(self) -> str:
        """The width of a uniform map, as ``4``, or the label of any other map."""
        return str(self.widths[0]) if self.origin == "uniform" and len(self.widths) == 1 else self.label


@dataclass(frozen=True)
class ParetoInfo:
    """What the Pareto plot shows.

    Attributes:
        size_axis: what the compression counts.
        quality: the quality of the front.
        min_compression: the size constraint.
        points: every complete trial, by number.
        metric: the task's.
        fp32_metric: that of the FP32 model.
        fp32_metric_interval: its 95% interval.
        distilled: the distilled maps that it shows; they are no trials.
    """

    size_axis: SizeAxis
    quality: Quality
    min_compression: float
    points: tuple[Point, ...]
    metric: MetricName
    fp32_metric: float
    fp32_metric_interval: Interval
    distilled: tuple[DistilledPoint, ...] = ()

    @property
    def front(self) -> tuple[Point, ...]:
        """The points of the front, by rising compression, whoever proposed them."""
        return tuple(sorted((point for point in self.points if point.on_front), key=lambda point: point.compression))

    @property
    def others(self) -> tuple[Point, ...]:
        """The sampler's points that are not on the front."""
        return tuple(point for point in self.points if point.origin == "sampler" and not point.on_front)

    @property
    def baselines(self) -> tuple[Point, ...]:
        """The uniform and knapsack maps; some may be on the front."""
        return tuple(point for point in self.points if point.origin not in ("sampler", "reference"))

    @property
    def reference(self) -> Point | None:
        """The documented map, if it has scores."""
        return next((point for point in self.points if point.origin == "reference"), None)


@dataclass(frozen=True)
class HeatMapCell:
    """The place of one layer in the heat map: its row, and its column, or None if it fills the row."""

    layer: str
    row: int
    column: int | None


@dataclass(frozen=True)
class ShownMap:
    """One panel of the heat map: its trial, the lines of its title, and the map in layer order."""

    number: int
    label: str
    title: tuple[str, ...]
    bit_map: BitMap


@dataclass(frozen=True)
class LayerGrid:
    """The place of each layer in a heat map, with the model's input at the top.

    Attributes:
        rows: the rows' names, top to bottom: the blocks of the encoder, and the layers outside them.
        columns: the names of a block's parts, left to right.
        cells: one cell a layer, in layer order.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[HeatMapCell, ...]


@dataclass(frozen=True)
class BitsInfo:
    """What the heat map of bits shows: one panel a map."""

    grid: LayerGrid
    maps: tuple[ShownMap, ...]


def pareto_info(analysis: Analysis, distilled: Sequence[DistilledPoint] = ()) -> ParetoInfo:
    """Return what the Pareto plot shows of an outcome, and of its distilled maps."""
    outcome = analysis.outcome
    on_front = analysis.front_numbers
    points = []
    for trial in outcome.trials:
        if trial.scores is None:
            continue
        # Intervals of thousands of beaten trials would hide the front. Picks off the front are only in tables.
        has_interval = trial.number in on_front or trial.origin != "sampler"
        points.append(
            Point(
                number=trial.number,
                label=trial.label,
                origin=trial.origin,
                compression=trial.compression(outcome.size_axis),
                damage=trial.scores.damage,
                metric=trial.scores.metric,
                metric_interval=analysis.intervals[trial.number].metric if has_interval else None,
                feasible=trial.feasible,
                on_front=trial.number in on_front,
                widths=tuple(sorted(set(trial.bit_map))),
                corrected=analysis.corrected.get(trial.number),
            )
        )
    return ParetoInfo(
        size_axis=outcome.size_axis,
        quality=outcome.quality,
        min_compression=outcome.min_compression,
        points=tuple(points),
        metric=outcome.metric,
        fp32_metric=outcome.fp32.metric,
        fp32_metric_interval=analysis.fp32_metric,
        distilled=tuple(distilled),
    )


def pareto_table(info: ParetoInfo) -> pd.DataFrame:
    """Return ``pareto.csv``: one row for the FP32 model (number -1), then one row a point."""
    fp32 = Point(-1, "FP32", "reference", 1.0, 0.0, info.fp32_metric, info.fp32_metric_interval, False, False, ())
    columns: list[Column[Point]] = [
        Column("number", "", lambda point: point.number),
        Column("origin", "", lambda point: "fp32" if point is fp32 else point.origin),
        Column("label", "", lambda point: point.label),
        Column("feasible", "", lambda point: point.feasible),
        Column("on_front", "", lambda point: point.on_front),
        Column(f"{info.size_axis}_compression", "", lambda point: point.compression),
        Column("damage", "", lambda point: point.damage),
        Column(info.metric, "", _metric, interval=True),
        Column(f"corrected_{info.metric}", "", _corrected_metric, interval=True),
    ]
    return to_frame(columns, [fp32, *info.points])


def _metric(point: Point) -> Measured | float:
    return Measured(point.metric, point.metric_interval) if point.metric_interval else point.metric


def _corrected_metric(point: Point) -> Measured | None:
    return Measured(point.corrected.metric, point.corrected.metric_interval) if point.corrected else None


def bits_info(analysis: Analysis) -> BitsInfo:
    """Return what the heat map of bits shows: the documented map if there is one, then the different picks.

    These are the picks by size and the smallest map within the margin, which reports recommend; by falling size.
    """
    picks: dict[int, tuple[Trial, str]] = {}
    by_size = [headline for headline in analysis.headlines if headline.request.startswith("best@")]
    smallest = [headline for headline in analysis.headlines if headline.request == SMALLEST]
    for headline in by_size[:MOST_PICKED_MAPS] + smallest:
        if headline.trial is not None and headline.trial is not analysis.reference:
            picks.setdefault(headline.trial.number, (headline.trial, headline.request))
    shown = [] if analysis.reference is None else [_shown_map(analysis, analysis.reference, "documented")]
    for trial, request in sorted(picks.values(), key=lambda pick: pick[0].nominal_compression):
        shown.append(_shown_map(analysis, trial, f"{request}: {trial.label}"))
    return BitsInfo(grid=layer_grid(analysis.outcome.footprint.layers), maps=tuple(shown))


def bits_table(info: BitsInfo) -> pd.DataFrame:
    """Return ``bits.csv``: one row for each layer of each map."""
    rows = [
        {
            "number": shown.number,
            "map": shown.label,
            "layer": cell.layer,
            "row": info.grid.rows[cell.row],
            "part": "" if cell.column is None else info.grid.columns[cell.column],
            "bits": width,
        }
        for shown in info.maps
        for cell, width in zip(info.grid.cells, shown.bit_map, strict=True)
    ]
    return pd.DataFrame(rows, columns=["number", "map", "layer", "row", "part", "bits"])


_BLOCK = re.compile(r"(?:^|\.)(?P<block>[0-9]+)\.(?P<part>.+)$")


def layer_grid(layers: Sequence[Layer]) -> LayerGrid:
    """Return the place of each layer; a number in a layer's name is its block, and what follows is the part."""
    rows: list[str] = []
    columns: list[str] = []
    cells = []
    for layer in layers:
        match = _BLOCK.search(layer.name)
        row = f"layer {match['block']}" if match else _short_name(layer.name.partition(".")[2] or layer.name)
        if row not in rows:
            rows.append(row)
        column = None
        if match:
            part = _short_name(match["part"])
            if part not in columns:
                columns.append(part)
            column = columns.index(part)
        cells.append(HeatMapCell(layer=layer.name, row=rows.index(row), column=column))
    return LayerGrid(tuple(rows), tuple(columns), tuple(cells))


def _short_name(name: str) -> str:
    """Return a module's name as a label: ``attention.output.dense`` as ``attention output``."""
    part = name.removeprefix("embeddings.").removesuffix(".dense").removeprefix("attention.self.")
    return re.sub(r"[._]+", " ", part)


def _shown_map(analysis: Analysis, trial: Trial, heading: str) -> ShownMap:
    size = f"{times(trial.nominal_compression)} nominal, {times(trial.packed_compression)} packed"
    if trial.scores is None:
        scores = "evaluation failed"
    else:
        interval = analysis.intervals[trial.number].metric
        scores = f"damage {nats(trial.scores.damage)}, {METRIC_NAMES[analysis.outcome.metric]}"
        scores += f" {trial.scores.metric:.2f} ({interval.low:.2f} to {interval.high:.2f})"
    return ShownMap(number=trial.number, label=trial.label, title=(heading, size, scores), bit_map=trial.bit_map)
