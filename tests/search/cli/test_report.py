"""The `report` command."""

import json
import logging
import os
import re
import shutil
from pathlib import Path

import pytest

from search.run.logs import logging_to
from search.run.run_directory import RunDirectory
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.shared import ROOT


def test_report_writes_the_files_anew_without_the_model(finished_run: Path, bitfront: Command) -> None:
    (finished_run / "report.html").unlink()
    (finished_run / "front.csv").unlink()
    result = bitfront("report", "--run", finished_run)
    assert result.status == 0, result.err
    assert (finished_run / "report.html").is_file()
    assert (finished_run / "front.csv").is_file()
    assert not [path for path in finished_run.rglob(".*") if path.suffix in (".csv", ".html", ".png", ".svg", ".txt")]


def test_runs_are_compared_on_one_page(finished_run: Path, bitfront: Command, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    result = bitfront("report", "--compare", finished_run, copy, "--out", tmp_path / "out")
    assert result.status == 0, result.err
    assert "tiny against copy" in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert {row["run"] for row in rows(tmp_path / "out" / "comparison.csv")} == {"tiny", "copy"}
    for arguments in (("--compare", finished_run), ("--compare", copy, copy), (), ("--run", copy, finished_run)):
        assert bitfront("report", *arguments).status == 2, arguments
    assert bitfront("report", "--compare", copy, tmp_path / "nowhere").status == 2


def test_the_margin_and_the_command_are_the_runs(finished_run: Path, bitfront: Command) -> None:
    result = bitfront("report", "--run", finished_run, "--margin", 0.25)
    assert "within 0.25 MCC of FP32" in result.out
    assert "within 0.01 MCC" in bitfront("report", "--run", finished_run).out
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    count = len(rows(finished_run / "trials.csv"))
    assert f"bitfront search --run {finished_run}" in page
    assert f"--seed 3 --trials {count}" in page
    assert bitfront("report", "--run", finished_run, "--margin", 2).status == 2
    assert bitfront("export", "--run", finished_run, "--pick", "smallest@0.9").status == 0


def test_the_report_is_printed_as_markdown_and_as_json(finished_run: Path, bitfront: Command) -> None:
    for format_ in ("md", "json"):
        (finished_run / "front.csv").unlink()
        result = bitfront("report", "--run", finished_run, "--format", format_, "--margin", 0.25)
        assert result.status == 0, result.err
        assert (finished_run / "front.csv").is_file()  # all files are written, whatever is printed
        if format_ == "md":
            assert result.out == (finished_run / "report.md").read_text(encoding="utf-8")
    document = json.loads(result.out)
    assert document["settings"]["seed"] == 3 and document["settings"]["margin"] == 0.25
    assert [str(trial["number"]) for trial in document["trials"]] == [
        row["number"] for row in rows(finished_run / "trials.csv")
    ]
    assert document["run"]["command"].startswith(f"bitfront search --run {finished_run}")
    assert bitfront("report", "--run", finished_run, "--format", "xml").status == 2
    assert bitfront("report", "--compare", finished_run, finished_run, "--format", "json").status == 2


def test_only_the_page_of_a_running_search_refreshes_itself(finished_run: Path, bitfront: Command) -> None:
    page, settings = finished_run / "report.html", finished_run / "run.toml"
    assert 'id="running"' not in page.read_text(encoding="utf-8")
    started = re.sub(r"(?m)^(ended|by|waiting) = .*\n", "", settings.read_text(encoding="utf-8"))
    settings.write_text(started, encoding="utf-8")
    (finished_run / "phase.json").write_text(
        '{"name": "searching", "done": 11, "total": 50, "left_s": null, "share": "", "checks_s": 0, "at": 0}',
        encoding="utf-8",
    )
    bitfront("report", "--run", finished_run)
    assert 'id="running"' not in page.read_text(encoding="utf-8")  # it was killed: nobody holds its lock
    with RunDirectory(finished_run).locked():
        bitfront("report", "--run", finished_run)
    assert ">Still running: searching: 20/50.<" in page.read_text(encoding="utf-8")


def test_a_run_whose_name_is_no_utf_8_has_a_report_and_commands_that_find_it(
    bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(ROOT / "tests" / "assets" / "golden_run", run)
    (run / "report.html").unlink(missing_ok=True)
    result = bitfront("report", "--run", run)
    assert result.status == 0, result.err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert r"caf\xe9" in page
    assert rf"bitfront search --run $&#39;{tmp_path}/caf\xe9&#39;" in page
    assert rf"bitfront export --run $'{tmp_path}/caf\xe9'" in result.out
    monkeypatch.setattr(logging.getLogger("bitfront"), "propagate", False)  # pytest-xdist cannot send such a name
    with logging_to(RunDirectory(run)):
        logging.getLogger("bitfront").info("continuing %s", run)
    assert "continuing " in (run / "search.log").read_text(encoding="utf-8").splitlines()[-1]
