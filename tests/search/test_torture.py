"""Searches killed with SIGKILL at random moments and resumed each time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.bit_maps import parse_bit_map
from objectives.errors import InputError
from objectives.layers import Bits
from results.outcome import Outcome, Trial
from search.profile import Profile
from search.run_directory import RunDirectory
from search.runner import Progress, run_search
from search.study import load_study, outcome
from tests.search.forks import fork
from tests.search.test_cli import command_line, rows
from tests.search.tiny_problem import TinyProblem

SEED = 20


class Quiet:
    """Shows nothing."""

    def sensitivities(self, done: int, wanted: int) -> None:
        """Show nothing."""

    def trials(self, progress: Progress) -> None:
        """Show nothing."""


def recorded(run: RunDirectory) -> dict[int, tuple[Bits, object]]:
    """Return each finished trial's map and scores, by its number; none where the study is not made yet."""
    try:
        found = outcome(load_study(run.journal), "x")
    except InputError:
        return {}
    return {trial.number: (trial.bits, trial.scores) for trial in found.trials}


def slow_front(found: Outcome) -> set[int]:
    """Return the numbers of the front's trials by looking at every pair of them."""

    def beats(other: Trial, trial: Trial) -> bool:
        assert other.scores is not None
        assert trial.scores is not None
        ours = (other.scores.damage, -other.nominal_compression)
        theirs = (trial.scores.damage, -trial.nominal_compression)
        return ours != theirs and all(mine <= its for mine, its in zip(ours, theirs, strict=True))

    usable = [trial for trial in found.trials if trial.feasible and trial.scores is not None]
    return {trial.number for trial in usable if not any(beats(other, trial) for other in usable)}


def torture(run: RunDirectory, kills: int, start: Callable[[], Callable[[], None]], longest_s: float) -> None:
    """Start a search and kill it so many times; ``start`` returns what kills it and waits for its end."""
    rng = random.Random(SEED)
    known: dict[int, tuple[Bits, object]] = {}
    hits = 0
    for _ in range(kills):
        kill = start()
        time.sleep(rng.uniform(0.05, longest_s))
        kill()
        now = recorded(run)
        assert known.items() <= now.items(), "a finished trial was lost or changed"
        hits += len(now) > len(known)
        known = now
    print(f"seed {SEED}: {kills} kills, {hits} of them after new trials, {len(known)} trials")
    assert known


def check(run: RunDirectory, wanted: int) -> None:
    """Check that a run that has come to its end is complete and true."""
    found = outcome(load_study(run.journal), run.name)
    maps = [trial.bits for trial in found.trials]
    assert len(maps) == len(set(maps)) >= wanted
    assert [int(row["number"]) for row in rows(run.path / "trials.csv")] == [trial.number for trial in found.trials]
    front = slow_front(found)
    assert {int(row["number"]) for row in rows(run.path / "front.csv")} == front
    texts = list((run.path / "bitmaps").glob("*.txt"))
    exported = {parse_bit_map(path.read_text(), found.footprint.layers, path.name) for path in texts}
    assert exported == {trial.bits for trial in found.trials if trial.number in front}
    assert len(texts) == len(front)
    hidden = {path.name for path in run.path.rglob(".*")}
    assert hidden <= {".lock", ".study.journal.lock", ".study.journal.claim.lock"}


def forked_search(profile: Profile, run: RunDirectory) -> Callable[[], Callable[[], None]]:
    def start() -> Callable[[], None]:
        process = fork(lambda: run_search(profile, run, Quiet()))

        def kill() -> None:
            process.kill()
            process.join()

        return kill

    return start


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_search_killed_again_and_again_loses_nothing(tiny: TinyProblem, tmp_path: Path, kills: int) -> None:
    run = RunDirectory(tmp_path / "run")
    profile = Profile(str(tiny.model), str(tiny.data), quantizer="affine", sensitivity="gradient")
    torture(run, kills, forked_search(profile, run), longest_s=3.5)
    wanted = len(recorded(run)) + 5
    last = fork(lambda: run_search(Profile(**{**profile.to_dict(), "trials": wanted}), run, Quiet()))
    last.join(timeout=300)
    assert last.exitcode == 0
    check(run, wanted)


@pytest.mark.slow
def test_workers_killed_with_their_parent_lose_nothing(tiny: TinyProblem, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    words = ("search", "--model", tiny.model, "--data", tiny.data, "--run", run.path, "--workers", 3)
    waits = iter([True, True, False, True, True, False])

    def evaluated(log: Path) -> int:
        return log.read_text().count("nominal, damage") if log.exists() else 0

    def start() -> Callable[[], None]:
        log = run.path / "search.log"
        before, wait = evaluated(log), next(waits)
        command = command_line(*words, "--trials", 0)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while wait and evaluated(log) == before:  # else it is killed while it starts
            assert time.monotonic() < deadline
            time.sleep(0.1)

        def kill() -> None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

        return kill

    torture(run, 6, start, longest_s=5)
    wanted = len(recorded(run)) + 5
    subprocess.run(command_line(*words, "--trials", wanted), check=True, capture_output=True, timeout=300)
    check(run, wanted)
