"""The comparison of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from objectives.errors import InputError, printable
from results.report.comparison import comparison_info, write_comparison
from results.report.distilled import read_distilled
from search.run.reporting import read_outcome
from search.run.run_directory import RunDirectory


def compare_runs(runs: Sequence[Path], margin: float | None, out: Path) -> tuple[str, ...]:
    """Write the comparison of several runs into a directory; return warnings about how they differ.

    Raises:
        InputError: there are fewer than two runs, a run is given twice, or one cannot be read.
        OSError: the directory cannot be written.
    """
    if len(runs) < 2 or len({run.resolve() for run in runs}) < len(runs):
        raise InputError("--compare needs at least two different runs: --compare runs/x runs/y")
    outcomes = [read_outcome(RunDirectory(run), margin) for run in runs]
    names = [outcome.name for outcome in outcomes]
    names = names if len(set(names)) == len(names) else [printable(run) for run in runs]
    info = comparison_info(outcomes, names, [read_distilled(run) for run in runs])
    write_comparison(info, out)
    return info.warnings
