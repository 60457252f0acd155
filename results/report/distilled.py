"""The table of a run's distilled maps, kept apart from the search's results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from math import isnan
from operator import attrgetter
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
        unseen_before: damage on the run's unseen sentences; NaN if it has none. Runs of 0.5.0 and older lack its
            interval and all that follows; these are NaN.
        unseen_after: likewise, after distillation.
        holdout_damage_before: damage on the holdout set, which is scored once for each map, at its end, and decides
            nothing; NaN if the search has not scored it.
        holdout_damage_after: likewise, after distillation.
        holdout_metric_before: the task's metric there.
        holdout_metric_after: likewise, after distillation.
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
    unseen_before_low: float = float("nan")
    unseen_before_high: float = float("nan")
    unseen_after_low: float = float("nan")
    unseen_after_high: float = float("nan")
    holdout_damage_before: float = float("nan")
    holdout_damage_before_low: float = float("nan")
    holdout_damage_before_high: float = float("nan")
    holdout_damage_after: float = float("nan")
    holdout_damage_after_low: float = float("nan")
    holdout_damage_after_high: float = float("nan")
    holdout_metric_before: float = float("nan")
    holdout_metric_before_low: float = float("nan")
    holdout_metric_before_high: float = float("nan")
    holdout_metric_after: float = float("nan")
    holdout_metric_after_low: float = float("nan")
    holdout_metric_after_high: float = float("nan")


_TYPES = {field.name: str(field.type) for field in fields(DistilledMap)}  # pandas knows the types by these names
_UNSEEN = [name for name in _TYPES if name.startswith("unseen_")]
_OLD_NAMES = [field.name for field in fields(DistilledMap) if field.default is MISSING]


def figures_of(distilled: DistilledMap, name: MetricName) -> dict[str, Any]:
    """Return a map's figures by their columns' names, without those that it lacks."""
    figures = zip(_named(_TYPES, name), asdict(distilled).values(), strict=True)
    return {column: value for column, value in figures if value == value}  # NaN is not in JSON


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


def _score(name: str) -> Callable[[DistilledMap], Measured | float | None]:
    """Return what gives a figure with its interval, without it if the row has none, or None if it lacks both."""

    def value(row: DistilledMap) -> Measured | float | None:
        number, *ends = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
        if isnan(number):
            return None
        return number if isnan(ends[0]) else Measured(number, Interval(*ends))

    return value


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
        Column("", "unseen damage as searched", _score("unseen_before"), nats, interval=True),
        Column("", "unseen damage distilled", _score("unseen_after"), nats, interval=True),
        *(Column(column, "", attrgetter(column)) for column in _UNSEEN),
        *_holdout_columns("damage", "damage", "holdout damage", nats),
        *_holdout_columns("metric", name, f"holdout {METRIC_NAMES[name]}", metric),
    ]


def page_tables(name: MetricName, maps: Sequence[DistilledMap]) -> list[list[Column[DistilledMap]]]:
    """Return the columns of the page's tables: figures on the validation sentences, then those on others, if any."""
    if not maps:
        return []
    columns = shown(distilled_columns(name), maps)
    elsewhere = [column for column in columns if column.heading.startswith(("unseen", "holdout"))]
    own = [column for column in columns if column not in elsewhere]
    if not elsewhere:
        return [own]
    return [own, [column for column in columns if column in elsewhere or column.heading in ("map", "trained")]]


def _holdout_columns(
    field: str, name: str, heading: str, text: Callable[[float], str]
) -> Iterator[Column[DistilledMap]]:
    for when, state in (("before", "as searched"), ("after", "distilled")):
        value = _score(f"holdout_{field}_{when}")
        yield Column(f"holdout_{name}_{when}", f"{heading} {state}", value, text, interval=True)


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
    for path in (run / f"{folder}.csv" for folder in (OLD_FOLDER, FOLDER)):
        if path.is_file():
            maps |= {distilled.checkpoint: distilled for distilled in _read(path)}
    return tuple(sorted(maps.values(), key=lambda distilled: (distilled.nominal_compression, distilled.trained)))


def _read(path: Path) -> list[DistilledMap]:
    try:
        names = list(pd.read_csv(path, nrows=0).columns)
        columns = list(_TYPES)[: max(len(names), len(_OLD_NAMES))]  # newer versions add columns at the end
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
    return least_held_out(maps) if maps else None


def least_held_out(maps: Sequence[DistilledMap]) -> DistilledMap:
    """Return the map with the least damage on held-out training sentences, of one at least."""
    return min(maps, key=lambda one: min(one.held_out_damage_before, one.held_out_damage_after))
