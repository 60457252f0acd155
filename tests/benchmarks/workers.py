"""How many maps a minute a whole search evaluates with one worker and with several, on a journal and on PostgreSQL.

`python -m tests.benchmarks workers [MAPS]` runs `bitfront search` on the shared model, so many maps (40) beside the
baselines in each search, by the random sampler and without sensitivities. Counted from the first map of the sampler to
its last.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from search.run.run_directory import RunDirectory
from search.study.reading import load_study, outcome
from tests.search.postgresql import server_url
from tests.shared import ABSENT, COLA, MODEL

WORKERS = (1, 2, 4)
MAPS = 40
BASELINES = 8


def main(arguments: list[str]) -> None:
    """Print maps a minute by storage and number of workers, and the ratio to one worker on the same storage."""
    if ABSENT:
        print(ABSENT)
        return
    maps = int(arguments[0]) if arguments else MAPS
    with tempfile.TemporaryDirectory() as directory:
        search(Path(directory) / "codes", BASELINES + 2, 2)  # so that no search that counts has to make the codes
        for name, opened in (("journal", lambda: nullcontext("")), ("PostgreSQL", server_url)):
            with opened() as url:
                if url is None:
                    continue
                alone = None
                for workers in WORKERS:
                    rate = search(Path(directory) / f"{name}-{workers}", BASELINES + maps, workers, url)
                    alone = alone or rate
                    print(
                        f"{name:10} {workers} workers: {rate:5.1f} maps a minute, {rate / alone:.2f} of one", flush=True
                    )


def search(path: Path, trials: int, workers: int, url: str = "") -> float:
    """Search, check that each map is there once, and return maps a minute."""
    flags = {
        "--run": path,
        "--model": MODEL,
        "--data": COLA,
        "--quantizer": "affine",
        "--sampler": "random",
        "--sensitivity": "none",
        "--unseen": 0,
        "--trials": trials,
        "--workers": workers,
        "--storage": url,
    }
    words = [str(word) for pair in flags.items() for word in pair]
    subprocess.run([Path(sys.executable).with_name("bitfront"), "search", *words], check=True, capture_output=True)
    found = outcome(load_study(RunDirectory(path).place(url)), path.name).trials
    assert len({trial.bit_map for trial in found}) == len(found) == trials
    times = [trial.finished_s for trial in found if trial.origin == "sampler"]
    return 60 * (len(times) - 1) / (max(times) - min(times))
