"""The table of a run's polished maps, kept apart from the search's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from objectives.errors import InputError
from objectives.metrics import METRIC_NAMES, METRICS, MetricName
from results.columns import Column, Measured, shown, to_frame, write_csv
from results.formatting import DAMAGE, metric, nats, times
from results.statistics.bootstrap import Interval

FOLDER = "polished"
"""The folder of a run's polished checkpoints; their table is beside it."""


@dataclass(frozen=True)
class PolishedMap:
    """One map before and after polishing; damage in nats a sentence, intervals of 95%.

    Attributes:
        number: its trial's number.
        label: what plots and tables call it.
        nominal_compression: FP32 size over size, codes only; polishing changes neither size.
        packed_compression: FP32 size over size, every byte.
        kept: whether polishing lowered the held-out damage; if not, the scores before and after are of the same map.
        held_out_damage_before: on training sentences that polishing did not tune on, which decide ``kept``.
        held_out_damage_after: likewise, after polishing.
        damage_before: on the validation sentences, with ``damage_before_low`` to ``damage_before_high``.
        damage_after: likewise, after polishing.
        metric_before: the task's metric on the validation sentences, with ``metric_before_low`` and ``..._high``.
        metric_after: likewise, after polishing.
        checkpoint: its directory, relative to the run's.
    """

    number: int
    label: str
    nominal_compression: float
    packed_compression: float
    kept: bool
    held_out_damage_before: float
    held_out_damage_after: float
    damage_before: float
    damage_before_low: float
    damage_before_high: float
    damage_after: float
    damage_after_low: float
    damage_after_high: float
    metric_before: float
    metric_before_low: float
    metric_before_high: float
    metric_after: float
    metric_after_low: float
    metric_after_high: float
    checkpoint: str


_TYPES = {field.name: str(field.type) for field in fields(PolishedMap)}  # pandas knows the types by these names


def figures_of(polished: PolishedMap, name: MetricName) -> dict[str, Any]:
    """Return a map's figures by their columns' names."""
    return dict(zip(_names(name), asdict(polished).values(), strict=True))


def polished_of(figures: Mapping[str, Any], name: MetricName) -> PolishedMap | None:
    """Return the map with these figures and perhaps others; None if some are missing.

    Older versions called every metric ``mcc``.
    """
    for names in (_names(name), _names("mcc")):
        if figures.keys() >= set(names):
            return PolishedMap(*(figures[column] for column in names))
    return None


def _names(metric: MetricName) -> list[str]:
    return [name.replace("metric_", f"{metric}_") for name in _TYPES]


def _measured(score: str, stage: str) -> Callable[[PolishedMap], Measured]:
    def value(row: PolishedMap) -> Measured:
        number, low, high = (getattr(row, f"{score}_{stage}{end}") for end in ("", "_low", "_high"))
        return Measured(number, Interval(low, high))

    return value


def _label(row: PolishedMap) -> str:
    return (
        row.label
        if row.kept
        else f"{row.label}, not kept: polishing raised damage on training sentences that it did not tune on"
    )


def polished_columns(name: MetricName) -> list[Column[PolishedMap]]:
    """Return the columns of the table of polished maps, with the task's metric by its own name."""
    return [
        Column("number", "", lambda row: row.number),
        Column("label", "", lambda row: row.label),
        Column("", "map", _label),
        Column("nominal_compression", "nominal", lambda row: row.nominal_compression, times),
        Column("packed_compression", "packed", lambda row: row.packed_compression, times),
        Column("kept", "", lambda row: row.kept),
        Column("held_out_damage_before", "", lambda row: row.held_out_damage_before),
        Column("held_out_damage_after", "", lambda row: row.held_out_damage_after),
        Column("damage_before", f"{DAMAGE} before", _measured("damage", "before"), nats, interval=True),
        Column("damage_after", "damage polished", _measured("damage", "after"), nats, interval=True),
        Column(f"{name}_before", f"{METRIC_NAMES[name]} before", _measured("metric", "before"), metric, interval=True),
        Column(f"{name}_after", f"{METRIC_NAMES[name]} polished", _measured("metric", "after"), metric, interval=True),
        Column("checkpoint", "checkpoint", lambda row: row.checkpoint),
    ]


def polished_line(polished: PolishedMap, name: MetricName) -> str:
    """Return the scores of a map before and after polishing, in one line."""
    label, *figures = shown(polished_columns(name), [polished])
    return f"{label.line(polished)}: " + ", ".join(f"{column.heading} {column.line(polished)}" for column in figures)


def polished_path(run: Path) -> Path:
    """Return the path of a run's table of polished maps."""
    return run / f"{FOLDER}.csv"


def write_polished(maps: Sequence[PolishedMap], run: Path, name: MetricName) -> None:
    """Write a run's table of polished maps, from the largest to the smallest, with the task's metric by its name."""
    rows = sorted(maps, key=lambda polished: polished.nominal_compression)
    write_csv(to_frame(polished_columns(name), rows), polished_path(run))


def read_polished(run: Path) -> tuple[PolishedMap, ...]:
    """Return a run's polished maps; empty if it has no table of them.

    Raises:
        InputError: the table cannot be read.
    """
    path = polished_path(run)
    if not path.is_file():
        return ()
    try:
        names = list(pd.read_csv(path, nrows=0).columns)
        if names not in [_names(metric) for metric in METRICS]:
            raise ValueError("unexpected columns")
        table = pd.read_csv(path, dtype=dict(zip(names, _TYPES.values(), strict=True))).set_axis([*_TYPES], axis=1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and polish again") from None
    return tuple(PolishedMap(**{str(key): value for key, value in row.items()}) for row in table.to_dict("records"))
