"""A run from Python, as notebooks open it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from objectives.errors import InputError
from objectives.problem import Problem
from results.export.packed import load_checkpoint
from results.report.document import as_json, report_document
from results.statistics.picks import pick
from search.api import open_run
from tests.shared import ROOT


def test_a_run_opens_as_its_tables(finished_run: Path) -> None:
    run = open_run(str(finished_run))
    for table, name in ((run.front, "front"), (run.picks, "picks"), (run.trials, "trials")):
        written = pd.read_csv(finished_run / f"{name}.csv", dtype={"bits": str}).drop(
            columns="failure", errors="ignore"
        )
        pd.testing.assert_frame_equal(table[list(written.columns)], written)
    chosen = pick(run.outcome, "best@8x")
    bit_map = run.bit_map("best@8x")
    assert tuple(bit_map.values()) == chosen.bit_map
    assert list(bit_map) == [layer.name for layer in run.outcome.footprint.layers]
    assert run.bit_map(chosen.number) == bit_map
    assert open_run(finished_run, margin=0.5).picks["margin"].unique().tolist() == [0.5]


def test_a_runs_map_is_a_classifier_or_a_checkpoint(finished_run: Path, problem: Problem, tmp_path: Path) -> None:
    run = open_run(finished_run)
    trial = pick(run.outcome, "best@8x")
    assert trial.scores is not None
    classifier = run.checkpoint("best@8x")
    assert problem.confirm_network(classifier.model).scores.damage == pytest.approx(trial.scores.damage, abs=1e-9)
    written = run.checkpoint(trial.number, tmp_path / "small")
    assert written == tmp_path / "small"
    loaded = load_checkpoint(written).model.state_dict()
    own = classifier.model.state_dict()
    assert own.keys() == loaded.keys() and all(torch.equal(own[name], loaded[name]) for name in own)
    assert not torch.equal(next(iter(own.values())), next(iter(problem.network.state_dict().values())))
    with pytest.raises(InputError, match="exists already"):
        run.checkpoint("best@8x", written)


def test_the_code_in_the_docs_runs(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    document = report_document(open_run("runs/x").analysis, "runs/x", {})
    (tmp_path / "report.json").write_text(as_json(document), encoding="utf-8")
    text = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block, names)  # our own
    assert (tmp_path / "small" / "packed.safetensors").is_file()
    assert names["front"]["number"].tolist() == [row["number"] for row in document["front"]]


def test_mistakes_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run here"):
        open_run(tmp_path / "nowhere")
    golden = ROOT / "tests" / "assets" / "golden_run"
    with pytest.raises(InputError, match="margin"):
        open_run(golden, margin=-1)
    run = open_run(golden)
    for call in (
        *(lambda: run.bit_map("best@99x"), lambda: run.bit_map("the best"), lambda: run.bit_map(999)),
        *(lambda: run.checkpoint("knee", tmp_path / "new", "zip"), lambda: run.checkpoint(-1)),
    ):
        with pytest.raises(InputError):
            call()
    assert not (tmp_path / "new").exists()
