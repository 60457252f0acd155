"""What the plots show, as plain values: worked out and tested without a plotting library, and written beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import pandas as pd

from objectives.layers import BitMap, Layer
from objectives.packing.footprint import SizeAxis
from results.formatting import nats, times
from results.outcome import Origin, Quality, Trial
from results.statistics.analysis import Analysis
from results.statistics.bootstrap import Interval
from results.statistics.intervals import Estimate

MOST_PICKED_MAPS = 4


@dataclass(frozen=True)
class Point:
    """One complete trial in the Pareto plot.

    ``damage`` is in nats a sentence, ``mcc_interval`` there where it is drawn, ``corrected`` for the picks by size.
    """

    number: int
    label: str
    origin: Origin
    compression: float
    damage: float
    mcc: float
    mcc_interval: Interval | None
    feasible: bool
    on_front: bool
    widths: tuple[int, ...]
    corrected: Estimate | None = None

    @property
    def short_label(self) -> str:
        """The width of a uniform map, as ``4``; the label of others."""
        return str(self.widths[0]) if self.origin == "uniform" and len(self.widths) == 1 else self.label


@dataclass(frozen=True)
class ParetoInfo:
    """What the Pareto plot shows.

    Attributes:
        size_axis: what the compression counts.
        quality: what the front is best in.
        min_compression: where the constraint's line stands.
        points: every complete trial, by number.
        fp32_mcc: the level of the FP32 model.
        fp32_mcc_interval: the band around it.
    """

    size_axis: SizeAxis
    quality: Quality
    min_compression: float
    points: tuple[Point, ...]
    fp32_mcc: float
    fp32_mcc_interval: Interval

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
        """The points that no search proposed, save the reference; some may be on the front."""
        return tuple(point for point in self.points if point.origin not in ("sampler", "reference"))

    @property
    def reference(self) -> Point | None:
        """The documented map, where it was scored."""
        return next((point for point in self.points if point.origin == "reference"), None)


@dataclass(frozen=True)
class Cell:
    """Where one layer stands in the heat map: its row, and its column, or None where it fills the row."""

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
    """Where each layer stands in a heat map: rows from the input to the output.

    Attributes:
        rows: the rows' names, top to bottom: layers outside the encoder's blocks, and the blocks.
        columns: the names of a block's parts, left to right.
        cells: one a layer, in layer order.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class BitsInfo:
    """What the heat map of bits shows: a panel for each map."""

    grid: LayerGrid
    maps: tuple[ShownMap, ...]


def pareto_info(found: Analysis) -> ParetoInfo:
    """Return what the Pareto plot shows of an outcome."""
    outcome = found.outcome
    on_front = found.front_numbers
    points = []
    for trial in outcome.trials:
        if trial.scores is None:
            continue
        # Bars on thousands of dominated trials would hide the front; picks off the front are only in tables.
        barred = trial.number in on_front or trial.origin != "sampler"
        points.append(
            Point(
                number=trial.number,
                label=trial.label,
                origin=trial.origin,
                compression=trial.compression(outcome.size_axis),
                damage=trial.scores.damage,
                mcc=trial.scores.mcc,
                mcc_interval=found.intervals[trial.number].mcc if barred else None,
                feasible=trial.feasible,
                on_front=trial.number in on_front,
                widths=tuple(sorted(set(trial.bit_map))),
                corrected=found.corrected.get(trial.number),
            )
        )
    return ParetoInfo(
        size_axis=outcome.size_axis,
        quality=outcome.quality,
        min_compression=outcome.min_compression,
        points=tuple(points),
        fp32_mcc=outcome.fp32.mcc,
        fp32_mcc_interval=found.fp32_mcc,
    )


def pareto_table(info: ParetoInfo) -> pd.DataFrame:
    """Return the numbers of the Pareto plot, a row a point, after a row for the FP32 model (number -1)."""
    rows: list[dict[str, object]] = [
        {
            "number": -1,
            "origin": "fp32",
            "label": "FP32",
            "feasible": False,
            "on_front": False,
            f"{info.size_axis}_compression": 1.0,
            "damage": 0.0,
            "mcc": info.fp32_mcc,
            "mcc_low": info.fp32_mcc_interval.low,
            "mcc_high": info.fp32_mcc_interval.high,
            "corrected_mcc": nan,
            "corrected_mcc_low": nan,
            "corrected_mcc_high": nan,
        }
    ]
    rows += [
        {
            "number": point.number,
            "origin": point.origin,
            "label": point.label,
            "feasible": point.feasible,
            "on_front": point.on_front,
            f"{info.size_axis}_compression": point.compression,
            "damage": point.damage,
            "mcc": point.mcc,
            "mcc_low": point.mcc_interval.low if point.mcc_interval else nan,
            "mcc_high": point.mcc_interval.high if point.mcc_interval else nan,
            "corrected_mcc": point.corrected.mcc if point.corrected else nan,
            "corrected_mcc_low": point.corrected.mcc_interval.low if point.corrected else nan,
            "corrected_mcc_high": point.corrected.mcc_interval.high if point.corrected else nan,
        }
        for point in info.points
    ]
    return pd.DataFrame(rows)


def bits_info(found: Analysis) -> BitsInfo:
    """Return what the heat map shows: the documented map where it fits, then the distinct picks by size."""
    shown: list[ShownMap] = []
    if found.reference is not None:
        shown.append(_shown(found, found.reference, "documented"))
    seen = {shown_map.number for shown_map in shown}
    by_size = [headline for headline in found.headlines if headline.request.startswith("best@")]
    for headline in by_size[:MOST_PICKED_MAPS]:
        trial = headline.trial
        if trial is None or trial.number in seen:
            continue
        seen.add(trial.number)
        shown.append(_shown(found, trial, f"{headline.request}: {trial.label}"))
    return BitsInfo(grid=layer_grid(found.outcome.footprint.layers), maps=tuple(shown))


def bits_table(info: BitsInfo) -> pd.DataFrame:
    """Return the numbers of the heat map, a row a layer and map."""
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
    """Return every layer's place; a name with a number in it is a part of that block."""
    rows: list[str] = []
    columns: list[str] = []
    cells = []
    for layer in layers:
        match = _BLOCK.search(layer.name)
        row = f"layer {match['block']}" if match else _short(layer.name.partition(".")[2] or layer.name)
        if row not in rows:
            rows.append(row)
        column = None
        if match:
            part = _short(match["part"])
            if part not in columns:
                columns.append(part)
            column = columns.index(part)
        cells.append(Cell(layer=layer.name, row=rows.index(row), column=column))
    return LayerGrid(tuple(rows), tuple(columns), tuple(cells))


def _short(name: str) -> str:
    """Return a module's name as a label: ``attention.output.dense`` as ``attention output``."""
    words = name.removeprefix("embeddings.").removesuffix(".dense").removeprefix("attention.self.")
    return re.sub(r"[._]+", " ", words)


def _shown(found: Analysis, trial: Trial, heading: str) -> ShownMap:
    size = f"{times(trial.nominal_compression)} nominal, {times(trial.packed_compression)} packed"
    if trial.scores is None:
        scores = "evaluation failed"
    else:
        interval = found.intervals[trial.number].mcc
        scores = f"damage {nats(trial.scores.damage)}"
        scores += f", MCC {trial.scores.mcc:.2f} ({interval.low:.2f} to {interval.high:.2f})"
    return ShownMap(number=trial.number, label=trial.label, title=(heading, size, scores), bit_map=trial.bit_map)
