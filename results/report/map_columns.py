"""Columns that the tables of maps share: names, sizes and widths, scores with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from objectives.metrics import METRIC_NAMES
from objectives.packing.footprint import SizeAxis
from objectives.scores import Scores
from results import formatting
from results.columns import Column, Measured, Value
from results.export.bit_map_files import bit_map_path
from results.outcome import Outcome, Trial
from results.pareto import exact_sizes, fp32_size
from results.statistics.analysis import Analysis, Headline
from results.statistics.intervals import Comparison, Estimate
from results.statistics.spread import Spread
from results.statistics.unseen import UnseenDamage


@dataclass(frozen=True)
class MapRow:
    """One map in a table.

    Attributes:
        trial: the map; None for the FP32 model.
        pick: the request that it answers, ``FP32`` or ``documented``.
        headline: the answer to that request.
    """

    trial: Trial | None
    pick: str = ""
    headline: Headline | None = None


MapColumns = list[Column[MapRow]]
Attribute = TypeVar("Attribute")


def identity_columns(outcome: Outcome, with_files: Collection[int] = ()) -> MapColumns:
    """Return the columns of a map's name, sizes and widths; maps ``with_files`` link to their file."""

    def compression(axis: SizeAxis) -> Callable[[MapRow], float]:
        return lambda row: 1.0 if row.trial is None else row.trial.compression(axis)

    def size(axis: SizeAxis) -> Callable[[MapRow], int]:
        fp32 = fp32_size(outcome.footprint, axis)
        return lambda row: fp32 if row.trial is None else int(exact_sizes(outcome.footprint, [row.trial], axis)[0])

    def file(row: MapRow) -> str:
        has_file = row.trial is not None and row.trial.number in with_files
        return bit_map_path(outcome, row.trial, "txt") if row.trial and has_file else ""

    names = {trial.label: formatting.map_name(outcome, trial) for trial in outcome.trials if trial.origin == "plain"}
    onnx: MapColumns = []
    if outcome.footprint.onnx is not None:
        onnx = [
            Column("onnx_compression", "ONNX", compression("onnx"), formatting.times),
            Column("onnx_bytes", "ONNX size", size("onnx"), formatting.megabytes),
        ]
    return [
        Column("number", "", from_trial(lambda trial: trial.number)),
        Column("label", "map", from_trial(lambda trial: trial.label), lambda name: names.get(name, name), link=file),
        Column("origin", "proposed by", from_trial(lambda trial: trial.origin), formatting.proposer),
        Column("nominal_compression", "nominal", compression("nominal"), formatting.times),
        Column("packed_compression", "packed", compression("packed"), formatting.times),
        Column("nominal_bits", "", size("nominal")),
        Column("packed_bytes", "packed size", size("packed"), formatting.megabytes),
        *onnx,
        Column("bits", "", from_trial(lambda trial: "".join(map(str, trial.bit_map)))),
    ]


def bits_column() -> Column[MapRow]:
    """Return the column of the mean width over the searched weights."""

    def width(row: MapRow) -> float:
        return 32.0 if row.trial is None else 32 / row.trial.nominal_compression

    return Column("bits_per_weight", "bits a weight", width, formatting.bits)


def score_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of metric and damage with their intervals, and of the metric against FP32's."""
    outcome = analysis.outcome

    def metric(row: MapRow) -> Value:
        if row.trial is None:
            return Measured(outcome.fp32.metric, analysis.fp32_metric)
        scores = row.trial.scores
        return Measured(scores.metric, analysis.intervals[row.trial.number].metric) if scores else None

    def damage(row: MapRow) -> Value:
        if row.trial is None:
            return 0.0
        scores = row.trial.scores
        return Measured(scores.damage, analysis.intervals[row.trial.number].damage) if scores else None

    def against_fp32(row: MapRow) -> Comparison | None:
        return analysis.against_fp32.get(row.trial.number) if row.trial else None

    def unseen_damage(row: MapRow) -> Value:
        if row.trial is None:
            return 0.0 if analysis.unseen else None
        scored = analysis.unseen.get(row.trial.number)
        return Measured(scored.damage, scored.interval) if scored else None

    margin, name = outcome.margin, METRIC_NAMES[outcome.metric]
    return [
        Column(outcome.metric, f"{name} (95% interval)", metric, formatting.metric, interval=True),
        difference_column(f"{outcome.metric}_minus_fp32", f"{name} against FP32", against_fp32),
        Column(
            "no_worse_than_fp32",
            f"no worse by over {formatting.loss(margin, outcome.metric)}",
            lambda row: no_worse(against_fp32(row)),
            formatting.confidence,
        ),
        Column("margin", "", lambda _: margin),
        Column("damage", formatting.DAMAGE, damage, formatting.nats, interval=True),
        Column("unseen_damage", "damage, unseen", unseen_damage, formatting.nats, interval=True),
    ]


def further_score_columns(outcome: Outcome) -> MapColumns:
    """Return the other scores that the head has."""
    columns: MapColumns = [
        Column("agreement", "", from_scores(outcome, lambda scores: scores.agreement)),
        Column("accuracy", "", from_scores(outcome, lambda scores: scores.accuracy)),
        Column("cross_entropy", "", from_scores(outcome, lambda scores: scores.cross_entropy)),
    ]
    return [column for column in columns if column.name in {*outcome.fp32.record()} - {outcome.metric}]


def from_trial(get: Callable[[Trial], Attribute]) -> Callable[[MapRow], Attribute | None]:
    """Return a function that gets an attribute of a row's trial, or None for the FP32 model."""
    return lambda row: None if row.trial is None else get(row.trial)


def from_scores(outcome: Outcome, get: Callable[[Scores], float | None]) -> Callable[[MapRow], float | None]:
    """Return a function that gets a score of a row's map, or of the FP32 model."""

    def value(row: MapRow) -> float | None:
        scores = outcome.fp32 if row.trial is None else row.trial.scores
        return None if scores is None else get(scores)

    return value


def metric_column(name: str, heading: str, get: Callable[[MapRow], Estimate | None]) -> Column[MapRow]:
    """Return a column of the task's metric with its interval, from a row's estimate."""

    def value(row: MapRow) -> Measured | None:
        estimate = get(row)
        return None if estimate is None else Measured(estimate.metric, estimate.metric_interval)

    return Column(name, heading, value, formatting.metric, interval=True)


def damage_column(
    name: str, heading: str, get: Callable[[MapRow], Estimate | UnseenDamage | None], present: bool | None = None
) -> Column[MapRow]:
    """Return a column of damage with its interval; ``present`` is as for ``Column``."""

    def value(row: MapRow) -> Measured | None:
        estimate = get(row)
        if isinstance(estimate, Estimate):
            return Measured(estimate.damage, estimate.damage_interval)
        return None if estimate is None else Measured(estimate.damage, estimate.interval)

    return Column(name, heading, value, formatting.nats, present, interval=True)


def spread_columns(name: str, heading: str, get: Callable[[MapRow], Spread | None]) -> MapColumns:
    """Return the columns of how damage spreads over the sentences: of its mean, of 99% of them, and of the worst."""

    def value(attribute: str) -> Callable[[MapRow], float | None]:
        def of_row(row: MapRow) -> float | None:
            spread = get(row)
            return None if spread is None else float(getattr(spread, attribute))

        return of_row

    return [
        Column(f"{name}_standard_error", f"{heading}, standard error", value("standard_error"), formatting.nats),
        Column(f"{name}_99_percent", f"{heading}, 99% of sentences below", value("of_99_percent"), formatting.nats),
        Column(f"{name}_largest", f"{heading}, worst sentence", value("largest"), formatting.nats),
    ]


def difference_column(name: str, heading: str, get: Callable[[MapRow], Comparison | None]) -> Column[MapRow]:
    """Return a column of a difference in the metric with its interval."""

    def value(row: MapRow) -> Measured | None:
        comparison = get(row)
        return None if comparison is None else Measured(comparison.difference, comparison.interval)

    return Column(name, heading, value, formatting.difference, interval=True)


def no_worse(comparison: Comparison | None) -> float | None:
    """Return the confidence of a comparison; None without one."""
    return None if comparison is None else comparison.no_worse
