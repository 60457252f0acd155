"""Tables: columns, values, and CSV files that read back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from objectives.packing.footprint import SizeAxis
from results.columns import write_csv
from results.formatting import map_name
from results.pareto import front
from results.report.tables import (
    brief_columns,
    compared_pick_rows,
    front_table,
    pick_columns,
    picks_table,
    terminal_pick_columns,
    trials_table,
)
from results.statistics.analysis import analyse
from results.statistics.metric_draws import MCC
from tests.results.synthetic import empty_outcome, failed, made_up_outcome, with_unseen

TRIAL_NAMES = " ".join(
    [
        "number label origin nominal_compression packed_compression nominal_bits packed_bytes bits state feasible",
        "on_front mcc damage agreement accuracy cross_entropy precision elapsed_s finished_s failure",
    ]
).split()
FRONT_NAMES = " ".join(
    [
        "number label origin nominal_compression packed_compression nominal_bits packed_bytes bits mcc mcc_low",
        "mcc_high",
        "mcc_minus_fp32 mcc_minus_fp32_low mcc_minus_fp32_high no_worse_than_fp32 margin damage damage_low damage_high",
        "unseen_damage unseen_damage_low unseen_damage_high agreement accuracy cross_entropy bit_map_text bit_map_json",
        "bits_per_weight",
    ]
).split()
PICK_NAMES = [
    "pick",
    *FRONT_NAMES[: FRONT_NAMES.index("agreement")],
    *(f"{name}{end}" for name in ("confirmed_mcc", "confirmed_mcc_minus_fp32") for end in ("", "_low", "_high")),
    "confirmed_no_worse_than_fp32",
    *(
        f"{name}{end}"
        for name in (
            "confirmed_damage",
            "corrected_mcc",
            "corrected_damage",
            "corrected_unseen_damage",
            "mcc_minus_documented",
        )
        for end in ("", "_low", "_high")
    ),
    *("agreement", "accuracy", "cross_entropy", "bits_per_weight"),
    *(f"{name}_{of}" for name in ("damage", "unseen_damage") for of in ("standard_error", "99_percent", "largest")),
    *("bit_map_text", "bit_map_json"),
]


def test_names_beside_sizes_of_files_say_what_a_knapsacks_name_counts() -> None:
    made = made_up_outcome(trials=20)
    trials = tuple(
        replace(trial, origin="plain", label="knapsack 8.00x") if trial.label == "uniform 4" else trial
        for trial in made.trials
    )
    knapsack = next(trial for trial in trials if trial.origin == "plain")
    cases: list[tuple[SizeAxis, str, str]] = [
        ("nominal", "knapsack 8.00x nominal", "pick (nominal size)"),
        ("packed", "knapsack 8.00x", "pick"),
    ]
    for axis, name, heading in cases:
        outcome = replace(made, trials=trials, size_axis=axis)
        assert map_name(outcome, knapsack) == name
        analysis = analyse(with_unseen(outcome, outcome.trials))
        columns = brief_columns(analysis, pick_columns(analysis))
        row = replace(compared_pick_rows(analysis)[-1], trial=knapsack)
        assert columns[1].line(row) == name
        terminal = terminal_pick_columns(analysis)
        assert (terminal[0].heading, terminal[1].line(row)) == (heading, "knapsack 8.00x")
        # FP32 changes nothing on any sentences.
        fp32 = compared_pick_rows(analysis)[0]
        assert {column.heading: column.line(fp32) for column in columns}["unseen damage"] == "0"


def test_trials_table_has_a_row_a_trial() -> None:
    outcome = made_up_outcome(trials=20)
    outcome = replace(outcome, trials=(*outcome.trials[:-1], failed(outcome.trials[-1], "it broke, twice\nand more")))
    table = trials_table(outcome)
    assert list(table.columns) == TRIAL_NAMES
    assert table["number"].tolist() == [trial.number for trial in outcome.trials]
    assert table["state"].tolist() == ["complete"] * 27 + ["failed"]
    assert set(table.loc[table["on_front"], "number"]) == {trial.number for trial in front(outcome)}
    for trial, (_, row) in zip(outcome.trials, table.iterrows(), strict=True):
        assert row["origin"] == trial.origin
        assert row["label"] == trial.label
        assert row["feasible"] == trial.feasible
        assert row["nominal_bits"] == outcome.footprint.nominal_bits(trial.bit_map)
        assert row["packed_bytes"] == outcome.footprint.packed_bytes(trial.bit_map)
        assert row["nominal_compression"] == trial.nominal_compression
        assert row["packed_compression"] == trial.packed_compression
        assert row["elapsed_s"] == trial.elapsed_s
        assert row["finished_s"] == trial.finished_s
        assert tuple(int(digit) for digit in row["bits"]) == trial.bit_map
        assert row["failure"] == trial.failure
        for name in ("mcc", "damage", "agreement", "accuracy", "cross_entropy"):
            if trial.scores is None:
                assert np.isnan(row[name])
            else:
                assert row[name] == trial.scores.record()[name]


def test_front_table_has_the_front_with_its_intervals() -> None:
    outcome = made_up_outcome(trials=40)
    table = front_table(analyse(outcome))
    on_front = front(outcome)
    assert list(table.columns) == FRONT_NAMES
    assert table["number"].tolist() == [trial.number for trial in on_front]
    assert table["nominal_compression"].is_monotonic_increasing
    for trial, (_, row) in zip(on_front, table.iterrows(), strict=True):
        assert trial.log_odds is not None
        interval = MCC.draws(outcome.labels, trial.log_odds > 0).interval()
        assert (row["mcc_low"], row["mcc_high"]) == pytest.approx((interval.low, interval.high))
        assert trial.scores is not None
        assert row["mcc_minus_fp32"] == pytest.approx(trial.scores.metric - outcome.fp32.metric)
        assert row["mcc_minus_fp32_low"] <= row["mcc_minus_fp32"] <= row["mcc_minus_fp32_high"]
        assert 0 <= row["no_worse_than_fp32"] <= 1
        assert row["damage_low"] < row["damage"] < row["damage_high"]
        assert row["bits_per_weight"] == pytest.approx(32 / trial.nominal_compression)
        assert row["bit_map_json"] == row["bit_map_text"].removesuffix("txt") + "json"


def test_picks_table_has_a_row_a_pick() -> None:
    outcome = made_up_outcome(trials=40)
    analysis = analyse(outcome)
    table = picks_table(analysis)
    assert list(table.columns) == PICK_NAMES
    assert table["pick"].tolist() == [headline.request for headline in analysis.headlines if headline.trial is not None]
    for pick, number in zip(table["pick"], table["number"], strict=True):
        headline = analysis.headline(pick)
        assert headline is not None and headline.trial is not None
        assert headline.trial.number == number
    known = table[table["corrected_mcc"].notna()]
    assert len(known) >= 3
    for score in ("mcc", "damage"):
        middle = known[f"corrected_{score}"]
        assert middle.between(known[f"corrected_{score}_low"], known[f"corrected_{score}_high"]).all()
    assert len(picks_table(analyse(empty_outcome()))) == 0


@pytest.mark.parametrize("trials", [0, 12])
def test_tables_read_back_from_csv(trials: int, tmp_path: Path) -> None:
    outcome = made_up_outcome(trials=trials) if trials else empty_outcome()
    outcome = with_unseen(outcome, outcome.trials)
    for table in (trials_table(outcome), front_table(analyse(outcome)), picks_table(analyse(outcome))):
        path = tmp_path / "folder" / "table.csv"
        write_csv(table, path)
        assert [item.name for item in path.parent.iterdir()] == ["table.csv"]
        read = pd.read_csv(
            path,
            dtype={"bits": str},
            keep_default_na=False,
            na_values={str(name): "" for name in table if table[name].dtype == "float64"},
        )
        assert list(read.columns) == list(table.columns)
        if trials:
            pd.testing.assert_frame_equal(read, table, check_dtype=False)
