"""Tables of an outcome: every trial, and the front with its intervals. Numbers stay numbers; unknown ones are NaN."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

import pandas as pd

from objectives.files import replacing
from objectives.scores import Scores
from results.bit_map_files import bit_map_path
from results.findings import Findings, conclude
from results.outcome import Outcome, Trial
from results.pareto import exact_sizes, front
from results.statistics import Estimate
from results.unseen import UnseenDamage

TRIAL_COLUMNS = (
    "number",
    "origin",
    "label",
    "state",
    "feasible",
    "on_front",
    "nominal_compression",
    "packed_compression",
    "nominal_bits",
    "packed_bytes",
    "mcc",
    "damage",
    "agreement",
    "accuracy",
    "cross_entropy",
    "precision",
    "elapsed_s",
    "finished_s",
    "bits",
    "failure",
)
FRONT_COLUMNS = (
    "number",
    "origin",
    "label",
    "nominal_compression",
    "packed_compression",
    "nominal_bits",
    "packed_bytes",
    "mcc",
    "mcc_low",
    "mcc_high",
    "damage",
    "damage_low",
    "damage_high",
    "unseen_damage",
    "unseen_damage_low",
    "unseen_damage_high",
    "mcc_minus_fp32",
    "mcc_minus_fp32_low",
    "mcc_minus_fp32_high",
    "no_worse_than_fp32",
    "margin",
    "agreement",
    "accuracy",
    "cross_entropy",
    "bits",
    "bit_map_text",
    "bit_map_json",
)
CONFIRMED_COLUMNS = (
    "confirmed_mcc",
    "confirmed_mcc_low",
    "confirmed_mcc_high",
    "confirmed_mcc_minus_fp32",
    "confirmed_no_worse_than_fp32",
    "confirmed_damage",
)
CORRECTED_COLUMNS = (
    "corrected_mcc",
    "corrected_mcc_low",
    "corrected_mcc_high",
    "corrected_damage",
    "corrected_damage_low",
    "corrected_damage_high",
)
CORRECTED_UNSEEN_COLUMNS = ("corrected_unseen_damage", "corrected_unseen_damage_low", "corrected_unseen_damage_high")
_AGREEMENT = FRONT_COLUMNS.index("agreement")
PICK_COLUMNS = (
    "pick",
    *FRONT_COLUMNS[:_AGREEMENT],
    *CORRECTED_COLUMNS,
    *FRONT_COLUMNS[_AGREEMENT : FRONT_COLUMNS.index("bit_map_text")],
    *CONFIRMED_COLUMNS,
    *CORRECTED_UNSEEN_COLUMNS,
)


def trials_table(outcome: Outcome) -> pd.DataFrame:
    """Return one row a trial, by number, with the columns ``TRIAL_COLUMNS``.

    ``state`` is ``complete`` or ``failed``; scores of failed trials are NaN and ``failure`` says why. ``bits`` is the
    map as a digit a layer in layer order; read it back from CSV with ``dtype={"bits": str}``.
    """
    return _trials_table(outcome, outcome.trials, frozenset(trial.number for trial in front(outcome)))


def front_table(outcome: Outcome, findings: Findings | None = None) -> pd.DataFrame:
    """Return one row a map of the front, from the largest to the smallest, with the columns ``FRONT_COLUMNS``.

    ``*_low`` to ``*_high`` are 95% intervals over the sentences; ``no_worse_than_fp32`` is the confidence that the MCC
    is no worse than FP32's by more than ``margin``; unseen damage is on training sentences, NaN if the map was not
    scored on them. The last two columns name the map's files.

    Args:
        outcome: the state of a run.
        findings: what follows from it, where that has been worked out already.
    """
    found = conclude(outcome) if findings is None else findings
    table = _judged_table(found, found.front, [None] * len(found.front))
    table["bit_map_text"] = pd.Series([bit_map_path(outcome, trial, "txt") for trial in found.front], dtype="str")
    table["bit_map_json"] = pd.Series([bit_map_path(outcome, trial, "json") for trial in found.front], dtype="str")
    return table[list(FRONT_COLUMNS)]


def picks_table(found: Findings) -> pd.DataFrame:
    """Return one row a pick that there is, with the columns ``PICK_COLUMNS``; see :func:`front_table`.

    Corrected figures are what choosing this way is worth on sentences that the choice was not made by.
    """
    picked = [(headline, headline.trial) for headline in found.headlines if headline.trial is not None]
    table = _judged_table(found, [trial for _, trial in picked], [headline.corrected for headline, _ in picked])
    table["pick"] = pd.Series([headline.request for headline, _ in picked], dtype="str")
    confirmed = [_confirmed_values(found.confirmed.get(trial.number)) for _, trial in picked]
    for at, name in enumerate(CONFIRMED_COLUMNS):
        table[name] = pd.Series([values[at] for values in confirmed], dtype="float64")
    unseen = [_corrected_unseen_values(headline.unseen) for headline, _ in picked]
    for at, name in enumerate(CORRECTED_UNSEEN_COLUMNS):
        table[name] = pd.Series([values[at] for values in unseen], dtype="float64")
    return table[list(PICK_COLUMNS)]


def _corrected_unseen_values(known: UnseenDamage | None) -> tuple[float, ...]:
    return (nan,) * 3 if known is None else (known.damage, known.interval.low, known.interval.high)


def _confirmed_values(known: Estimate | None) -> tuple[float, ...]:
    if known is None:
        return (nan,) * len(CONFIRMED_COLUMNS)
    against = known.against_fp32
    interval = known.mcc_interval
    return (known.mcc, interval.low, interval.high, against.difference, against.no_worse, known.damage)


def _judged_table(found: Findings, trials: Sequence[Trial], corrections: Sequence[Estimate | None]) -> pd.DataFrame:
    table = _trials_table(found.outcome, trials, found.front_numbers)
    rows = []
    for trial, corrected in zip(trials, corrections, strict=True):
        intervals, against = found.intervals[trial.number], found.against_fp32[trial.number]
        row = {
            "mcc_low": intervals.mcc.low,
            "mcc_high": intervals.mcc.high,
            "damage_low": intervals.damage.low,
            "damage_high": intervals.damage.high,
            "mcc_minus_fp32": against.difference,
            "mcc_minus_fp32_low": against.interval.low,
            "mcc_minus_fp32_high": against.interval.high,
            "no_worse_than_fp32": against.no_worse,
            "margin": against.margin,
        }
        if (unseen := found.unseen.get(trial.number)) is not None:
            row |= {
                "unseen_damage": unseen.damage,
                "unseen_damage_low": unseen.interval.low,
                "unseen_damage_high": unseen.interval.high,
            }
        if corrected is not None:
            row |= {
                "corrected_mcc": corrected.mcc,
                "corrected_mcc_low": corrected.mcc_interval.low,
                "corrected_mcc_high": corrected.mcc_interval.high,
                "corrected_damage": corrected.damage,
                "corrected_damage_low": corrected.damage_interval.low,
                "corrected_damage_high": corrected.damage_interval.high,
            }
        rows.append(row)
    for name in _JUDGED:
        table[name] = pd.Series([row.get(name, nan) for row in rows], dtype="float64")
    return table


_JUDGED = (*FRONT_COLUMNS[FRONT_COLUMNS.index("unseen_damage") : _AGREEMENT], *CORRECTED_COLUMNS)
_JUDGED += ("mcc_low", "mcc_high", "damage_low", "damage_high")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV in one step, so that a reader sees the old one or the new.

    Raises:
        OSError: the folder cannot be written.
    """
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


_UNKNOWN = Scores(mcc=nan, accuracy=nan, agreement=nan, damage=nan, cross_entropy=nan)


def _trials_table(outcome: Outcome, trials: Sequence[Trial], on_front: frozenset[int]) -> pd.DataFrame:
    scores = [_UNKNOWN if trial.scores is None else trial.scores for trial in trials]
    columns = {
        "number": pd.Series([trial.number for trial in trials], dtype="int64"),
        "origin": pd.Series([trial.origin for trial in trials], dtype="str"),
        "label": pd.Series([trial.label for trial in trials], dtype="str"),
        "state": pd.Series(["failed" if trial.scores is None else "complete" for trial in trials], dtype="str"),
        "feasible": pd.Series([trial.feasible for trial in trials], dtype="bool"),
        "on_front": pd.Series([trial.number in on_front for trial in trials], dtype="bool"),
        "nominal_compression": pd.Series([trial.nominal_compression for trial in trials], dtype="float64"),
        "packed_compression": pd.Series([trial.packed_compression for trial in trials], dtype="float64"),
        "nominal_bits": pd.Series(exact_sizes(outcome.footprint, trials, "nominal")),
        "packed_bytes": pd.Series(exact_sizes(outcome.footprint, trials, "packed")),
        "mcc": pd.Series([score.mcc for score in scores], dtype="float64"),
        "damage": pd.Series([score.damage for score in scores], dtype="float64"),
        "agreement": pd.Series([score.agreement for score in scores], dtype="float64"),
        "accuracy": pd.Series([score.accuracy for score in scores], dtype="float64"),
        "cross_entropy": pd.Series([score.cross_entropy for score in scores], dtype="float64"),
        "precision": pd.Series([trial.precision for trial in trials], dtype="str"),
        "elapsed_s": pd.Series([trial.elapsed_s for trial in trials], dtype="float64"),
        "finished_s": pd.Series([trial.finished_s for trial in trials], dtype="float64"),
        "bits": pd.Series(["".join(map(str, trial.bits)) for trial in trials], dtype="str"),
        "failure": pd.Series([trial.failure for trial in trials], dtype="str"),
    }
    assert tuple(columns) == TRIAL_COLUMNS
    return pd.DataFrame(columns)
