"""Where a study lies: a journal in the run's directory, or a PostgreSQL database that many machines share.

Optuna does the keeping. What is added is what several processes need to agree: a lock for what must be read and written
in one piece, a sign of life for each trial, and patience with a server that is away for a while.
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
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, fail_stale_trials, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from objectives.errors import InputError
from objectives.files import process_lock
from search.storage.journal import JournalFile, unreadable

log = logging.getLogger("bitfront")

STUDY_NAME = "bitfront"
"""Of the one study in a journal. A database has many, each called as its run."""

HEARTBEAT_S = 10
GRACE_S = 60
"""A trial without a sign of life for so long is taken for dead."""

_LONGEST_HOLD_S = 120
"""A lock held for longer is taken from its process."""

PATIENCE_S = 3600.0
"""How long a server may be away."""
_LONGEST_PAUSE_S = 10.0

_DRIVER = "postgresql+psycopg"
_BEATING = "SELECT trial_id FROM trial_heartbeats JOIN trials USING (trial_id) WHERE state = 'RUNNING'"

_Result = TypeVar("_Result")


class StorageLostError(OSError):
    """The storage stayed away for longer than anybody waits."""


class Store(ABC):
    """A study's storage, open.

    Attributes:
        backend: what Optuna reads and writes.
        study_name: the study's name in it.
        shared: whether processes that this one knows nothing of may work on the study.
    """

    backend: BaseStorage
    study_name: str
    shared: bool

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the study for this process alone; others wait."""

    def together(self) -> AbstractContextManager[None]:
        """Write what is written within as one piece at its end, if the storage can; nothing of it is read within."""
        return nullcontext()

    def living(self, trial: optuna.Trial) -> AbstractContextManager[None]:
        """Tell others, if they cannot know it otherwise, that the process of a trial is alive until the end."""
        return nullcontext()

    @abstractmethod
    def fail_abandoned(self, study: optuna.Study, claimed: Callable[[FrozenTrial], bool]) -> bool:
        """End the running trials whose process is dead; return whether there may be any. Hold the study exclusively.

        Args:
            study: the study.
            claimed: whether a trial has its map.
        """

    def patiently(self, action: Callable[[], _Result], should_stop: Callable[[], bool]) -> _Result:
        """Return what ``action`` returns; while the storage is away, try again until ``should_stop``.

        Raises:
            StorageLostError: it stayed away.
        """
        return action()


@dataclass(frozen=True)
class Place:
    """Where a run's study lies, as processes tell each other. Its text never shows a password.

    Attributes:
        journal: the journal of the run's directory.
        url: of a database, with what it takes to log in; empty where the journal is used.
        study_name: the study's name there.
    """

    journal: Path
    url: str = field(default="", repr=False)
    study_name: str = STUDY_NAME

    def open(self, recover: bool = False) -> Store:
        """Open the storage, made when it is missing.

        Args:
            recover: drop what a damaged journal holds from the damage on; nobody else may have it open.

        Raises:
            InputError: the journal is damaged, the URL is none of ours, or the server cannot be reached.
        """
        return DatabaseStore(self.url, self.study_name) if self.url else JournalStore(self.journal, recover)

    def open_patiently(self, should_stop: Callable[[], bool]) -> Store:
        """Open a storage that could be opened before, waiting while its server is away.

        Raises:
            InputError: as for ``open``, after it stayed away or ``should_stop``.
        """
        began = time.monotonic()
        while True:
            try:
                return self.open()
            except StorageAwayError:
                if should_stop() or time.monotonic() - began > PATIENCE_S:
                    raise
                time.sleep(_LONGEST_PAUSE_S)


class JournalStore(Store):
    """A journal file. Only one parent process and its workers use it: the run directory's lock sees to that."""

    study_name = STUDY_NAME
    shared = False

    def __init__(self, path: Path, recover: bool = False) -> None:
        """Open a journal, made when it is missing.

        Args:
            path: the journal.
            recover: drop what a damaged journal holds from the damage on; nobody else may have it open.

        Raises:
            InputError: it is damaged.
        """
        self._file = JournalFile(path)
        self._path = path
        self._lock = path.with_name(f".{path.name}.claim.lock")
        try:
            self.backend = JournalStorage(self._file)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # Optuna replays operations that are none into errors of many kinds
            if not recover:
                raise error if isinstance(error, InputError) else unreadable(path, error) from None
            self._file.drop_damage()
            self.backend = JournalStorage(self._file)

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold a lock beside the journal, other than the one for each line."""
        return process_lock(self._lock)

    def together(self) -> AbstractContextManager[None]:
        """Append it with one lock and one write."""
        return self._file.together()

    @contextmanager
    def living(self, trial: optuna.Trial) -> Iterator[None]:
        """Hold a lock of the trial's own, which the system releases if the process dies."""
        path = self._trial_lock(trial.number)
        try:
            with FileLock(path):
                yield
        finally:
            path.unlink(missing_ok=True)

    def fail_abandoned(self, study: optuna.Study, claimed: Callable[[FrozenTrial], bool]) -> bool:
        """End the running trials whose lock is free; return whether there were any."""
        free = set()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            path = self._trial_lock(trial.number)
            with suppress(Timeout), FileLock(path, blocking=False):
                free.add(trial.number)
                path.unlink(missing_ok=True)
        # Read anew: a process releases its trial's lock after it has recorded the trial's end.
        return bool(free) and _fail_running(study, lambda trial: trial.number in free)

    def _trial_lock(self, number: int) -> Path:
        return self._path.with_name(f".{self._path.name}-{number:08}.lock")  # a name that ``remove_leftovers`` knows


class StorageAwayError(InputError):
    """The server cannot be reached now; it may be later, or never, where the URL is wrong."""


class DatabaseStore(Store):
    """A PostgreSQL database: any number of machines, each trial with a heartbeat."""

    shared = True

    def __init__(self, url: str, study_name: str) -> None:
        """Connect, and make Optuna's tables where they are missing.

        Raises:
            InputError: the URL is none of ours.
            StorageAwayError: the server cannot be reached.
        """
        parsed = database_url(url)
        self.study_name = study_name
        self.place = redacted(url)
        self._trouble_at = float("-inf")
        # A machine that loses its network says no goodbye: who waits for it, and the server, find out by themselves.
        alive = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        timeout = {"options": f"-c idle_in_transaction_session_timeout={1000 * _LONGEST_HOLD_S}"}
        # Locks take connections of their own, so that they can have that limit.
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
                f"{self.place}: cannot be opened ({_reason(error)}); is the server running, and does --storage name "
                "its host, port, user and database? A password may stand in the URL, in PGPASSWORD or in ~/.pgpass"
            ) from None
        except RuntimeError as error:  # its tables are of an older Optuna, as the reason says
            raise InputError(f"{self.place}: {_reason(error)}") from None
        self.backend = get_storage(self._rdb)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold an advisory lock of the server, which ends with the connection, however that ends."""
        with self._locks.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._key})
            yield
            connection.commit()  # raises if the connection was lost on the way, and with it the lock

    @contextmanager
    def living(self, trial: optuna.Trial) -> Iterator[None]:
        """Write a heartbeat now and every few seconds; where the server is away, once it is back."""
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
        """End the trials whose heartbeat has stopped, and those whose process died before its first or before its map.

        Whoever claims a map holds the study exclusively, so nobody alive is half-way now.
        """
        with self._rdb.engine.connect() as connection:
            beating = set(connection.scalars(sqlalchemy.text(_BEATING)))
        _fail_running(study, lambda trial: not claimed(trial) or trial._trial_id not in beating)
        if time.monotonic() - self._trouble_at < 2 * GRACE_S:
            return True  # no heartbeat could be written while the server was away
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(study)
        return True  # or another machine ended some, and died before it enqueued their maps again

    def patiently(self, action: Callable[[], _Result], should_stop: Callable[[], bool]) -> _Result:
        """Try again with growing pauses while the server is away."""
        away_since, pause_s = float("inf"), 0.25  # an action may take longer than anybody waits
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
    """Return a parsed URL of a PostgreSQL database.

    Raises:
        InputError: it is none, or the driver is not installed.
    """
    try:
        parsed = make_url(url)
        fault = "" if parsed.drivername in ("postgresql", _DRIVER) else f"{parsed.drivername!r} is not supported"
    except (ArgumentError, ValueError):
        fault = "is no URL"
    if fault:
        raise InputError(
            f"--storage: {fault}; give {_DRIVER}://USER@HOST:PORT/DATABASE, or leave it out for a journal in the run's "
            "directory"
        )
    if "@" in (parsed.host or ""):
        raise InputError(
            "--storage: has an @ besides the one in front of the host; write it as %40 in the user's name or password, "
            "or give the password in PGPASSWORD or ~/.pgpass"
        )
    try:
        import psycopg  # noqa: F401  # optional: only those who share a study need it
    except ImportError:
        raise InputError("--storage: needs psycopg; install it with pip install -e '.[postgresql]'") from None
    return parsed.set(drivername=_DRIVER)


def redacted(url: str) -> str:
    """Return a database's URL without what it takes to log in, besides the user's name."""
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
    """Return the first line of what a driver says; it names host and user, never a password."""
    while error.__cause__ is not None:
        error = error.__cause__
    origin = getattr(error, "orig", None) or error
    return (str(origin).strip() or type(origin).__name__).splitlines()[0]
