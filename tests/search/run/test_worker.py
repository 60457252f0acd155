import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

import search.storage.stores
from objectives.errors import InputError
from objectives.layers import WIDTHS, BitMap
from objectives.problem import Evaluation, Problem
from search.storage.stores import Place, StorageAwayError, StorageLostError, Store
from search.study.reading import load_study, outcome
from search.study.study import claim, retry_lost
from search.study.trials import MOST_ATTEMPTS, claimed, finished, map_of
from tests.search.forks import Search, fork
from tests.search.postgresql import PASSWORD, Server, running_server
from tests.waiting import wait_until

WANTED = 30


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


def place_of(storage: str, directory: Path, request: pytest.FixtureRequest) -> Place:
    url = request.getfixturevalue("server").url if storage == "postgresql" else ""
    return Place(directory / "study.journal", url, directory.name if url else "bitfront")


def check_complete(place: Place, wanted: int) -> None:
    """Check that a search of so many maps has each of them once and nothing half-done."""
    study = load_study(place)
    found = outcome(study, "x")
    maps = [trial.bit_map for trial in found.trials if trial.scores is not None]
    assert len(maps) == len(set(maps)) == wanted
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


@pytest.mark.end_to_end
@pytest.mark.parametrize("storage", ["journal", "postgresql"])
def test_four_workers_never_take_the_same_map(
    storage: str, problem: Problem, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    search = Search(place_of(storage, tmp_path, request), problem, WANTED)
    _, study = search.open()
    del study
    workers = [fork(search.work) for _ in range(4)]
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    check_complete(search.place, WANTED)


def test_a_mistake_of_ours_is_no_failed_map(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(Place(tmp_path / "j"), problem, WANTED)
    search.open()
    worker = search.worker()

    def evaluate(self: Problem, bit_map: BitMap) -> Evaluation:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(Problem, "evaluate", evaluate)
    with pytest.raises(ValueError, match="broadcast"):
        worker.evaluate_next()


def test_a_journal_without_the_lock_would_have_the_same_map_twice(problem: Problem, tmp_path: Path) -> None:
    """The oracle of the test above: it can fail."""
    search = Search(Place(tmp_path / "j"), problem, WANTED)
    search.open()
    first, second = search.worker(), search.worker()
    maps = []
    for worker in (first, second):
        study = worker.study
        for _ in range(len(WIDTHS) if worker is first else 0):  # the baselines
            study.ask()
        trial = study.ask()
        maps.append(trial.relative_params)  # proposed and not written yet
    assert maps[0] == maps[1]


@pytest.mark.end_to_end
@pytest.mark.parametrize("storage", ["journal", "postgresql"])
def test_the_map_of_a_killed_worker_is_tried_again(
    storage: str, problem: Problem, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search.storage.stores, "HEARTBEAT_S", 1)
    monkeypatch.setattr(search.storage.stores, "GRACE_S", 2)
    wanted = len(WIDTHS) + 3
    tried = Search(place_of(storage, tmp_path, request), problem, wanted)
    _, study = tried.open()

    def die_on_the_way() -> None:
        worker = tried.worker()
        for _ in range(8):
            worker.evaluate_next()
        object.__setattr__(worker, "_evaluate", lambda bit_map: os.kill(os.getpid(), signal.SIGKILL))
        worker.evaluate_next()

    victim = fork(die_on_the_way)
    victim.join(timeout=60)
    assert victim.exitcode == -signal.SIGKILL
    (lost,) = study.get_trials(states=(TrialState.RUNNING,))
    other = fork(tried.work)
    other.join(timeout=60)
    assert other.exitcode == 0
    check_complete(tried.place, wanted)
    again = [map_of(trial, []) for trial in study.get_trials(states=(TrialState.COMPLETE,))]
    assert map_of(lost, []) in again


def test_a_trial_in_a_journal_is_abandoned_once_its_process_has_released_its_lock(
    problem: Problem, tmp_path: Path
) -> None:
    search = Search(Place(tmp_path / "j"), problem, baselines=False)
    (store, study), worker = search.open(), search.worker()
    names = [layer.name for layer in problem.layers]
    with ExitStack() as alive, store.exclusive():
        trial, bit_map = claim(
            worker.study, problem.layers, lambda trial: alive.enter_context(worker.store.living(trial))
        )
        assert not store.fail_abandoned(study, claimed)
        alive.close()
        assert store.fail_abandoned(study, claimed)
        assert not store.fail_abandoned(study, claimed)
        assert retry_lost(study, names, blamed=True) == 1
        assert retry_lost(study, names, blamed=True) == 0
        again, same = claim(worker.study, problem.layers)
    assert (again.number > trial.number, same) == (True, bit_map)
    assert not list(tmp_path.glob(".j-*"))


def test_a_baseline_whose_worker_died_before_its_first_heartbeat_is_tried_again(
    problem: Problem, tmp_path: Path, server: Server
) -> None:
    wanted = len(WIDTHS) + 1
    search = Search(Place(tmp_path / "unused", server.url, tmp_path.name), problem, wanted)
    search.open()

    def die_at_once() -> None:
        worker = search.worker()
        object.__setattr__(worker.store, "living", lambda trial: os.kill(os.getpid(), signal.SIGKILL))
        worker.evaluate_next()

    victim = fork(die_at_once)
    victim.join(timeout=60)
    assert victim.exitcode == -signal.SIGKILL
    other = fork(search.work)
    other.join(timeout=60)
    assert other.exitcode == 0
    check_complete(search.place, wanted)


def test_a_map_that_kills_every_worker_is_given_up(problem: Problem, tmp_path: Path) -> None:
    search = Search(Place(tmp_path / "j"), problem, baselines=False)
    store, study = search.open()
    names = [layer.name for layer in problem.layers]
    maps = set()
    for _ in range(MOST_ATTEMPTS):
        assert finished(study) == 0
        with store.exclusive():
            maps.add(claim(study, problem.layers)[1])
            store.fail_abandoned(study, claimed)
            retry_lost(study, names, blamed=True)
    assert not study.get_trials(states=(TrialState.WAITING,))
    (failed,) = outcome(study, "x").trials
    assert {failed.bit_map} == maps
    assert failed.failure == "its process died in all 3 attempts"


def test_a_server_that_is_killed_and_comes_back_loses_nothing(problem: Problem, tmp_path: Path, server: Server) -> None:
    search = Search(Place(tmp_path / "unused", server.url, tmp_path.name), problem, WANTED)
    _, study = search.open()
    workers = [fork(search.work) for _ in range(4)]
    wait_until(lambda: finished(study) >= 10, timeout_s=120)
    server.kill()
    time.sleep(0.5)
    server.start()
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    check_complete(search.place, WANTED)


def test_a_study_of_other_weights_is_refused_in_a_shared_storage(
    problem: Problem, tmp_path: Path, server: Server
) -> None:
    place = Place(tmp_path / "unused", server.url, tmp_path.name)
    Search(place, problem).open()
    other = replace(problem, fingerprint={**problem.fingerprint, "model": "of another machine"})
    with pytest.raises(InputError, match=r"is another search.*model was .* and is now 'of another machine'"):
        Search(place, other).open()


def test_a_machine_that_joins_adds_no_baseline_and_ends_no_trial(
    problem: Problem, tmp_path: Path, server: Server
) -> None:
    place = Place(tmp_path / "unused", server.url, tmp_path.name)
    first = Search(place, problem, WANTED)
    first.open()
    worker = first.worker()
    with worker.store.exclusive():
        trial, _ = claim(worker.study, problem.layers)
    with worker.store.living(trial):
        _, study = first.open()
        assert len(study.get_trials(states=(TrialState.WAITING,))) == len(WIDTHS) - 1
        assert len(study.get_trials(states=(TrialState.RUNNING,))) == 1


def test_a_storage_that_is_away_at_the_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, honest = Place(tmp_path / "j"), Place.open
    attempts: list[Place] = []

    def away_twice(self: Place, recover: bool = False, should_stop: Callable[[], bool] = lambda: False) -> Store:
        attempts.append(self)
        if len(attempts) < 3:
            raise StorageAwayError("away")
        return honest(self, recover, should_stop)

    monkeypatch.setattr(Place, "open", away_twice)
    monkeypatch.setattr(search.storage.stores, "_LONGEST_PAUSE_S", 0.01)
    assert place.open_patiently(lambda: False).study_name == place.study_name
    assert len(attempts) == 3
    attempts.clear()
    with pytest.raises(StorageAwayError):
        place.open_patiently(lambda: True)


def test_patience_with_a_server_begins_when_it_is_first_away(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now, tries = Place(tmp_path / "unused", server.url, tmp_path.name).open(), 0.0, 0

    class Clock:
        monotonic = staticmethod(lambda: now)

        @staticmethod
        def sleep(pause_s: float) -> None:
            nonlocal now
            now += pause_s

    monkeypatch.setattr(search.storage.stores, "time", Clock)

    def long_action() -> int:
        nonlocal now, tries
        tries += 1
        if tries == 1:
            now += 2 * search.storage.stores.PATIENCE_S
            raise StorageInternalError
        return tries

    assert store.patiently(long_action, lambda: False) == 2

    def never() -> None:
        raise StorageInternalError

    began = now
    with pytest.raises(StorageLostError):
        store.patiently(never, lambda: False)
    assert now - began > search.storage.stores.PATIENCE_S


def test_a_password_is_nowhere_to_be_seen(server: Server, tmp_path: Path) -> None:
    place = Place(tmp_path / "j", server.url, "secretive")
    assert PASSWORD not in repr(place)
    wrong = server.url.replace(PASSWORD, "wr0ng-secret")
    with pytest.raises(InputError, match="password authentication failed") as refused:
        Place(tmp_path / "j", wrong, "secretive").open()
    assert "wr0ng-secret" not in str(refused.value)
    with pytest.raises(InputError, match="write it as %40") as refused:
        Place(tmp_path / "j", server.url.replace(PASSWORD, "wr0ng@secret"), "secretive").open()
    assert "wr0ng" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_worker_asked_for_enqueued_maps_only_proposes_none(problem: Problem, tmp_path: Path) -> None:
    """As before sensitivities are measured, and also where another machine has taken the last one."""
    search = Search(Place(tmp_path / "j"), problem)
    _, study = search.open()
    worker = search.worker()
    while worker.evaluate_next(enqueued_only=True):
        pass
    assert [map_of(trial, list(trial.params)) for trial in study.get_trials()] == [
        (width,) * len(problem.layers) for width in WIDTHS
    ]
    assert worker.evaluate_next()
    assert finished(study) == len(WIDTHS) + 1
