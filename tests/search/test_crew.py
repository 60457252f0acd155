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

import pytest
from optuna.trial import TrialState

from objectives.problem import Problem
from results.tables import trials_table
from search.crew import Crew, _Member
from search.reading import load_study, outcome
from search.storage import Place
from search.trials import claimed
from search.worker import Job, Worker, work
from tests.search.commands import rows
from tests.search.forks import PROFILE, Search, fork
from tests.search.tiny_problem import TinyProblem, make_tiny_problem
from tests.shared import ROOT
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def slow_problem(tmp_path_factory: pytest.TempPathFactory) -> TinyProblem:
    """Sentences enough that an evaluation takes long enough to be hit by a signal."""
    return make_tiny_problem(tmp_path_factory.mktemp("slow"), sentences=4000)


def maps_of(run: Path) -> list[tuple[int, ...]]:
    """Return the maps that a run has scored, after checking that its files say what its study holds."""
    found = outcome(load_study(run / "study.journal"), run.name)
    assert [int(row["number"]) for row in rows(run / "trials.csv")] == [trial.number for trial in found.trials]
    assert len(trials_table(found)) == len(found.trials)
    return [trial.bits for trial in found.trials]


def holders(log: str) -> dict[str, int]:
    """Return how many maps each worker has finished, by its name."""
    names = re.findall(r"DEBUG (worker \d): .*nominal, damage", log)
    return {name: names.count(name) for name in set(names)}


def workers_of(pid: int) -> list[int]:
    """Return the processes that were forked by the server of a search."""
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
    words = ("search", *where, "--run", run, "--workers", 2, "--quantizer", "affine", "--sensitivity", "gradient")
    (script := tmp_path / "bin" / "bitfront").parent.mkdir()
    script.write_text("from search.cli import main\nif __name__ == '__main__':\n    main()\n")
    (tmp_path / "search.py").write_text("raise ImportError('the user's own')\n")  # where it is started
    command = [sys.executable, str(script), *map(str, words)]
    log = run / "search.log"
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as search:

        def log_until(shows: Callable[[str], bool]) -> str:
            wait_until(lambda: search.poll() is not None or (log.is_file() and shows(log.read_text())), timeout_s=120)
            assert search.poll() is None, search.communicate()
            return log.read_text()

        log_until(lambda text: len(holders(text)) >= 2)
        os.kill(workers_of(search.pid)[0], signal.SIGKILL)
        before = sum(holders(log_until(lambda text: "died: SIGKILL" in text)).values())
        log_until(lambda text: sum(holders(text).values()) >= before + 3)
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
            bits = {name: trial.params[name] for name in names}
            others = [other.params or other.system_attrs.get("fixed_params") for other in trials if other is not trial]
            assert bits in others


def fill(pipe: Connection) -> None:
    """Send until not a byte more has room."""
    os.set_blocking(pipe.fileno(), False)
    try:
        while True:
            pipe.send(("claimed", None))
    except BlockingIOError:
        os.set_blocking(pipe.fileno(), True)


@pytest.mark.parametrize("act", [lambda crew: crew.watch(0), Crew.dismiss], ids=["bury", "dismiss"])
def test_a_worker_that_waits_for_room_to_say_what_it_claimed_is_heard(
    act: Callable[[Crew], object], problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(Place(tmp_path / "j"), problem, trials=1)
    store, study = search.open()
    job = Job(replace(PROFILE, workers=2), "random", search.place, problem.fingerprint, 1)

    def hired(job: Job, parent: Connection) -> Worker:
        return search.worker(announce=lambda number: parent.send(("claimed", number)))

    def start(crew: Crew, name: str) -> _Member:
        ours, theirs = Pipe()
        fill(theirs)
        process = fork(lambda: os._exit(1) if name == "worker 1" else work(job, theirs))
        theirs.close()
        return _Member(name, process, ours)

    monkeypatch.setattr("search.worker._hired", hired)
    monkeypatch.setattr(Crew, "_start", start)
    crew = Crew(job, store, study, [layer.name for layer in problem.layers])
    running = (TrialState.RUNNING,)
    wait_until(lambda: any(map(claimed, study.get_trials(states=running))), timeout_s=60)
    acting = Thread(target=act, args=(crew,), daemon=True)
    acting.start()
    acting.join(timeout=30)
    stuck = acting.is_alive()
    if not stuck:
        crew.dismiss()
    crew.kill()
    assert not stuck
    ended = study.get_trials(states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL))
    assert [trial.state for trial in ended] == [TrialState.COMPLETE]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are started one by one elsewhere")
def test_what_dies_while_it_is_to_start_workers_is_told_in_one_line(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise EOFError

    monkeypatch.setattr("search.crew.forkserver.ensure_running", lambda: None)
    monkeypatch.setattr("multiprocessing.context.ForkServerProcess.start", dies)
    search = Search(Place(tmp_path / "j"), problem)
    job = Job(replace(PROFILE, workers=2), "random", search.place, problem.fingerprint, 1)
    with pytest.raises(OSError, match="died while it started"):
        Crew(job, *search.open(), [])
