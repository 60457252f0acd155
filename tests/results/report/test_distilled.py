from dataclasses import MISSING, fields, replace
from math import isnan, nan
from pathlib import Path

import pytest

from objectives.errors import InputError
from objectives.metrics import METRICS
from results.formatting import DAMAGE
from results.report.distilled import (
    DistilledMap,
    best_distilled,
    distilled_line,
    distilled_of,
    distilled_path,
    figures_of,
    read_distilled,
    write_distilled,
)
from results.report.report import write_report
from results.statistics.analysis import analyse
from tests.results.synthetic import empty_outcome

SMALL = DistilledMap(
    number=7,
    label="trial 7",
    nominal_compression=12.8,
    packed_compression=12.07,
    kept=True,
    held_out_damage_before=0.047,
    held_out_damage_after=0.031,
    damage_before=0.0457,
    damage_before_low=0.04,
    damage_before_high=0.05,
    damage_after=0.0314,
    damage_after_low=0.027,
    damage_after_high=0.036,
    metric_before=0.257,
    metric_before_low=0.19,
    metric_before_high=0.32,
    metric_after=0.263,
    metric_after_low=0.2,
    metric_after_high=0.33,
    checkpoint="distilled/12.80x-trial-7-weights",
    trained="weights",
    epochs=4,
    damage_change=-0.0143,
    damage_change_low=-0.02,
    damage_change_high=-0.009,
    unseen_before=0.05,
    unseen_after=0.036,
    unseen_before_low=0.04,
    unseen_before_high=0.06,
    unseen_after_low=0.03,
    unseen_after_high=0.04,
    holdout_damage_before=0.058,
    holdout_damage_before_low=0.047,
    holdout_damage_before_high=0.07,
    holdout_damage_after=0.037,
    holdout_damage_after_low=0.029,
    holdout_damage_after_high=0.046,
    holdout_metric_before=0.22,
    holdout_metric_before_low=0.15,
    holdout_metric_before_high=0.29,
    holdout_metric_after=0.21,
    holdout_metric_after_low=0.14,
    holdout_metric_after_high=0.28,
)
ADDED_BEFORE_0_6_0 = (
    *("trained", "epochs", "damage_change", "damage_change_low", "damage_change_high"),
    *("unseen_before", "unseen_after"),
)
LARGE = replace(
    SMALL,
    number=3,
    label="<documented>",
    nominal_compression=5.51,
    kept=False,
    checkpoint="distilled/05.51x-trial-3-weights",
)


def test_the_table_reads_back_by_rising_compression(tmp_path: Path) -> None:
    assert read_distilled(tmp_path) == ()
    write_distilled([SMALL, LARGE], tmp_path, "mcc")
    assert read_distilled(tmp_path) == (LARGE, SMALL)
    # Older versions called every metric mcc; now its columns have its own name.
    for metric in METRICS:
        write_distilled([SMALL, LARGE], tmp_path, metric)
        header = ",".join(field.name for field in fields(DistilledMap)).replace("metric_", f"{metric}_")
        assert distilled_path(tmp_path).read_text(encoding="utf-8").splitlines()[0] == header
        assert read_distilled(tmp_path) == (LARGE, SMALL)


def test_tables_of_older_versions_are_read(tmp_path: Path) -> None:
    old = replace(
        DistilledMap(**{field.name: getattr(SMALL, field.name) for field in fields(SMALL) if field.default is MISSING}),
        checkpoint="polished/12.80x-trial-7",
    )
    names = [field.name for field in fields(SMALL) if field.default is MISSING]
    rows = [names, [str(getattr(old, name)) for name in names]]
    (tmp_path / "polished.csv").write_text("".join(f"{','.join(row)}\n" for row in rows).replace("metric_", "mcc_"))
    [read] = read_distilled(tmp_path)
    assert (read.trained, read.epochs, read.damage_after, read.checkpoint) == ("scales", 1, 0.0314, old.checkpoint)
    assert isnan(read.damage_change)
    assert "change" not in distilled_line(read, "mcc")
    # The next ones had more columns, but nothing on the holdout set, and the unseen damage without its interval.
    header = (*names, *ADDED_BEFORE_0_6_0)
    values = ",".join(str(getattr(SMALL, name)) for name in header)
    distilled_path(tmp_path).write_text(f"{','.join(header)}\n{values}\n".replace("metric_", "mcc_"))
    [read] = (one for one in read_distilled(tmp_path) if one.checkpoint == SMALL.checkpoint)
    assert (read.trained, read.damage_change, read.unseen_after) == ("weights", -0.0143, 0.036)
    assert isnan(read.holdout_damage_after) and isnan(read.unseen_after_high)
    assert distilled_line(read, "mcc").endswith("unseen damage as searched 0.05, unseen damage distilled 0.036")
    # Beside newer ones, of which the one of least held-out damage is exported.
    better = replace(SMALL, held_out_damage_after=0.02)
    write_distilled([better, LARGE], tmp_path, "mcc")
    assert [one.checkpoint for one in read_distilled(tmp_path)] == [LARGE.checkpoint, old.checkpoint, SMALL.checkpoint]
    assert best_distilled(tmp_path, 7) == better
    assert best_distilled(tmp_path, 8) is None


def test_figures_in_a_manifest_have_the_metrics_name_or_in_older_ones_mcc() -> None:
    figures = figures_of(SMALL, "accuracy")
    assert (figures["accuracy_before"], figures["label"]) == (0.257, "trial 7")
    assert distilled_of(figures | {"seed": 3}, "accuracy") == SMALL
    assert distilled_of(figures_of(SMALL, "mcc"), "accuracy") == SMALL
    assert distilled_of({"number": 3}, "mcc") is None
    without = figures_of(replace(SMALL, unseen_after=nan), "mcc")
    assert "unseen_after" not in without
    found = distilled_of(without, "mcc")
    assert found is not None and isnan(found.unseen_after)


@pytest.mark.parametrize("content", ["", "number,label\n1,x\n", "number;label\n", "\x00\x01"])
def test_a_damaged_table_is_one_clear_message(content: str, tmp_path: Path) -> None:
    distilled_path(tmp_path).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="remove it and distil again"):
        read_distilled(tmp_path)


def test_a_number_that_is_none_is_one_clear_message(tmp_path: Path) -> None:
    write_distilled([SMALL], tmp_path, "mcc")
    text = distilled_path(tmp_path).read_text(encoding="utf-8")
    for good, bad in (("0.0457", "little"), ("True", "perhaps"), ("7,trial", "seven,trial")):
        assert good in text
        distilled_path(tmp_path).write_text(text.replace(good, bad), encoding="utf-8")
        with pytest.raises(InputError, match="remove it and distil again"):
            read_distilled(tmp_path)


def test_a_line_says_both_ways_and_what_was_not_kept() -> None:
    line = distilled_line(SMALL, "mcc")
    assert line.startswith("trial 7: nominal 12.80x, packed 12.07x, ")
    assert f"{DAMAGE} as searched 0.0457 (0.04 to 0.05), damage distilled 0.0314 (0.027 to 0.036)" in line
    assert "MCC as searched 0.257 (0.190 to 0.320), MCC distilled 0.263 (0.200 to 0.330)" in line
    assert "paired change of damage -0.0143 (-0.02 to -0.009)" in line
    assert "unseen damage as searched 0.05 (0.04 to 0.06), unseen damage distilled 0.036 (0.03 to 0.04)" in line
    assert "holdout damage as searched 0.058 (0.047 to 0.07), holdout damage distilled 0.037 (0.029 to 0.046)" in line
    assert line.endswith("holdout MCC as searched 0.220 (0.150 to 0.290), holdout MCC distilled 0.210 (0.140 to 0.280)")
    assert "not kept" not in line
    assert "not kept" in distilled_line(LARGE, "mcc")


@pytest.mark.usefixtures("unrendered")
def test_the_report_shows_them_apart_from_the_search(tmp_path: Path) -> None:
    outcome = empty_outcome()
    write_report(analyse(outcome), tmp_path)
    assert 'id="distilled"' not in (tmp_path / "report.html").read_text(encoding="utf-8")
    write_distilled([SMALL, LARGE], tmp_path, "mcc")
    write_report(analyse(outcome), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="distilled"' in page
    assert "0.0314 <small>0.027 to 0.036</small>" in page
    assert "&lt;documented&gt;" in page
    assert "<documented>" not in page
    assert "0.0314" not in (tmp_path / "front.csv").read_text(encoding="utf-8")
