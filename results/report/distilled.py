"""The table of a run's distilled maps, kept apart from the search's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from objectives.errors import InputError
from objectives.metrics import METRIC_NAMES, METRICS, MetricName
from results.columns import Column, Measured, shown, to_frame, write_csv
from results.formatting import DAMAGE, metric, nats, times
from results.statistics.bootstrap import Interval

FOLDER, OLD_FOLDER = "distilled", "polished"
"""The folder of a run's distilled checkpoints, and its name in runs of 0.3.0 and older; their tables are beside it."""


@dataclass(frozen=True)
class DistilledMap:
    """One map as searched and as distilled; damage in nats a sentence, intervals of 95%.

    Attributes:
        number: its trial's number.
        label: what plots and tables call it.
        nominal_compression: FP32 size over size, codes only; distillation changes neither size.
        packed_compression: FP32 size over size, every byte.
        kept: whether distillation lowered the held-out damage; if not, the scores before and after are of one map.
        held_out_damage_before: on training sentences that were not trained on, which decide ``kept``.
        held_out_damage_after: likewise, after distillation.
        damage_before: on the validation sentences, with ``damage_before_low`` to ``damage_before_high``.
        damage_after: likewise, after distillation.
        metric_before: the task's metric on the validation sentences, with ``metric_before_low`` and ``..._high``.
        metric_after: likewise, after distillation.
        checkpoint: its directory, relative to the run's.
        trained: ``scales`` or ``weights``.
        epochs: passes over the training sentences.
        damage_change: the paired difference of the damages, after less before; below 0 is better. Runs of 0.3.0 and
            older lack it and all that follows; these are NaN.
        unseen_before: damage on the run's unseen sentences; NaN if it has none.
        unseen_after: likewise, after distillation.
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
    trained: str = "scales"
    epochs: int = 1
    damage_change: float = float("nan")
    damage_change_low: float = float("nan")
    damage_change_high: float = float("nan")
    unseen_before: float = float("nan")
    unseen_after: float = float("nan")


_TYPES = {field.name: str(field.type) for field in fields(DistilledMap)}  # pandas knows the types by these names
_OLD_NAMES = [field.name for field in fields(DistilledMap) if field.default is MISSING]


def figures_of(distilled: DistilledMap, name: MetricName) -> dict[str, Any]:
    """Return a map's figures by their columns' names."""
    return dict(zip(_named(_TYPES, name), asdict(distilled).values(), strict=True))


def distilled_of(figures: Mapping[str, Any], name: MetricName) -> DistilledMap | None:
    """Return the map with these figures and perhaps others; None if some are missing.

    Older versions called every metric ``mcc``.
    """
    for known in (name, "mcc"):
        columns = dict(zip(_TYPES, _named(_TYPES, known), strict=True))
        if figures.keys() >= {columns[field] for field in _OLD_NAMES}:
            return DistilledMap(**{field: figures[column] for field, column in columns.items() if column in figures})
    return None


def _named(names: Sequence[str] | Mapping[str, str], metric: MetricName) -> list[str]:
    return [name.replace("metric_", f"{metric}_") for name in names]


def _measured(name: str, low: str, high: str) -> Callable[[DistilledMap], Measured | None]:
    def value(row: DistilledMap) -> Measured | None:
        number, *ends = (getattr(row, field) for field in (name, low, high))
        return None if isnan(number) else Measured(number, Interval(*ends))

    return value


def _score(name: str) -> Callable[[DistilledMap], Measured | None]:
    return _measured(name, f"{name}_low", f"{name}_high")


def _label(row: DistilledMap) -> str:
    return (
        row.label
        if row.kept
        else f"{row.label}, not kept: distillation raised damage on training sentences that it did not train on"
    )


def distilled_columns(name: MetricName) -> list[Column[DistilledMap]]:
    """Return the columns of the table of distilled maps, with the task's metric by its own name."""
    return [
        Column("number", "", lambda row: row.number),
        Column("label", "", lambda row: row.label),
        Column("", "map", _label),
        Column("nominal_compression", "nominal", lambda row: row.nominal_compression, times),
        Column("packed_compression", "packed", lambda row: row.packed_compression, times),
        Column("kept", "", lambda row: row.kept),
        Column("held_out_damage_before", "", lambda row: row.held_out_damage_before),
        Column("held_out_damage_after", "", lambda row: row.held_out_damage_after),
        Column("", "trained", lambda row: row.trained),
        Column("damage_before", f"{DAMAGE} as searched", _score("damage_before"), nats, interval=True),
        Column("damage_after", "damage distilled", _score("damage_after"), nats, interval=True),
        Column(f"{name}_before", f"{METRIC_NAMES[name]} as searched", _score("metric_before"), metric, interval=True),
        Column(f"{name}_after", f"{METRIC_NAMES[name]} distilled", _score("metric_after"), metric, interval=True),
        Column("checkpoint", "checkpoint", lambda row: row.checkpoint),
        Column("trained", "", lambda row: row.trained),
        Column("epochs", "", lambda row: row.epochs),
        Column("damage_change", "paired change of damage", _score("damage_change"), nats, interval=True),
        Column("unseen_before", "unseen damage as searched", _known("unseen_before"), nats),
        Column("unseen_after", "unseen damage distilled", _known("unseen_after"), nats),
    ]


def _known(name: str) -> Callable[[DistilledMap], float | None]:
    def value(row: DistilledMap) -> float | None:
        number: float = getattr(row, name)
        return None if isnan(number) else number

    return value


def distilled_line(distilled: DistilledMap, name: MetricName) -> str:
    """Return the scores of a map as searched and as distilled, in one line."""
    label, *figures = shown(distilled_columns(name), [distilled])
    return f"{label.line(distilled)}: " + ", ".join(f"{column.heading} {column.line(distilled)}" for column in figures)


def distilled_path(run: Path) -> Path:
    """Return the path of a run's table of distilled maps."""
    return run / f"{FOLDER}.csv"


def write_distilled(maps: Sequence[DistilledMap], run: Path, name: MetricName) -> None:
    """Write a run's table of distilled maps, from the largest to the smallest, with the task's metric by its name."""
    rows = sorted(maps, key=lambda distilled: (distilled.nominal_compression, distilled.trained))
    write_csv(to_frame(distilled_columns(name), rows), distilled_path(run))


def read_distilled(run: Path) -> tuple[DistilledMap, ...]:
    """Return a run's distilled maps, those of older versions too; empty if it has no table of them.

    Raises:
        InputError: a table cannot be read.
    """
    maps: dict[str, DistilledMap] = {}
    for folder, columns in ((OLD_FOLDER, _OLD_NAMES), (FOLDER, list(_TYPES))):
        path = run / f"{folder}.csv"
        if path.is_file():
            maps |= {distilled.checkpoint: distilled for distilled in _read(path, columns)}
    return tuple(sorted(maps.values(), key=lambda distilled: (distilled.nominal_compression, distilled.trained)))


def _read(path: Path, columns: list[str]) -> list[DistilledMap]:
    try:
        names = list(pd.read_csv(path, nrows=0).columns)
        if names not in [_named(columns, metric) for metric in METRICS]:
            raise ValueError("unexpected columns")
        types = {name: _TYPES[column] for name, column in zip(names, columns, strict=True)}
        table = pd.read_csv(path, dtype=types).set_axis(columns, axis=1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and distil again") from None
    return [DistilledMap(**{str(key): value for key, value in row.items()}) for row in table.to_dict("records")]


def best_distilled(run: Path, number: int) -> DistilledMap | None:
    """Return the distilled map of a trial with the least damage on held-out training sentences; None if there is none.

    Raises:
        InputError: a table cannot be read.
    """
    maps = [distilled for distilled in read_distilled(run) if distilled.number == number]
    return min(
        maps, key=lambda distilled: min(distilled.held_out_damage_before, distilled.held_out_damage_after), default=None
    )
