"""The columns and rows of a run's tables: every trial, the front, the picks and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TypeVar

import pandas as pd

from objectives.packing.footprint import SizeAxis
from objectives.scores import Scores
from results import formatting
from results.columns import Column, Measured, Value, to_frame
from results.export.bit_map_files import bit_map_path
from results.outcome import Outcome, Trial
from results.pareto import beaten_by, exact_sizes, fp32_size, front, least_damage
from results.statistics.analysis import Analysis, Headline
from results.statistics.intervals import Comparison, Estimate
from results.statistics.picks import KNEE, SMALLEST
from results.statistics.unseen import UnseenDamage


@dataclass(frozen=True)
class MapRow:
    """One map in a table.

    Attributes:
        trial: the map; None for the FP32 model.
        pick: the request that it answers, or what else it stands for.
        headline: what is known of that pick.
    """

    trial: Trial | None
    pick: str = ""
    headline: Headline | None = None


MapColumns = list[Column[MapRow]]
Known = TypeVar("Known")


def trials_table(outcome: Outcome) -> pd.DataFrame:
    """Return ``trials.csv``: one row a trial, by number.

    ``state`` is ``complete`` or ``failed``; scores of failed trials are NaN and ``failure`` says why. ``bits`` is the
    map as a digit a layer in layer order; read it back from CSV with ``dtype={"bits": str}``.
    """
    on_front = frozenset(trial.number for trial in front(outcome))
    return to_frame(trial_columns(outcome, on_front), [MapRow(trial) for trial in outcome.trials])


def front_table(analysis: Analysis) -> pd.DataFrame:
    """Return ``front.csv``: one row a map of the front, from the largest to the smallest.

    ``*_low`` to ``*_high`` are 95% intervals over the sentences; ``no_worse_than_fp32`` is the confidence that the MCC
    is no worse than FP32's by more than ``margin``; unseen damage is on training sentences, NaN if the map was not
    scored on them. The last two columns name the map's files.
    """
    return to_frame(front_columns(analysis), front_rows(analysis))


def picks_table(analysis: Analysis) -> pd.DataFrame:
    """Return ``picks.csv``: one row for each pick that there is; see :func:`front_table`.

    ``confirmed_*`` is on the holdout set; ``corrected_*`` is what choosing this way is worth on sentences that had no
    part in the choice.
    """
    return to_frame(pick_columns(analysis), pick_rows(analysis))


def trial_columns(outcome: Outcome, on_front: Collection[int]) -> MapColumns:
    """Return the columns of the table of all trials."""
    return [
        *_map_columns(outcome),
        Column("state", "", _of(lambda trial: "failed" if trial.scores is None else "complete")),
        Column("feasible", "", _of(lambda trial: trial.feasible)),
        Column("on_front", "", _of(lambda trial: trial.number in on_front)),
        Column("mcc", "", _score(outcome, lambda scores: scores.mcc)),
        Column("damage", "", _score(outcome, lambda scores: scores.damage)),
        *_other_scores(outcome),
        Column("precision", "", _of(lambda trial: trial.precision)),
        Column("elapsed_s", "", _of(lambda trial: trial.elapsed_s)),
        Column("finished_s", "", _of(lambda trial: trial.finished_s)),
        Column("failure", "", _of(lambda trial: trial.failure)),
    ]


def front_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of the front's table."""
    outcome = analysis.outcome
    return [
        *_map_columns(outcome, analysis.front_numbers),
        *_judged_columns(analysis),
        *_other_scores(outcome),
        Column("bit_map_text", "", _of(lambda trial: bit_map_path(outcome, trial, "txt"))),
        Column("bit_map_json", "", _of(lambda trial: bit_map_path(outcome, trial, "json"))),
    ]


def front_rows(analysis: Analysis) -> list[MapRow]:
    """Return the front, from the largest map to the smallest."""
    return [MapRow(trial) for trial in analysis.front]


def baseline_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of the table of the documented map and the baselines."""
    outcome = analysis.outcome
    return [
        *_map_columns(outcome, analysis.front_numbers),
        *_judged_columns(analysis),
        Column("", "outcome", _of(lambda trial: _remark(analysis, trial))),
    ]


def baseline_rows(analysis: Analysis) -> list[MapRow]:
    """Return the documented map and the baselines, by number."""
    return [MapRow(trial) for trial in ([analysis.reference] if analysis.reference else []) + list(analysis.baselines)]


def pick_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of the picks' table; corrected damage is that on unseen sentences once it is known there."""
    outcome = analysis.outcome

    def corrected(row: MapRow) -> Estimate | None:
        return row.headline.corrected if row.headline else None

    def holdout(row: MapRow) -> Estimate | None:
        return analysis.confirmed.get(row.trial.number) if row.trial else None

    def holdout_against_fp32(row: MapRow) -> Comparison | None:
        known = holdout(row)
        return known.against_fp32 if known else None

    return [
        Column("pick", "pick", lambda row: row.pick, lambda pick: asked_words(outcome, pick)),
        *_map_columns(outcome, analysis.front_numbers),
        *_judged_columns(analysis),
        _mcc_column("confirmed_mcc", "MCC, holdout", holdout),
        _difference_column("confirmed_mcc_minus_fp32", "MCC against FP32, holdout", holdout_against_fp32),
        Column("confirmed_no_worse_than_fp32", "", lambda row: _no_worse(holdout_against_fp32(row))),
        _damage_column("confirmed_damage", "damage, holdout", holdout),
        _mcc_column("corrected_mcc", "MCC, corrected", corrected),
        _damage_column("corrected_damage", "damage, corrected", corrected, present=not analysis.unseen),
        _damage_column(
            "corrected_unseen_damage",
            "damage, unseen, corrected",
            lambda row: row.headline.unseen if row.headline else None,
        ),
        _difference_column(
            "mcc_minus_documented",
            "MCC against documented",
            lambda row: row.headline.against_reference if row.headline else None,
        ),
        Column("", "best baseline of that size", lambda row: _best_baseline(analysis, row)),
        *_other_scores(outcome),
    ]


def pick_rows(analysis: Analysis) -> list[MapRow]:
    """Return the picks that there are."""
    return [MapRow(headline.trial, headline.request, headline) for headline in analysis.headlines if headline.trial]


def compared_pick_rows(analysis: Analysis) -> list[MapRow]:
    """Return the FP32 model and the documented map, and below them the picks."""
    documented = [MapRow(analysis.reference, "documented")] if analysis.reference else []
    return [MapRow(None, "FP32"), *documented, *pick_rows(analysis)]


def brief_pick_columns(analysis: Analysis) -> MapColumns:
    """Return the columns of the picks' table that fit a terminal; it names each pick as ``export --pick`` takes it."""
    outcome = analysis.outcome
    size = f"{outcome.size_axis}_compression"
    columns = {column.name: column for column in pick_columns(analysis)}
    brief = [columns[name] for name in ("pick", "label", size, "packed_bytes", "mcc", "damage", "unseen_damage")]
    brief[0] = replace(brief[0], text=lambda request: request_with_margin(outcome, request))
    return [replace(column, interval=column.name == "mcc") for column in brief]


def request_with_margin(outcome: Outcome, request: str) -> str:
    """Return a request as ``smallest@0.02``, so that it means the same with any run's margin."""
    margin = f"{outcome.margin:.9f}".rstrip("0").rstrip(".")
    return f"smallest@{margin}" if request == SMALLEST else request


def asked_words(outcome: Outcome, request: str) -> str:
    """Return what a pick answers, as ``8x or more``."""
    if request == SMALLEST:
        return f"Smallest within {formatting.loss(outcome.margin)} of FP32"
    if request == KNEE:
        return "Knee of the front"
    return f"{request.removeprefix('best@')} or more" if request.startswith("best@") else request


def _map_columns(outcome: Outcome, with_files: Collection[int] = ()) -> MapColumns:
    """Return which map it is, its sizes and its widths; a map that has a file links to it."""

    def compression(axis: SizeAxis) -> Callable[[MapRow], float]:
        return lambda row: 1.0 if row.trial is None else row.trial.compression(axis)

    def size(axis: SizeAxis) -> Callable[[MapRow], int]:
        full = fp32_size(outcome.footprint, axis)
        return lambda row: full if row.trial is None else int(exact_sizes(outcome.footprint, [row.trial], axis)[0])

    def file(row: MapRow) -> str:
        has_file = row.trial is not None and row.trial.number in with_files
        return bit_map_path(outcome, row.trial, "txt") if row.trial and has_file else ""

    return [
        Column("number", "", _of(lambda trial: trial.number)),
        Column("label", "map", _of(lambda trial: trial.label), link=file),
        Column("origin", "proposed by", _of(lambda trial: trial.origin), formatting.proposer),
        Column("nominal_compression", "nominal", compression("nominal"), formatting.times),
        Column("packed_compression", "packed", compression("packed"), formatting.times),
        Column("nominal_bits", "", size("nominal")),
        Column("packed_bytes", "packed size", size("packed"), formatting.megabytes),
        Column("bits", "", _of(lambda trial: "".join(map(str, trial.bit_map)))),
    ]


def _judged_columns(analysis: Analysis) -> MapColumns:
    """Return MCC and damage with their intervals, and how the MCC compares with FP32's."""
    outcome = analysis.outcome

    def mcc(row: MapRow) -> Value:
        if row.trial is None:
            return Measured(outcome.fp32.mcc, analysis.fp32_mcc)
        return Measured(row.trial.scores.mcc, analysis.intervals[row.trial.number].mcc) if row.trial.scores else None

    def damage(row: MapRow) -> Value:
        if row.trial is None:
            return 0.0
        known = row.trial.scores
        return Measured(known.damage, analysis.intervals[row.trial.number].damage) if known else None

    def against_fp32(row: MapRow) -> Comparison | None:
        return analysis.against_fp32.get(row.trial.number) if row.trial else None

    margin = outcome.margin
    return [
        Column("mcc", "MCC (95% interval)", mcc, formatting.mcc, interval=True),
        _difference_column("mcc_minus_fp32", "MCC against FP32", against_fp32),
        Column(
            "no_worse_than_fp32",
            f"no worse by over {formatting.loss(margin)}",
            lambda row: _no_worse(against_fp32(row)),
            formatting.confidence,
        ),
        Column("margin", "", lambda _: margin),
        Column("damage", formatting.DAMAGE, damage, formatting.nats, interval=True),
        _damage_column("unseen_damage", "damage, unseen", _of(lambda trial: analysis.unseen.get(trial.number))),
    ]


def _other_scores(outcome: Outcome) -> MapColumns:
    return [
        Column("agreement", "", _score(outcome, lambda scores: scores.agreement)),
        Column("accuracy", "", _score(outcome, lambda scores: scores.accuracy)),
        Column("cross_entropy", "", _score(outcome, lambda scores: scores.cross_entropy)),
    ]


def _of(get: Callable[[Trial], Known]) -> Callable[[MapRow], Known | None]:
    """Return what gets something of a row's trial: None for the FP32 model."""
    return lambda row: None if row.trial is None else get(row.trial)


def _score(outcome: Outcome, get: Callable[[Scores], float]) -> Callable[[MapRow], float | None]:
    def value(row: MapRow) -> float | None:
        scores = outcome.fp32 if row.trial is None else row.trial.scores
        return None if scores is None else get(scores)

    return value


def _mcc_column(name: str, heading: str, get: Callable[[MapRow], Estimate | None]) -> Column[MapRow]:
    def value(row: MapRow) -> Measured | None:
        known = get(row)
        return None if known is None else Measured(known.mcc, known.mcc_interval)

    return Column(name, heading, value, formatting.mcc, interval=True)


def _damage_column(
    name: str, heading: str, get: Callable[[MapRow], Estimate | UnseenDamage | None], present: bool | None = None
) -> Column[MapRow]:
    def value(row: MapRow) -> Measured | None:
        known = get(row)
        if isinstance(known, Estimate):
            return Measured(known.damage, known.damage_interval)
        return None if known is None else Measured(known.damage, known.interval)

    return Column(name, heading, value, formatting.nats, present, interval=True)


def _difference_column(name: str, heading: str, get: Callable[[MapRow], Comparison | None]) -> Column[MapRow]:
    def value(row: MapRow) -> Measured | None:
        known = get(row)
        return None if known is None else Measured(known.difference, known.interval)

    return Column(name, heading, value, formatting.difference, interval=True)


def _no_worse(known: Comparison | None) -> float | None:
    return None if known is None else known.no_worse


def _best_baseline(analysis: Analysis, row: MapRow) -> str | None:
    """Return the baseline that the same request picks, and whether the pick is one itself."""
    if row.trial is None or row.headline is None or row.headline.request in (SMALLEST, KNEE):
        return None
    rival = row.headline.rival
    if row.trial.origin != "sampler":
        where = " on unseen sentences" if row.trial.number in analysis.unseen else ""
        return f"this pick is one: no searched map beats it{where}"
    if rival is None or rival.scores is None:
        return "none is that small"
    size = formatting.times(rival.compression(analysis.outcome.size_axis))
    return f"{rival.label}, {size}, damage {formatting.nats(rival.scores.damage)}"


def _remark(analysis: Analysis, trial: Trial) -> str:
    if trial.scores is None:
        return f"failed: {trial.failure}"
    missed = "" if trial.feasible else "misses the constraint; "
    better = beaten_by(analysis.outcome, analysis.front, trial)
    if better is not None:
        return f"{missed}beaten by {_compared(analysis, better, trial)}"
    standing = "on the front" if trial.number in analysis.front_numbers else f"{missed}not beaten by the front"
    challenger = least_damage(
        analysis.outcome, [other for other in analysis.outcome.trials if other.origin == "sampler"], trial
    )
    if challenger is None:
        return f"{standing}; the sampler has no map that small"
    return f"{standing}; the sampler's best of that size or less is {_compared(analysis, challenger, trial)}"


def _compared(analysis: Analysis, other: Trial, trial: Trial) -> str:
    """Return by how much another map's damage is less, or more, at what size."""
    assert other.scores is not None
    assert trial.scores is not None
    what = f"{other.label} of {formatting.times(other.compression(analysis.outcome.size_axis))}"
    if trial.scores.damage == 0:
        return what
    return f"{what} with {other.scores.damage / trial.scores.damage:.0%} of its damage"
