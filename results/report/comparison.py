"""Comparing runs: their fronts on one plot, their picks in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from objectives.errors import InputError
from objectives.files import write_text
from objectives.metrics import METRIC_NAMES, MetricName
from objectives.packing.footprint import AXIS_NAMES, SizeAxis
from results import formatting
from results.columns import Column, Measured, Value, to_frame, to_html
from results.outcome import Outcome, Trial, Unseen
from results.plots.comparison import DrawnRun, write_compare_plot
from results.report.distilled import DistilledMap, distilled_columns
from results.report.distilled_view import distilled_points
from results.report.report import inline, render
from results.report.tables import request_text
from results.statistics.analysis import Analysis, analyse
from results.statistics.picks import sorted_requests


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison, with its front by rising compression and its distilled maps."""

    name: str
    analysis: Analysis
    front: tuple[Trial, ...]
    distilled: tuple[DistilledMap, ...]


@dataclass(frozen=True)
class ComparisonInfo:
    """What a comparison shows.

    Attributes:
        size_axis: the size axis of the first run, which the whole page uses.
        metric: the task's, the same in all runs.
        runs: in the given order.
        warnings: sentences that say how the runs differ.
    """

    size_axis: SizeAxis
    metric: MetricName
    runs: tuple[ComparedRun, ...]
    warnings: tuple[str, ...]

    @property
    def axis_name(self) -> str:
        """The size axis as people read it."""
        return AXIS_NAMES[self.size_axis]


def comparison_info(
    outcomes: Sequence[Outcome], names: Sequence[str], distilled: Sequence[Sequence[DistilledMap]] | None = None
) -> ComparisonInfo:
    """Return what a comparison shows; every front is of damage, on the size axis of the first run if all have it.

    ``distilled`` are the distilled maps of each run; None if no run has any.

    Raises:
        InputError: the runs have different metrics.
    """
    axis, metric = outcomes[0].size_axis, outcomes[0].metric
    if axis == "onnx" and any(outcome.footprint.onnx is None for outcome in outcomes):
        axis = "nominal"
    for outcome, name in zip(outcomes, names, strict=True):
        if outcome.metric != metric:
            used = f"{METRIC_NAMES[outcome.metric]}, and {names[0]} by {METRIC_NAMES[metric]}"
            raise InputError(f"{name} was scored by {used}; compare runs of one metric")
    runs = []
    for outcome, name, maps in zip(outcomes, names, distilled or [()] * len(names), strict=True):
        analysis = analyse(replace(outcome, quality="damage", size_axis=axis))
        runs.append(ComparedRun(name, analysis, analysis.front, tuple(maps)))
    return ComparisonInfo(axis, metric, tuple(runs), tuple(_warnings(outcomes, names, axis)))


@dataclass(frozen=True)
class ComparedMap:
    """One map of one run, and the request that it answers."""

    run: ComparedRun
    trial: Trial
    pick: str = ""

    @property
    def damage(self) -> Measured | None:
        """On the run's own sentences, nats a sentence."""
        scores = self.trial.scores
        return Measured(scores.damage, self.run.analysis.intervals[self.trial.number].damage) if scores else None

    @property
    def unseen_damage(self) -> Measured | None:
        """On unseen sentences; None if the map was not scored there."""
        unseen = self.run.analysis.unseen.get(self.trial.number)
        return Measured(unseen.damage, unseen.interval) if unseen else None

    @property
    def metric(self) -> Measured | None:
        """On the run's own sentences."""
        scores = self.trial.scores
        return Measured(scores.metric, self.run.analysis.intervals[self.trial.number].metric) if scores else None

    @property
    def against_fp32(self) -> Measured:
        """Its metric minus FP32's."""
        comparison = self.run.analysis.against_fp32[self.trial.number]
        return Measured(comparison.difference, comparison.interval)


def map_columns(info: ComparisonInfo) -> list[Column[ComparedMap]]:
    """Return the columns of ``comparison.csv`` and of the table of picks."""
    axis, name = info.size_axis, METRIC_NAMES[info.metric]
    return [
        Column("", "pick", lambda row: request_text(row.run.analysis.outcome, row.pick)),
        Column("run", "run", lambda row: row.run.name),
        Column("number", "", lambda row: row.trial.number),
        Column("label", "map", lambda row: row.trial.label),
        Column("", AXIS_NAMES[axis], lambda row: row.trial.compression(axis), formatting.times),
        Column("nominal_compression", "", lambda row: row.trial.nominal_compression),
        Column("packed_compression", "", lambda row: row.trial.packed_compression),
        Column("damage", formatting.DAMAGE, lambda row: row.damage, formatting.nats, interval=True),
        Column("", "damage, unseen", lambda row: row.unseen_damage, formatting.nats, interval=True),
        Column(info.metric, f"{name} (95% interval)", lambda row: row.metric, formatting.metric, interval=True),
        Column("", f"{name} against FP32", lambda row: row.against_fp32, formatting.difference, interval=True),
    ]


def comparison_table(info: ComparisonInfo) -> pd.DataFrame:
    """Return ``comparison.csv``: one row for each map of each front."""
    return to_frame(map_columns(info), [ComparedMap(run, trial) for run in info.runs for trial in run.front])


def write_comparison(info: ComparisonInfo, directory: Path) -> None:
    """Write ``comparison.html`` and ``comparison.{png,svg,csv}`` into a directory, each in one step.

    Raises:
        OSError: the directory cannot be written.
    """
    lines = [
        DrawnRun(
            run.name,
            [(trial.compression(info.size_axis), trial.scores.damage) for trial in run.front if trial.scores],
            distilled_points(run.analysis, run.distilled),
        )
        for run in info.runs
    ]
    references = [
        (trial.compression(info.size_axis), trial.scores.damage)
        for run in info.runs
        if (trial := run.analysis.reference) is not None and trial.scores is not None
    ]
    distilled = [(run, one) for run in info.runs for one in run.distilled]
    svg = write_compare_plot(lines, references, info.size_axis, comparison_table(info), directory)
    page = render(
        "comparison.html.j2",
        info=info,
        picks=to_html(map_columns(info), picks_comparison(info), "sortable"),
        distilled=to_html(_distilled_columns(info), distilled, "sortable") if distilled else "",
        facts=to_html(RUN_COLUMNS, info.runs, "sortable"),
        plot=inline(svg, "comparison", "The fronts of the runs; comparison.csv has the numbers"),
    )
    write_text(directory / "comparison.html", page)


def _distilled_columns(info: ComparisonInfo) -> list[Column[tuple[ComparedRun, DistilledMap]]]:
    """Return the columns of the table of all runs' distilled maps, without their checkpoints."""
    own = [column for column in distilled_columns(info.metric) if column.heading not in ("", "checkpoint")]
    return [
        Column("", "run", lambda row: row[0].name),
        *(Column("", one.heading, partial(_of_map, one), one.text, interval=one.interval) for one in own),
    ]


def _of_map(column: Column[DistilledMap], row: tuple[ComparedRun, DistilledMap]) -> Value:
    return column.value(row[1])


def _warnings(outcomes: Sequence[Outcome], names: Sequence[str], axis: SizeAxis) -> list[str]:
    first = outcomes[0]
    warnings = []
    for outcome, name in zip(outcomes[1:], names[1:], strict=True):
        if not np.array_equal(outcome.labels, first.labels):
            metric = METRIC_NAMES[first.metric]
            warnings.append(
                f"{name} was scored on other sentences than {names[0]}: do not compare its damage and {metric}."
            )
        elif not np.allclose(outcome.fp32_log_odds, first.fp32_log_odds, atol=1e-3):
            warnings.append(
                f"{name} has another FP32 model than {names[0]}: each damage is measured against its own FP32 model."
            )
        if not _same_unseen(outcome.unseen, first.unseen):
            warnings.append(
                f"{name} was checked on other unseen sentences than {names[0]}, or only one of the two was: "
                "their picks were chosen on different sentences."
            )
    for outcome, name in zip(outcomes, names, strict=True):
        if outcome.size_axis != axis:
            searched = AXIS_NAMES[outcome.size_axis]
            warnings.append(f"{name} was searched by {searched} size; this page compares {AXIS_NAMES[axis]} sizes.")
    return warnings


def _same_unseen(one: Unseen | None, other: Unseen | None) -> bool:
    if one is None or other is None:
        return one is other
    same_number = one.fp32_log_odds.shape == other.fp32_log_odds.shape
    return same_number and np.allclose(one.fp32_log_odds, other.fp32_log_odds, atol=1e-3)


def picks_comparison(info: ComparisonInfo) -> list[ComparedMap]:
    """Return the picks of all runs, grouped by request."""
    requests = {headline.request for run in info.runs for headline in run.analysis.headlines}
    headlines = [(run, run.analysis.headline(request)) for request in sorted_requests(requests) for run in info.runs]
    return [
        ComparedMap(run, headline.trial, headline.request)
        for run, headline in headlines
        if headline is not None and headline.trial is not None
    ]


RUN_COLUMNS: list[Column[ComparedRun]] = [
    Column("", "run", lambda run: run.name),
    Column("", "model", lambda run: run.analysis.outcome.model),
    Column("", "data", lambda run: run.analysis.outcome.data),
    Column("", "sampler", lambda run: dict(run.analysis.outcome.provenance).get("sampler", "")),
    Column("", "maps evaluated", lambda run: run.analysis.complete, "{:,}".format),
    Column("", "maps on the front", lambda run: len(run.front), "{:,}".format),
]
