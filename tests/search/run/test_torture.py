"""Searches killed with SIGKILL at random moments and resumed each time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from objectives.errors import InputError
from objectives.heads import TWO_CLASSES
from objectives.layers import BitMap
from objectives.problem import Problem, load_problem
from objectives.training_sentences import unseen_sentences
from results.statistics.analysis import select
from search.run.loop import run_search
from search.run.profile import Profile
from search.run.progress import Phase, Progress
from search.run.run_directory import RunDirectory
from search.run.unseen_check import unseen_candidates
from search.storage.journal import JournalFile
from search.study.reading import load_study, outcome
from tests.search.commands import command_line, rows
from tests.search.forks import fork
from tests.search.run_checks import LOCKS, check, recorded
from tests.search.tiny_problem import TinyProblem
from tests.waiting import wait_until

pytestmark = pytest.mark.end_to_end

SEED = 20


class Quiet:
    """Shows nothing."""

    def phase(self, phase: Phase) -> None:
        """Show nothing."""

    def trials(self, progress: Progress) -> None:
        """Show nothing."""


def torture(run: RunDirectory, kills: int, start: Callable[[], Callable[[], None]], longest_s: float) -> None:
    """Start a search and kill it so many times; ``start`` returns what kills it and waits for its end."""
    rng = random.Random(SEED)
    known: dict[int, tuple[BitMap, object]] = {}
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


def forked_search(profile: Profile, run: RunDirectory) -> Callable[[], Callable[[], None]]:
    def start() -> Callable[[], None]:
        process = fork(lambda: run_search(profile, run, Quiet()))

        def kill() -> None:
            process.kill()
            process.join()

        return kill

    return start


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_search_killed_again_and_again_loses_nothing(tiny: TinyProblem, tmp_path: Path, kills: int) -> None:
    run = RunDirectory(tmp_path / "run")
    profile = Profile(str(tiny.model), str(tiny.data), quantizer="affine", sensitivity="gradient")
    torture(run, kills, forked_search(profile, run), longest_s=3.5)
    wanted = len(recorded(run)) + 5
    last = fork(lambda: run_search(Profile(**{**profile.to_dict(), "trials": wanted}), run, Quiet()))
    last.join(timeout=300)
    assert last.exitcode == 0
    check(run, wanted)


def die_on_the_way(records: int, files: int) -> None:
    """Kill this process in its ``records``-th record about the study, or before it puts its ``files``-th file."""
    honest_append, honest_replace = JournalFile.append_logs, Path.replace
    left = {"records": records, "files": files}

    def is_last(kind: str) -> bool:
        left[kind] -= 1
        return left[kind] == 0

    def append_logs(self: JournalFile, logs: list[dict[str, Any]]) -> None:
        if any("study_id" in entry and "user_attr" in entry for entry in logs) and is_last("records"):
            with self.path.open("ab") as file:
                file.write(b'{"op_code":2,"half a li')
            os.kill(os.getpid(), signal.SIGKILL)
        honest_append(self, logs)

    def replace(self: Path, target: Path) -> Path:
        if is_last("files"):
            os.kill(os.getpid(), signal.SIGKILL)
        return honest_replace(self, target)

    JournalFile.append_logs, Path.replace = append_logs, replace  # type: ignore[method-assign, assignment]


def ending(run: RunDirectory) -> tuple[int, int, bool, bool]:
    """Return how many maps are confirmed in FP32 and scored on unseen sentences, whether the holdout set is scored,
    and whether a temporary file lies there."""
    try:
        study = load_study(run.journal)
    except InputError:
        return 0, 0, False, False
    found = outcome(study, "x")
    scored = sum(key.startswith("unseen scores") for key in study.user_attrs)  # also of a check that was broken off
    confirmed = sum(trial.precision == "fp32" for trial in found.trials)
    left_over = any(path.name not in LOCKS for path in run.path.rglob(".*"))
    return confirmed, scored, found.holdout is not None, left_over


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_search_killed_in_what_it_ends_with_goes_on_there(roomy: TinyProblem, tmp_path: Path, kills: int) -> None:
    run = RunDirectory(tmp_path / "run")
    where = Profile(str(roomy.model), str(roomy.data), quantizer="affine", sensitivity="gradient")
    rest = {"precision": "bf16", "confirm": "0.3", "unseen": 20}
    rng = random.Random(SEED)
    known: dict[int, object] = {}
    seen = []
    for number in range(kills):
        # Later starts search a little further, so that there is always something to end with.
        profile = Profile(**{**where.to_dict(), **rest, "trials": 12 + number // 2})
        records, files = (rng.randint(3, 12), 0) if number % 3 < 2 else (0, rng.randint(2, 40))

        def search(profile: Profile = profile, records: int = records, files: int = files) -> None:
            die_on_the_way(records, files)
            run_search(profile, run, Quiet())

        killed = fork(search)
        killed.join(timeout=300)
        assert killed.exitcode in (0, -signal.SIGKILL)
        now: dict[int, object] = {at: bit_map for at, (bit_map, _) in recorded(run).items()}
        assert known.items() <= now.items(), "a finished trial was lost or changed"
        known = now
        seen.append(ending(run))
    print(f"seed {SEED}: {kills} kills, FP32, unseen, opened, left over: {seen}")
    wanted = len(known) + 1
    last = fork(lambda: run_search(Profile(**{**where.to_dict(), **rest, "trials": wanted}), run, Quiet()))
    last.join(timeout=300)
    assert last.exitcode == 0
    check(run, wanted)
    check_ending(run, load_problem(str(roomy.model), str(roomy.data), "bf16", quantizer="affine", confirm="0.3"))
    whole = ending(run)
    assert any(0 < confirmed < whole[0] for confirmed, _, _, _ in seen)
    assert any(0 < unseen < whole[1] for _, unseen, _, _ in seen)
    assert any(left_over for _, _, _, left_over in seen)


def check_ending(run: RunDirectory, problem: Problem) -> None:
    """Check that what a run has ended with is complete, and true to the last digit that is written."""
    found = outcome(load_study(run.journal), run.name)
    for trial in select(found).shown:
        assert trial.precision == "fp32"
        assert trial.scores is not None
        np.testing.assert_allclose(trial.scores.damage, problem.confirm(trial.bit_map).scores.damage, rtol=1e-3)
    maps = {trial.number: trial.bit_map for trial in found.trials}
    evaluator = problem.evaluator_on(unseen_sentences(problem, 20))
    fp32 = evaluator.fp32_log_odds()
    written = {int(row["number"]): float(row["damage"]) for row in rows(run.path / "unseen.csv")}
    assert found.unseen is not None
    assert set(found.unseen.log_odds) == set(written) >= {trial.number for trial in unseen_candidates(select(found))}
    for number, damage in written.items():
        expected = TWO_CLASSES.divergences(evaluator.log_odds(maps[number]), fp32).mean()
        np.testing.assert_allclose(damage, expected, rtol=1e-2, atol=1e-7)
    assert found.holdout is not None
    assert problem.holdout is not None
    assert np.array_equal(found.holdout.labels, problem.holdout.labels)
    fp32, scored = problem.holdout_log_odds([maps[number] for number in found.holdout.log_odds])
    np.testing.assert_allclose(found.holdout.fp32_log_odds, fp32, atol=1e-4)
    np.testing.assert_allclose(list(found.holdout.log_odds.values()), scored, atol=1e-4)


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
        if wait:  # else it is killed while it starts
            wait_until(lambda: evaluated(log) > before, timeout_s=300)

        def kill() -> None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

        return kill

    torture(run, 6, start, longest_s=5)
    wanted = len(recorded(run)) + 5
    subprocess.run(command_line(*words, "--trials", wanted), check=True, capture_output=True, timeout=300)
    check(run, wanted)
