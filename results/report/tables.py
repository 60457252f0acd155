"""The columns and rows of a run's tables: every trial, the front, the picks and the baselines."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from objectives.metrics import METRIC_NAMES
from objectives.packing.footprint import AXIS_NAMES
from results import formatting
from results.columns import Column, to_frame
from results.export.bit_map_files import bit_map_path, maps_with_files
from results.outcome import Outcome, Trial
from results.pareto import beaten_by, front, least_damage
from results.report.map_columns import (
    MapColumns,
    MapRow,
    bits_column,
    damage_column,
    difference_column,
    from_scores,
    from_trial,
    further_score_columns,
    identity_columns,
    metric_column,
    no_worse,
    score_columns,
    spread_columns,
)
from results.statistics.analysis import Analysis
from results.statistics.intervals import Comparison, Estimate
from results.statistics.picks import KNEE, SMALLEST
from results.statistics.spread import seen_spread, unseen_spread


def trials_table(outcome: Outcome) -> pd.DataFrame:
    """Return ``trials.csv``: one row a trial, by number.

    ``state`` is ``complete`` or ``failed``. Scores of failed trials are NaN, and ``failure`` says why. ``bits`` is the
    map, one digit a layer in layer order; read it from CSV with ``dtype={"bits": str}``.
    """
    on_front = frozenset(trial.number for trial in front(outcome))
    return to_frame(trial_columns(outcome, on_front), [MapRow(trial) for trial in outcome.trials])


def front_table(analysis: Analysis) -> pd.DataFrame:
    """Return ``front.csv``: one row a map of the front, from the largest to the smallest.

    ``*_low`` to ``*_high`` are 95% intervals over the sentences. ``no_worse_than_fp32`` is the confidence that the
    metric is no worse than FP32's by more than ``margin``. ``unseen_damage`` is on training sentences, NaN if the map
    was not scored on them. ``bit_map_*`` name the map's files.
    """
    return to_frame(front_columns(analysis), front_rows(analysis))


def picks_table(analysis: Analysis) -> pd.DataFrame:
    """Return ``picks.csv``: one row for each request that a map answers; see :func:`front_table`.

    ``confirmed_*`` is on the holdout set. ``corrected_*`` is the expected score of a map chosen this way, on sentences
    that had no part in the choice. ``*_standard_error``, ``*_99_percent`` and ``*_largest`` are of damage over the
    sentences. ``bit_map_*`` name the map's files.
    """
    return to_frame(pick_columns(analysis), pick_rows(analysis))


def trial_columns(outcome: Outcome, on_front: Collection[int]) -> MapColumns:
    """Return the columns of the table of all trials."""
    return [
        *identity_columns(outcome),
        Column("state", "", from_trial(lambda trial: "failed" if trial.scores is None else "complete")),
        Column("feasible", "", from_trial(lambda trial: trial.feasible)),
        Column("on_front", "", from_trial(lambda trial: trial.number in on_front)),
        Column(outcome.metric, "", from_scores(outcome, lambda scores: scores.metric)),
        Column("damage", "", from_scores(outcome, lambda scores: scores.damage)),
        *further_score_columns(outcome),
        Column("precision", "", from_trial(lambda trial: trial.precision)),
        Column("elapsed_s", "", from_trial(lambda trial: trial.elapsed_s)),
        Column("finished_s", "", from_trial(lambda trial: trial.finished_s)),
        Column("failure", "", from_trial(lambda trial: trial.failure)),
    ]


def front_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of the front's table."""
    outcome = analysis.outcome
    return [
        *identity_columns(outcome, analysis.front_numbers),
        *score_columns(analysis),
        *further_score_columns(outcome),
        *file_columns(outcome),
        bits_column(),
    ]


def front_rows(analysis: Analysis) -> list[MapRow]:
    """Return the front, from the largest map to the smallest."""
    return [MapRow(trial) for trial in analysis.front]


def baseline_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of the table of the documented map and the baselines."""
    identity = identity_columns(analysis.outcome, _with_files(analysis))
    columns = [*identity, *score_columns(analysis), bits_column()]
    return [
        *brief_columns(analysis, columns),
        Column("", "outcome on validation", from_trial(lambda trial: _baseline_remark(analysis, trial))),
    ]


def baseline_rows(analysis: Analysis) -> list[MapRow]:
    """Return the documented map and the baselines, by number."""
    return [MapRow(trial) for trial in ([analysis.reference] if analysis.reference else []) + list(analysis.baselines)]


def pick_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of the picks' table; pages show corrected damage on unseen sentences once it is known."""
    outcome = analysis.outcome
    metric, name = outcome.metric, METRIC_NAMES[outcome.metric]

    def corrected(row: MapRow) -> Estimate | None:
        return row.headline.corrected if row.headline else None

    def holdout(row: MapRow) -> Estimate | None:
        return analysis.holdout.get(row.trial.number) if row.trial else None

    def holdout_against_fp32(row: MapRow) -> Comparison | None:
        estimate = holdout(row)
        return estimate.against_fp32 if estimate else None

    return [
        Column("pick", "pick", lambda row: row.pick, lambda pick: request_text(outcome, pick)),
        *identity_columns(outcome, _with_files(analysis)),
        *score_columns(analysis),
        metric_column(f"confirmed_{metric}", f"{name}, holdout", holdout),
        difference_column(f"confirmed_{metric}_minus_fp32", f"{name} against FP32, holdout", holdout_against_fp32),
        Column("confirmed_no_worse_than_fp32", "", lambda row: no_worse(holdout_against_fp32(row))),
        damage_column("confirmed_damage", "damage, holdout", holdout),
        metric_column(f"corrected_{metric}", f"{name}, corrected", corrected),
        damage_column("corrected_damage", "damage, corrected", corrected, present=not analysis.unseen),
        damage_column(
            "corrected_unseen_damage",
            "damage, unseen, corrected",
            lambda row: row.headline.unseen if row.headline else None,
        ),
        difference_column(
            f"{metric}_minus_documented",
            f"{name} against documented",
            lambda row: row.headline.against_reference if row.headline else None,
        ),
        Column("", "best baseline of that size", lambda row: _best_baseline(analysis, row)),
        *further_score_columns(outcome),
        bits_column(),
        *spread_columns("damage", "damage", from_trial(lambda trial: seen_spread(analysis, trial))),
        *spread_columns("unseen_damage", "damage, unseen", from_trial(lambda trial: unseen_spread(analysis, trial))),
        *file_columns(outcome),
    ]


def brief_columns(analysis: Analysis, columns: MapColumns) -> MapColumns:
    """Return the columns that answer a reader's first questions: which map, how small and how good."""
    named = {column.name: column for column in columns}
    brief = [named[name] for name in _brief_names(analysis.outcome) if name in named]
    headings = _BRIEF_HEADINGS | {
        analysis.outcome.metric: f"validation {METRIC_NAMES[analysis.outcome.metric]} (95% interval)"
    }
    return [replace(column, heading=headings.get(column.name, column.heading)) for column in brief]


def further_pick_columns(analysis: Analysis) -> tuple[MapColumns, MapColumns]:
    """Return the columns that the brief ones leave out, each after the pick: of sizes and the metric, and of damage.

    Damages come with how they spread, so those of the brief columns are there again.
    """
    columns = pick_columns(analysis)
    pick, brief = columns[0], set(_brief_names(analysis.outcome))
    of_damage = [column for column in columns if column.heading and "damage" in column.name]
    of_damage.sort(key=lambda column: ("unseen" in column.name, "confirmed" in column.name))
    others = [column for column in columns if column.heading and column.name not in brief and column not in of_damage]
    return [pick, *others], [pick, *of_damage]


def pick_rows(analysis: Analysis) -> list[MapRow]:
    """Return the requests that a map answers."""
    return [MapRow(headline.trial, headline.request, headline) for headline in analysis.headlines if headline.trial]


def compared_pick_rows(analysis: Analysis) -> list[MapRow]:
    """Return the FP32 model, the documented map and the picks."""
    documented = [MapRow(analysis.reference, "documented")] if analysis.reference else []
    return [MapRow(None, "FP32"), *documented, *pick_rows(analysis)]


def terminal_pick_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of the picks' table that fit a terminal; picks are named as ``export --pick`` takes them."""
    outcome = analysis.outcome
    columns = [
        column for column in brief_columns(analysis, pick_columns(analysis)) if not column.name.endswith("_minus_fp32")
    ]
    heading = "pick" if outcome.size_axis == outcome.file_axis else f"pick ({AXIS_NAMES[outcome.size_axis]} size)"
    columns[0] = replace(columns[0], heading=heading, text=lambda request: request_with_margin(outcome, request))
    columns[1] = replace(columns[1], text=str)  # the heading says what the names of knapsacks count
    return [replace(column, interval=column.name == outcome.metric) for column in columns]


def request_with_margin(outcome: Outcome, request: str) -> str:
    """Return a request with its margin, as ``smallest@0.02``, so that it does not depend on the run's."""
    margin = f"{outcome.margin:.9f}".rstrip("0").rstrip(".")
    return f"smallest@{margin}" if request == SMALLEST else request


def request_text(outcome: Outcome, request: str) -> str:
    """Return a request as people read it: ``8x nominal or more``."""
    if request == SMALLEST:
        return f"Smallest within {formatting.loss(outcome.margin, outcome.metric)} of FP32"
    if request == KNEE:
        return "Knee of the front"
    if not request.startswith("best@"):
        return request
    # The column of sizes beside it counts files.
    axis = "" if outcome.size_axis == outcome.file_axis else f" {AXIS_NAMES[outcome.size_axis]}"
    return f"{request.removeprefix('best@')}{axis} or more"


_BRIEF_HEADINGS = {
    "packed_bytes": "size",
    "onnx_bytes": "size",
    "packed_compression": "smaller",
    "onnx_compression": "smaller",
    "damage": "validation damage",
    "unseen_damage": "unseen damage",
}
"""Shorter than in a table of all columns; the verdict above defines damage, and sizes are of the file."""


def _brief_names(outcome: Outcome) -> tuple[str, ...]:
    axis, metric = outcome.file_axis, outcome.metric
    sizes = (f"{axis}_bytes", f"{axis}_compression", "bits_per_weight")
    return ("pick", "label", *sizes, metric, f"{metric}_minus_fp32", "damage", "unseen_damage")


def file_columns(outcome: Outcome) -> MapColumns:
    """Return the columns of CSV that name a map's files."""
    return [
        Column("bit_map_text", "", from_trial(lambda trial: bit_map_path(outcome, trial, "txt"))),
        Column("bit_map_json", "", from_trial(lambda trial: bit_map_path(outcome, trial, "json"))),
    ]


def _with_files(analysis: Analysis) -> set[int]:
    return {trial.number for trial in maps_with_files(analysis)}


def _best_baseline(analysis: Analysis, row: MapRow) -> str | None:
    """Return the baseline that the same request would pick, or that the pick is a baseline itself."""
    if row.trial is None or row.headline is None or row.headline.request in (SMALLEST, KNEE):
        return None
    rival = row.headline.rival
    if row.trial.origin != "sampler":
        where = " on unseen sentences" if row.trial.number in analysis.unseen else ""
        return f"this pick is a baseline: no searched map beats it{where}"
    if rival is None or rival.scores is None:
        return "no baseline is that small"
    return f"{_sized(analysis.outcome, rival)}, validation damage {formatting.nats(rival.scores.damage)}"


def _baseline_remark(analysis: Analysis, trial: Trial) -> str:
    if trial.scores is None:
        return f"failed: {trial.failure}"
    missed = "" if trial.feasible else "misses the constraint; "
    winner = beaten_by(analysis.outcome, analysis.front, trial)
    if winner is not None:
        return f"{missed}beaten by {_compared_damage(analysis, winner, trial)}"
    status = "on the front" if trial.number in analysis.front_numbers else f"{missed}not beaten by the front"
    challenger = least_damage(
        analysis.outcome, [other for other in analysis.outcome.trials if other.origin == "sampler"], trial
    )
    if challenger is None:
        return f"{status}; the sampler has no map that small"
    return f"{status}; the sampler's best of that size or less is {_compared_damage(analysis, challenger, trial)}"


def _compared_damage(analysis: Analysis, other: Trial, trial: Trial) -> str:
    """Return another map with its size, and with its damage as a share of the trial's."""
    assert other.scores is not None
    assert trial.scores is not None
    name = _sized(analysis.outcome, other)
    if trial.scores.damage == 0:
        return name
    return f"{name} with {other.scores.damage / trial.scores.damage:.0%} of its damage"


def _sized(outcome: Outcome, trial: Trial) -> str:
    """Return a map's name with its size on the run's axis; a knapsack's name has it."""
    if trial.origin == "plain":
        return formatting.map_name(outcome, trial)
    axis = AXIS_NAMES[outcome.size_axis]
    return f"{trial.label} of {formatting.times(trial.compression(outcome.size_axis))} {axis}"
