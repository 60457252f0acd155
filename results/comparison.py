"""Several runs beside each other: their fronts on one plot, and what each has at every size that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from objectives.files import write_text
from objectives.sizes import SizeAxis
from results import words
from results.findings import Findings, conclude
from results.outcome import Outcome, Trial, Unseen
from results.page_tables import Cell, Table, damage_cell, difference_cell, mcc_cell, unseen_cell
from results.picks import in_order
from results.plot_compare import write_compare_plot
from results.report import inline, render
from results.summary import asked_words


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison: what it is called, what follows from it, and its front by rising compression."""

    name: str
    found: Findings
    front: tuple[Trial, ...]


@dataclass(frozen=True)
class ComparisonInfo:
    """What a comparison shows.

    Attributes:
        size_axis: what compression counts, on the whole page: as the first run does.
        runs: in the order in which they were given.
        warnings: in what the runs are not alike, in sentences.
    """

    size_axis: SizeAxis
    runs: tuple[ComparedRun, ...]
    warnings: tuple[str, ...]


def comparison_info(outcomes: Sequence[Outcome], names: Sequence[str]) -> ComparisonInfo:
    """Return what a comparison of runs shows; every front is that of damage, on the size axis of the first run."""
    axis = outcomes[0].size_axis
    runs = []
    for outcome, name in zip(outcomes, names, strict=True):
        found = conclude(replace(outcome, quality="damage", size_axis=axis))
        runs.append(ComparedRun(name, found, found.front))
    return ComparisonInfo(axis, tuple(runs), tuple(_warnings(outcomes, names)))


def comparison_table(info: ComparisonInfo) -> pd.DataFrame:
    """Return the numbers of the plot: a row for each map of each front."""
    rows = [
        {
            "run": run.name,
            "number": trial.number,
            "label": trial.label,
            "nominal_compression": trial.nominal_compression,
            "packed_compression": trial.packed_compression,
            "damage": trial.scores.damage,
            "damage_low": run.found.intervals[trial.number].damage.low,
            "damage_high": run.found.intervals[trial.number].damage.high,
            "mcc": trial.scores.mcc,
            "mcc_low": run.found.intervals[trial.number].mcc.low,
            "mcc_high": run.found.intervals[trial.number].mcc.high,
        }
        for run in info.runs
        for trial in run.front
        if trial.scores is not None
    ]
    columns = ("run", "number", "label", "nominal_compression", "packed_compression")
    scores = ("damage", "damage_low", "damage_high", "mcc", "mcc_low", "mcc_high")
    return pd.DataFrame(rows, columns=[*columns, *scores])


def write_comparison(info: ComparisonInfo, directory: Path) -> None:
    """Write ``comparison.html`` and ``comparison.{png,svg,csv}`` into a directory, each in one step.

    Raises:
        OSError: the directory cannot be written.
    """
    lines = [
        (run.name, [(trial.compression(info.size_axis), trial.scores.damage) for trial in run.front if trial.scores])
        for run in info.runs
    ]
    references = [
        (trial.compression(info.size_axis), trial.scores.damage)
        for run in info.runs
        if (trial := run.found.reference) is not None and trial.scores is not None
    ]
    svg = write_compare_plot(lines, references, info.size_axis, comparison_table(info), directory)
    page = render(
        "comparison.html.j2",
        info=info,
        picks=picks_comparison(info),
        facts=_facts_table(info),
        plot=inline(svg, "comparison", "The fronts of the runs; comparison.csv has the numbers"),
    )
    write_text(directory / "comparison.html", page)


def _warnings(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[str]:
    first = outcomes[0]
    found = []
    for outcome, name in zip(outcomes[1:], names[1:], strict=True):
        if not np.array_equal(outcome.labels, first.labels):
            found.append(f"{name} was scored on other sentences than {names[0]}: its damage and MCC do not compare.")
        elif not np.allclose(outcome.fp32_log_odds, first.fp32_log_odds, atol=1e-3):
            found.append(f"{name} has another FP32 model than {names[0]}: each damage is from its own FP32 model.")
        if not _same_unseen(outcome.unseen, first.unseen):
            found.append(
                f"{name} was checked on other unseen sentences than {names[0]}, or one of them on none: what picks "
                "were made by does not compare."
            )
        if outcome.size_axis != first.size_axis:
            found.append(f"{name} was searched by {outcome.size_axis} size; here all is by {first.size_axis} size.")
    return found


def _same_unseen(one: Unseen | None, other: Unseen | None) -> bool:
    if one is None or other is None:
        return one is other
    same_number = one.fp32_log_odds.size == other.fp32_log_odds.size
    return same_number and np.allclose(one.fp32_log_odds, other.fp32_log_odds, atol=1e-3)


def picks_comparison(info: ComparisonInfo) -> Table:
    """Return the picks of all runs, those for one request one under the other."""
    asked = {headline.request for run in info.runs for headline in run.found.headlines}
    any_unseen = any(run.found.unseen for run in info.runs)
    rows = []
    for request in in_order(asked):
        for run in info.runs:
            headline = run.found.headline(request)
            if headline is None or headline.trial is None or headline.trial.scores is None:
                continue
            trial, intervals = headline.trial, run.found.intervals[headline.trial.number]
            assert trial.scores is not None
            rows.append(
                (
                    Cell(asked_words(run.found.outcome, request)),
                    Cell(run.name),
                    Cell(trial.label, trial.number),
                    Cell(words.times(trial.compression(info.size_axis)), trial.compression(info.size_axis)),
                    damage_cell(trial.scores.damage, intervals.damage),
                    *([unseen_cell(run.found, trial)] if any_unseen else []),
                    mcc_cell(trial.scores.mcc, intervals.mcc),
                    difference_cell(run.found.against_fp32[trial.number]),
                )
            )
    damages = ("damage", "damage, unseen") if any_unseen else ("damage",)
    return Table(("pick", "run", "map", info.size_axis, *damages, "MCC", "MCC against FP32"), tuple(rows))


def _facts_table(info: ComparisonInfo) -> Table:
    rows = tuple(
        (
            Cell(run.name),
            Cell(run.found.outcome.model),
            Cell(run.found.outcome.data),
            Cell(dict(run.found.outcome.provenance).get("sampler", "")),
            Cell(f"{run.found.complete:,}", run.found.complete),
            Cell(f"{len(run.front):,}", len(run.front)),
        )
        for run in info.runs
    )
    return Table(("run", "model", "data", "sampler", "maps evaluated", "maps on the front"), rows)
