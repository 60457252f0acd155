"""The storage of a study: a journal in the run's directory, or a PostgreSQL database that many machines share.

Optuna stores the study. Stores add what several processes need to share it: a lock, a heartbeat for each trial, and
retries while the server is away.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, fail_stale_trials, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from objectives.errors import InputError
from objectives.files import LockHeldError, never, process_lock
from search.storage.journal import JournalFile, unreadable

log = logging.getLogger("bitfront")

STUDY_NAME = "bitfront"
"""Name of a journal's only study. A database has many; each has its run's name."""

HEARTBEAT_S = 10
GRACE_S = 60
"""A trial without a heartbeat for so long counts as abandoned."""

_LONGEST_HOLD_S = 120
"""The server takes a lock from a process that holds it for longer."""

PATIENCE_S = 3600.0
"""How long a server may be away."""
_LONGEST_PAUSE_S = 10.0

_DRIVER = "postgresql+psycopg"
_WITH_HEARTBEAT = "SELECT trial_id FROM trial_heartbeats JOIN trials USING (trial_id) WHERE state = 'RUNNING'"

_Result = TypeVar("_Result")


class StorageLostError(OSError):
    """The storage stayed away for longer than ``PATIENCE_S``."""


class Store(ABC):
    """A study's open storage.

    Attributes:
        backend: Optuna's storage.
        study_name: the study's name in it.
        shared: whether other runs may work on the study at the same time, perhaps on other machines.
    """

    backend: BaseStorage
    study_name: str
    shared: bool

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the study for this process alone; others wait."""

    def together(self) -> AbstractContextManager[None]:
        """Write this context's operations in one piece at its end, if the storage can; it must not read them."""
        return nullcontext()

    def living(self, trial: optuna.Trial) -> AbstractContextManager[None]:
        """Show other processes that this trial's process is alive."""
        return nullcontext()

    @abstractmethod
    def fail_abandoned(self, study: optuna.Study, claimed: Callable[[FrozenTrial], bool]) -> bool:
        """Mark the running trials of dead processes as failed; return whether there may be interrupted ones to retry.

        Hold the study exclusively. ``claimed`` tells whether a trial has claimed a map.
        """

    def patiently(self, action: Callable[[], _Result], should_stop: Callable[[], bool]) -> _Result:
        """Return the result of ``action``, retried while the storage is away.

        Raises:
            StorageLostError: the storage stayed away, or ``should_stop`` returned true while it was away.
        """
        return action()


@dataclass(frozen=True)
class Place:
    """Where a run's study is stored; processes pass it to each other. Its repr shows no password.

    Attributes:
        journal: the journal in the run's directory.
        url: URL of the database, with the password; empty if the journal is used.
        study_name: the study's name in the storage.
    """

    journal: Path
    url: str = field(default="", repr=False)
    study_name: str = STUDY_NAME

    def open(self, recover: bool = False, should_stop: Callable[[], bool] = never) -> Store:
        """Open the storage, created if it is missing.

        Args:
            recover: drop a damaged journal's lines from the damage on; no other process may have it open.
            should_stop: once it returns true, a long wait for one of a journal's locks ends with LockHeldError.

        Raises:
            InputError: the journal is damaged, the URL is not supported, or the server cannot be reached.
        """
        if self.url:
            return DatabaseStore(self.url, self.study_name)
        return JournalStore(self.journal, recover, should_stop)

    def open_patiently(self, should_stop: Callable[[], bool]) -> Store:
        """Open a storage that was opened before, and wait while its server is away.

        Raises:
            InputError: as for ``open``; if the server is away, after ``PATIENCE_S`` or once ``should_stop`` is true.
        """
        began = time.monotonic()
        while True:
            try:
                return self.open(should_stop=should_stop)
            except StorageAwayError:
                if should_stop() or time.monotonic() - began > PATIENCE_S:
                    raise
                time.sleep(_LONGEST_PAUSE_S)


class JournalStore(Store):
    """A journal file. One parent process and its workers use it; the run directory's lock keeps others out."""

    study_name = STUDY_NAME
    shared = False

    def __init__(self, path: Path, recover: bool = False, should_stop: Callable[[], bool] = never) -> None:
        """Open a journal, created if it is missing; arguments and errors as for ``Place.open``."""
        self._file = JournalFile(path, should_stop)
        self._should_stop = should_stop
        self._path = path
        self._lock = path.with_name(f".{path.name}.claim.lock")
        try:
            self.backend = JournalStorage(self._file)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # Optuna raises errors of many kinds when it replays invalid operations
            if not recover:
                raise error if isinstance(error, InputError) else unreadable(path, error) from None
            self._file.drop_damage()
            self.backend = JournalStorage(self._file)

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold a lock beside the journal; appends use another one."""
        return process_lock(self._lock, should_stop=self._should_stop)

    def together(self) -> AbstractContextManager[None]:
        """Append the operations with one lock and one write."""
        return self._file.together()

    @contextmanager
    def living(self, trial: optuna.Trial) -> Iterator[None]:
        """Hold a lock for this trial, which the system releases if the process dies."""
        path = self._trial_lock(trial.number)
        try:
            with process_lock(path, should_stop=self._should_stop):
                yield
        finally:
            path.unlink(missing_ok=True)

    def fail_abandoned(self, study: optuna.Study, claimed: Callable[[FrozenTrial], bool]) -> bool:
        """Mark the running trials whose lock is free as failed; return whether there were any."""
        free = set()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            path = self._trial_lock(trial.number)
            with suppress(LockHeldError), process_lock(path, timeout_s=0):
                free.add(trial.number)
                path.unlink(missing_ok=True)
        # Read the trials again: a process may have recorded its trial's end and then released the lock.
        return bool(free) and _fail_running(study, lambda trial: trial.number in free)

    def _trial_lock(self, number: int) -> Path:
        return self._path.with_name(f".{self._path.name}-{number:08}.lock")  # ``remove_leftovers`` knows this name


class StorageAwayError(InputError):
    """The server cannot be reached: it is away for now, or the URL is wrong."""


class DatabaseStore(Store):
    """A PostgreSQL database, shared by any number of machines; each trial has a heartbeat."""

    shared = True

    def __init__(self, url: str, study_name: str) -> None:
        """Connect, and create Optuna's tables if they are missing.

        Raises:
            InputError: the URL is not supported, or the tables are of an older Optuna.
            StorageAwayError: the server cannot be reached.
        """
        parsed = database_url(url)
        self.study_name = study_name
        self.place = redacted(url)
        self._trouble_at = float("-inf")
        # A machine that loses its network closes no connection: keepalives and timeouts let both sides notice.
        alive = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        timeout = {"options": f"-c idle_in_transaction_session_timeout={1000 * _LONGEST_HOLD_S}"}
        # Locks use a separate engine, so that the timeout applies to them alone.
        self._locks = sqlalchemy.create_engine(parsed, pool_pre_ping=True, connect_args={**alive, **timeout})
        key = hashlib.sha256(f"bitfront {study_name}".encode()).digest()[:8]
        self._key = int.from_bytes(key, "big", signed=True)
        try:
            with self.exclusive(), warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._rdb = RDBStorage(
                    parsed.render_as_string(hide_password=False),
                    engine_kwargs={"pool_pre_ping": True, "connect_args": alive},
                    heartbeat_interval=HEARTBEAT_S,
                    grace_period=GRACE_S,
                )
        except (SQLAlchemyError, StorageInternalError) as error:
            raise StorageAwayError(
                f"{self.place}: cannot be opened ({_reason(error)}); check that the server is running, and the host, "
                "port, user and database in --storage. Give a password in the URL, in PGPASSWORD or in ~/.pgpass"
            ) from None
        except RuntimeError as error:  # the tables are of an older Optuna, as the reason says
            raise InputError(f"{self.place}: {_reason(error)}") from None
        self.backend = get_storage(self._rdb)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold an advisory lock of the server, which releases it when the connection ends for any reason."""
        with self._locks.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._key})
            yield
            connection.commit()  # raises if the connection, and with it the lock, was lost meanwhile

    @contextmanager
    def living(self, trial: optuna.Trial) -> Iterator[None]:
        """Write a heartbeat now and every ``HEARTBEAT_S``; while the server is away, keep trying."""
        trial_id = trial._trial_id
        over = threading.Event()
        self._rdb.record_heartbeat(trial_id)

        def beat() -> None:
            while not over.wait(HEARTBEAT_S):
                try:
                    self._rdb.record_heartbeat(trial_id)
                except (SQLAlchemyError, StorageInternalError):
                    self._trouble_at = time.monotonic()

        heartbeat = threading.Thread(target=beat, daemon=True)
        heartbeat.start()
        try:
            yield
        finally:
            over.set()
            heartbeat.join()

    def fail_abandoned(self, study: optuna.Study, claimed: Callable[[FrozenTrial], bool]) -> bool:
        """Mark trials as failed if their heartbeat stopped, or if they have no heartbeat or no map.

        A process that claims a map holds the study exclusively, so no living process is between these steps now.
        """
        with self._rdb.engine.connect() as connection:
            with_heartbeat = set(connection.scalars(sqlalchemy.text(_WITH_HEARTBEAT)))
        _fail_running(study, lambda trial: not claimed(trial) or trial._trial_id not in with_heartbeat)
        if time.monotonic() - self._trouble_at < 2 * GRACE_S:
            return True  # no heartbeat could be written while the server was away
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(study)
        return True  # another machine may have failed some, and died before it enqueued their maps again

    def patiently(self, action: Callable[[], _Result], should_stop: Callable[[], bool]) -> _Result:
        """Retry with growing pauses while the server is away."""
        away_since, pause_s = float("inf"), 0.25  # counted from the first error: an action may take long
        while True:
            try:
                return action()
            except (SQLAlchemyError, StorageInternalError) as error:
                self._trouble_at = time.monotonic()
                away_since = min(away_since, self._trouble_at)
                reason = _reason(error)
                if should_stop() or self._trouble_at - away_since > PATIENCE_S:
                    raise StorageLostError(
                        f"{self.place}: is away ({reason}); start the same run again later"
                    ) from None
                if pause_s < 0.5:
                    log.warning("%s: is away (%s); trying again", self.place, reason)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def database_url(url: str) -> URL:
    """Return the parsed URL of a PostgreSQL database.

    Raises:
        InputError: it is not such a URL, or the driver is not installed.
    """
    try:
        parsed = make_url(url)
        fault = "" if parsed.drivername in ("postgresql", _DRIVER) else f"{parsed.drivername!r} is not supported"
    except (ArgumentError, ValueError):
        fault = "not a URL"
    if fault:
        raise InputError(
            f"--storage: {fault}; give {_DRIVER}://USER@HOST:PORT/DATABASE, or leave it out for a journal in the run's "
            "directory"
        )
    if "@" in (parsed.host or ""):
        raise InputError(
            "--storage: has more than one @; in the user's name or password write it as %40, or give the password in "
            "PGPASSWORD or ~/.pgpass"
        )
    try:
        import psycopg  # noqa: F401  # optional: needed only for shared studies
    except ImportError:
        raise InputError("--storage: needs psycopg; install it with pip install -e '.[postgresql]'") from None
    return parsed.set(drivername=_DRIVER)


def redacted(url: str) -> str:
    """Return a database's URL with the user's name, without passwords and keys."""
    parsed = database_url(url)
    secrets = ("pass", "secret", "key")
    query = {key: value for key, value in parsed.query.items() if not any(part in key.lower() for part in secrets)}
    bare = URL.create(parsed.drivername, parsed.username, None, parsed.host, parsed.port, parsed.database, query)
    return bare.render_as_string(hide_password=False)


def _fail_running(study: optuna.Study, is_dead: Callable[[FrozenTrial], bool]) -> bool:
    dead = [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if is_dead(trial)]
    for trial in dead:
        study.tell(trial.number, state=TrialState.FAIL)
    return bool(dead)


def _reason(error: BaseException) -> str:
    """Return the first line of a driver's message; it names host and user, never a password."""
    while error.__cause__ is not None:
        error = error.__cause__
    origin = getattr(error, "orig", None) or error
    return (str(origin).strip() or type(origin).__name__).splitlines()[0]
