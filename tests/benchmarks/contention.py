"""What threads that sleep while they wait cost a search alone, and spare two searches on the same cores.

    python -m tests.benchmarks contention                 the miniature, 60 maps a search: five minutes on two cores
    python -m tests.benchmarks contention 6 shared        the shared model, 6 maps

The twin lets waiting threads spin, as OpenMP does by default. Every search is a `bitfront search` with all threads,
by the random sampler. Counted from the first map of the sampler to the last one of the slower search; in turns, medians
of three. Wanted: two at once take at most 2.3 times as long as one, and one at most 1.03 times as long as its twin.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from search.cli.app import WAITING
from search.run.run_directory import RunDirectory
from search.study.reading import load_study, outcome
from tests.search.commands import command_line
from tests.shared import ABSENT, COLA, MODEL

MAPS = 60
BASELINES = 8
REPEATS = 3
SPINNING = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
"""The defaults of libgomp and libomp; the command line leaves them alone because they are set."""
CASES: dict[str, tuple[int, dict[str, str]]] = {"one": (1, {}), "two": (2, {}), "one spinning": (1, SPINNING)}


def main(arguments: list[str]) -> None:
    """Print the median seconds of each case, and the two ratios."""
    maps = int(arguments[0]) if arguments else MAPS
    shared = "shared" in arguments
    if shared and ABSENT:
        print(ABSENT)
        return
    source = (MODEL, COLA) if shared else ("miniature", "miniature")
    taken: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(REPEATS):
        for name, (searches, chosen) in CASES.items():
            taken[name].append(seconds(source, maps, searches, chosen))
    one, two, spinning = (statistics.median(taken[name]) for name in CASES)
    print(f"one search alone:    {one:6.1f} s, {one / spinning:.2f} times its twin's (at most 1.03)")
    print(f"its twin, spinning:  {spinning:6.1f} s")
    print(f"two at once:         {two:6.1f} s, {two / one:.2f} times one's (at most 2.3)", flush=True)
    both = seconds(source, maps, 2, SPINNING)
    print(f"two twins, spinning: {both:6.1f} s, {both / spinning:.2f} times one's (measured once)")


def seconds(source: tuple[object, object], maps: int, searches: int, chosen: dict[str, str]) -> float:
    """Run so many searches at once; return the seconds from their first map to their last, baselines left out."""
    unset = {*WAITING, "OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | chosen
    with tempfile.TemporaryDirectory() as folder:
        runs = [RunDirectory(Path(folder) / str(number)) for number in range(searches)]
        flags = {
            "--model": source[0],
            "--data": source[1],
            "--quantizer": "affine",
            "--sampler": "random",
            "--sensitivity": "none",
            "--unseen": 0,
            "--trials": BASELINES + maps,
        }
        words = [word for pair in flags.items() for word in pair]
        started = [
            subprocess.Popen(
                command_line("search", "--run", run.path, *words),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for run in runs
        ]
        assert [process.wait() for process in started] == [0] * searches
        times = [
            trial.finished_s
            for run in runs
            for trial in outcome(load_study(run.place()), run.name).trials
            if trial.origin == "sampler"
        ]
    return max(times) - min(times)
