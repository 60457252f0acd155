import csv
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from optuna.trial import TrialState

from objectives.problem import Problem
from results.report.tables import trials_table
from search.run.worker import Job, Worker, work
from search.run.worker_pool import WorkerPool, _WorkerProcess
from search.storage.stores import Place
from search.study.reading import load_study, outcome
from search.study.study import claim
from search.study.trials import claimed
from tests.search.forks import PROFILE, Search, fork
from tests.search.tiny_problem import TinyProblem, make_tiny_problem
from tests.shared import ROOT
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def slow_problem(tmp_path_factory: pytest.TempPathFactory) -> TinyProblem:
    """So many sentences that an evaluation lasts until a signal comes."""
    return make_tiny_problem(tmp_path_factory.mktemp("slow"), sentences=4000)


def maps_of(run: Path) -> list[tuple[int, ...]]:
    """Check that a run's files agree with its study, and return the maps that it has scored."""
    found = outcome(load_study(run / "study.journal"), run.name)
    with (run / "trials.csv").open(encoding="utf-8", newline="") as file:
        numbers = [int(row["number"]) for row in csv.DictReader(file)]
    assert numbers == [trial.number for trial in found.trials]
    assert len(trials_table(found)) == len(found.trials)
    return [trial.bit_map for trial in found.trials]


def maps_by_worker(log: str) -> dict[str, int]:
    """Return how many maps each worker has finished, by its name."""
    names = re.findall(r"DEBUG (worker \d): .*nominal, damage", log)
    return {name: names.count(name) for name in set(names)}


def workers_of(pid: int) -> list[int]:
    """Return the processes that the fork server of a search has started."""
    parents, servers = {}, set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
            command = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        process, parent = int(path.parent.name), int(fields[1])
        parents[process] = parent
        if parent == pid and "multiprocessing.forkserver" in command:
            servers.add(process)
    return [process for process, parent in parents.items() if parent in servers]


@pytest.mark.end_to_end
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_dying_worker_stops_nobody_and_its_map_is_tried_again(slow_problem: TinyProblem, tmp_path: Path) -> None:
    run = tmp_path / "run"
    where = ("--model", slow_problem.model, "--data", slow_problem.data)
    settings = ("--workers", 2, "--quantizer", "affine", "--sensitivity", "none", "--sampler", "random", "--unseen", 0)
    words = ("search", *where, "--run", run, *settings)
    (script := tmp_path / "bin" / "bitfront").parent.mkdir()
    script.write_text("from search.cli.app import main\nif __name__ == '__main__':\n    main()\n")
    (tmp_path / "search.py").write_text("raise ImportError('the user's own')\n")  # where it is started
    command = [sys.executable, str(script), *map(str, words)]
    log = run / "search.log"
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as search:

        def logged() -> str:
            assert search.poll() is None, search.communicate()
            return log.read_text() if log.is_file() else ""

        wait_until(lambda: len(maps_by_worker(logged())) == 2, timeout_s=120)
        os.kill(workers_of(search.pid)[0], signal.SIGKILL)
        wait_until(lambda: "died: SIGKILL" in logged(), timeout_s=60)
        before = sum(maps_by_worker(logged()).values())
        wait_until(lambda: sum(maps_by_worker(logged()).values()) >= before + 3, timeout_s=120)
        os.killpg(search.pid, signal.SIGTERM)  # all at once, as service managers do
        _, err = search.communicate(timeout=60)
    assert search.returncode == 0, err
    assert "died: SIGTERM" not in log.read_text()
    assert len(maps := maps_of(run)) == len(set(maps))
    assert not [path.name for path in run.iterdir() if path.name.startswith(".") and "lock" not in path.name]
    trials = load_study(run / "study.journal").get_trials(deepcopy=False)
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
    # What was cut off has been scored, or still waits for it.
    names = list(trials[0].params)
    for trial in trials:
        if trial.state == TrialState.FAIL and len(trial.params) == len(names):
            widths = {name: trial.params[name] for name in names}
            others = [other.params or other.system_attrs.get("fixed_params") for other in trials if other is not trial]
            assert widths in others


def fill(pipe: Connection) -> None:
    """Send until the pipe is full."""
    os.set_blocking(pipe.fileno(), False)
    try:
        while True:
            pipe.send(None)
    except BlockingIOError:
        os.set_blocking(pipe.fileno(), True)


@pytest.mark.parametrize("act", [lambda pool: pool.watch(0), WorkerPool.shutdown], ids=["watch", "shutdown"])
def test_a_worker_that_holds_the_study_and_waits_for_room_in_its_pipe_is_heard(
    act: Callable[[WorkerPool], object], problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(Place(tmp_path / "j"), problem, trials=1)
    store, study = search.open()
    job = Job(replace(PROFILE, workers=2), search.place, problem.fingerprint, 1)

    def connect(job: Job, should_stop: Callable[[], bool]) -> Worker:
        return replace(search.worker(), should_stop=should_stop)

    def claim_and_log(*arguments: Any) -> Any:
        begun = claim(*arguments)
        logging.getLogger("bitfront").info("claimed")
        return begun

    def start(pool: WorkerPool, name: str) -> _WorkerProcess:
        ours, theirs = Pipe()
        fill(theirs)

        def run() -> None:
            ours.close()
            if name == "worker 2":
                work(job, theirs)

        process = fork(run)
        theirs.close()
        return _WorkerProcess(name, process, ours)

    monkeypatch.setattr("search.run.worker._connect", connect)
    monkeypatch.setattr("search.run.worker.claim", claim_and_log)
    monkeypatch.setattr(WorkerPool, "_start", start)
    pool = WorkerPool(job, store, study, [layer.name for layer in problem.layers])
    wait_until(lambda: any(claimed(trial) for trial in study.get_trials(states=(TrialState.RUNNING,))), timeout_s=60)
    acting = Thread(target=act, args=(pool,), daemon=True)
    acting.start()
    acting.join(timeout=30)
    stuck = acting.is_alive()
    if not stuck:
        pool.shutdown()
    pool.kill()
    assert not stuck
    ended = study.get_trials(states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL))
    assert [trial.state for trial in ended] == [TrialState.COMPLETE]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are started one by one elsewhere")
def test_the_death_of_the_server_that_starts_workers_is_reported_in_one_line(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise EOFError

    monkeypatch.setattr("search.run.worker_pool.forkserver.ensure_running", lambda: None)
    monkeypatch.setattr("multiprocessing.context.ForkServerProcess.start", dies)
    search = Search(Place(tmp_path / "j"), problem)
    job = Job(replace(PROFILE, workers=2), search.place, problem.fingerprint, 1)
    with pytest.raises(OSError, match="server that starts workers died"):
        WorkerPool(job, *search.open(), [])
