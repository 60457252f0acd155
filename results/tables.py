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
    "agreement",
    "accuracy",
    "cross_entropy",
    "bits",
    "bit_map_text",
    "bit_map_json",
)


def trials_table(outcome: Outcome) -> pd.DataFrame:
    """Return one row a trial, by number, with the columns ``TRIAL_COLUMNS``.

    ``state`` is ``complete`` or ``failed``; scores of failed trials are NaN and ``failure`` says why. ``bits`` is the
    map as a digit a layer in layer order; read it back from CSV with ``dtype={"bits": str}``.
    """
    return _trials_table(outcome, outcome.trials, frozenset(trial.number for trial in front(outcome)))


def front_table(outcome: Outcome, findings: Findings | None = None) -> pd.DataFrame:
    """Return one row a map of the front, from the largest to the smallest, with the columns ``FRONT_COLUMNS``.

    ``mcc_low`` to ``mcc_high`` and ``damage_low`` to ``damage_high`` are 95% intervals over the sentences; the last two
    columns name the map's files in the run directory.

    Args:
        outcome: the state of a run.
        findings: what follows from it, where that has been worked out already.
    """
    found = conclude(outcome) if findings is None else findings
    table = _trials_table(outcome, found.front, found.front_numbers)
    intervals = [found.intervals[trial.number] for trial in found.front]
    table["mcc_low"] = pd.Series([interval.mcc.low for interval in intervals], dtype="float64")
    table["mcc_high"] = pd.Series([interval.mcc.high for interval in intervals], dtype="float64")
    table["damage_low"] = pd.Series([interval.damage.low for interval in intervals], dtype="float64")
    table["damage_high"] = pd.Series([interval.damage.high for interval in intervals], dtype="float64")
    table["bit_map_text"] = pd.Series([bit_map_path(outcome, trial, "txt") for trial in found.front], dtype="str")
    table["bit_map_json"] = pd.Series([bit_map_path(outcome, trial, "json") for trial in found.front], dtype="str")
    return table[list(FRONT_COLUMNS)]


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
