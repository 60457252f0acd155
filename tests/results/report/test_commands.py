"""The commands that export picks and trials: pasted into a shell, they are what was meant."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from objectives.packing.scheme import Scheme
from results.report.commands import checkpoint_formats, pick_exports, trial_commands
from results.statistics.analysis import select
from tests.results.synthetic import made_up_outcome


@pytest.mark.parametrize("run", ["runs/x", "runs/it's 1000000 <b>"])
def test_every_pick_has_a_command_for_each_format(run: str) -> None:
    outcome = replace(made_up_outcome(trials=4, sentences=40), margin=0.3)
    exports = pick_exports(select(outcome), run)
    assert [export.request for export in exports][:2] == ["smallest@0.3", "best@5.5x"]
    for export in exports:
        assert list(export.commands) == ["text", "json", "packed", "torchao", "onnx"]
        for format_, line in export.commands.items():
            start = ["bitfront", "export", "--run", run, "--pick", export.request, "--format", format_]
            out = ["--out", f"{run}-{export.request.replace('@', '-')}-{format_}"]
            assert shlex.split(line) == start + (out if format_ not in ("text", "json") else [])
    for format_, parts in trial_commands(outcome, run).items():
        words = ["bitfront", "export", "--run", run, "--trial", "17", "--format", format_]
        assert shlex.split("17".join(parts)) == [*words, "--out", f"{run}-trial-17-{format_}"]


def test_a_codebook_fits_into_packed_checkpoints_only() -> None:
    footprint = made_up_outcome(trials=0, sentences=20).footprint
    assert checkpoint_formats(replace(footprint, scheme=Scheme("codebook"))) == ("packed",)
