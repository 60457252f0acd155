"""Write the golden run: a small search of the miniature that every later version must still read and continue.

    python -m tests.assets.make_golden_run DIR      DIR/golden_run; a minute or two

Commit f4e9683751c8 wrote the run in ``tests/assets/golden_run``. The run stands for the files that users have, so a
change of format is no reason to write it anew: new code must read old files. New weights of the miniature are a reason,
and so is a format that is given up and listed in the changelog as breaking. Where a figure is computed otherwise, as
intervals of MCC are since 0.3.0, ``report`` writes it anew into the run's front and picks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

KEPT = ("run.toml", "study.journal", "search.log", "bitmaps", "polished")
KEPT_TABLES = ("sensitivity", "trials", "front", "picks", "unseen", "polished")
SEARCH = "search --profile miniature --quantizer affine --precision fp32 --device cpu --trials 32 --unseen 300 --seed 0"
POLISH = "polish --pick best@10.67x"


def write(directory: Path) -> None:
    """Make the run in ``directory`` and keep of it what is needed to read it: no plots, no report, no locks."""
    run = directory / "golden_run"
    for command in (SEARCH, POLISH):
        # Started where the run is, so that no path of this machine gets into it.
        subprocess.run(
            [sys.executable, "-m", "search.cli", *command.split(), "--run", run.name], cwd=directory, check=True
        )
    kept = {*KEPT, *(f"{table}.csv" for table in KEPT_TABLES)}
    for path in run.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
