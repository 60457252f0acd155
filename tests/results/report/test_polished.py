from dataclasses import fields, replace
from pathlib import Path

import pytest

from objectives.errors import InputError
from objectives.metrics import METRICS
from results.formatting import DAMAGE
from results.report.polished import (
    PolishedMap,
    figures_of,
    polished_line,
    polished_of,
    polished_path,
    read_polished,
    write_polished,
)
from results.report.report import write_report
from results.statistics.analysis import analyse
from tests.results.synthetic import empty_outcome

SMALL = PolishedMap(
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
    checkpoint="polished/12.80x-trial-7",
)
LARGE = replace(
    SMALL, number=3, label="<documented>", nominal_compression=5.51, kept=False, checkpoint="polished/05.51x-trial-3"
)


def test_the_table_reads_back_by_rising_compression(tmp_path: Path) -> None:
    assert read_polished(tmp_path) == ()
    write_polished([SMALL, LARGE], tmp_path, "mcc")
    assert read_polished(tmp_path) == (LARGE, SMALL)
    # Older versions called every metric mcc; now its columns have its own name.
    for metric in METRICS:
        write_polished([SMALL, LARGE], tmp_path, metric)
        header = ",".join(field.name for field in fields(PolishedMap)).replace("metric_", f"{metric}_")
        assert polished_path(tmp_path).read_text(encoding="utf-8").splitlines()[0] == header
        assert read_polished(tmp_path) == (LARGE, SMALL)


def test_figures_in_a_manifest_have_the_metrics_name_or_in_older_ones_mcc() -> None:
    figures = figures_of(SMALL, "accuracy")
    assert (figures["accuracy_before"], figures["label"]) == (0.257, "trial 7")
    assert polished_of(figures | {"seed": 3}, "accuracy") == SMALL
    assert polished_of(figures_of(SMALL, "mcc"), "accuracy") == SMALL
    assert polished_of({"number": 3}, "mcc") is None


@pytest.mark.parametrize("content", ["", "number,label\n1,x\n", "number;label\n", "\x00\x01"])
def test_a_damaged_table_is_one_clear_message(content: str, tmp_path: Path) -> None:
    polished_path(tmp_path).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="remove it and polish again"):
        read_polished(tmp_path)


def test_a_number_that_is_none_is_one_clear_message(tmp_path: Path) -> None:
    write_polished([SMALL], tmp_path, "mcc")
    text = polished_path(tmp_path).read_text(encoding="utf-8")
    for good, bad in (("0.0457", "little"), ("True", "perhaps"), ("7,trial", "seven,trial")):
        assert good in text
        polished_path(tmp_path).write_text(text.replace(good, bad), encoding="utf-8")
        with pytest.raises(InputError, match="remove it and polish again"):
            read_polished(tmp_path)


def test_a_line_says_both_ways_and_what_was_not_kept() -> None:
    line = polished_line(SMALL, "mcc")
    assert line.startswith("trial 7: nominal 12.80x, packed 12.07x, ")
    assert f"{DAMAGE} before 0.0457 (0.04 to 0.05), damage polished 0.0314 (0.027 to 0.036)" in line
    assert "MCC before 0.257 (0.190 to 0.320), MCC polished 0.263 (0.200 to 0.330)" in line
    assert "not kept" not in line
    assert "not kept" in polished_line(LARGE, "mcc")


@pytest.mark.usefixtures("unrendered")
def test_the_report_shows_them_apart_from_the_search(tmp_path: Path) -> None:
    outcome = empty_outcome()
    write_report(analyse(outcome), tmp_path)
    assert 'id="polished"' not in (tmp_path / "report.html").read_text(encoding="utf-8")
    write_polished([SMALL, LARGE], tmp_path, "mcc")
    write_report(analyse(outcome), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="polished"' in page
    assert "0.0314 <small>0.027 to 0.036</small>" in page
    assert "&lt;documented&gt;" in page
    assert "<documented>" not in page
    assert "0.0314" not in (tmp_path / "front.csv").read_text(encoding="utf-8")
