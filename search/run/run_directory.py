"""The run directory: its files, its settings, and the lock of the process that writes it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from objectives.errors import InputError, all_faults
from objectives.files import remove_leftovers, write_text
from search.run.profile import checked_profile
from search.storage.stores import STUDY_NAME, Place, redacted

RUN_SCHEMA = "bitfront-run-1"
_LOCK_TIMEOUT_S = 0.5  # `bitfront status` holds the lock for a moment


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run; creating the value touches no file."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, which is its directory's."""
        return self.path.resolve().name

    @property
    def settings(self) -> Path:
        """Path of run.toml: the resolved profile, the fingerprint and versions."""
        return self.path / "run.toml"

    @property
    def journal(self) -> Path:
        """Path of the Optuna journal."""
        return self.path / "study.journal"

    @property
    def log(self) -> Path:
        """Path of the log."""
        return self.path / "search.log"

    def exists(self) -> bool:
        """Return whether the directory holds a run.

        Raises:
            InputError: it holds other files, or is no directory.
        """
        if self.settings.is_file():
            return True
        # The files of a run that ended before it wrote its settings.
        expected = {self._lock, self.log, *self.path.glob(f".{self.settings.stem}-????????{self.settings.suffix}")}
        if self.path.exists() and (not self.path.is_dir() or set(self.path.iterdir()) - expected):
            raise InputError(
                f"{self.path}: is no run directory (it has no run.toml) and is not empty; "
                "give --run a new directory or one that a search has written"
            )
        return False

    def read_settings(self) -> dict[str, Any]:
        """Return run.toml: ``profile``, with every setting, ``resolved``, ``fingerprint`` and ``versions``.

        Raises:
            InputError: there is no run, or its run.toml is damaged or has another schema.
        """
        if not self.exists():
            raise InputError(f"{self.path}: there is no run here; start one with `bitfront search --run {self.path}`")
        try:
            settings = tomllib.loads(self.settings.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.settings}: cannot be read ({error}); start another run") from None
        if settings.get("schema") != RUN_SCHEMA:
            raise InputError(
                f"{self.settings}: schema {settings.get('schema')!r} is not {RUN_SCHEMA!r}; start another run"
            )
        if missing := [
            key for key in ("profile", "fingerprint", "versions") if not isinstance(settings.get(key), dict)
        ]:
            raise InputError(f"{self.settings}: has no table {', '.join(missing)}; start another run")
        resolved = settings.get("resolved")  # runs of older versions have none
        settings["resolved"] = resolved if isinstance(resolved, dict) else {}
        return {**settings, "profile": checked_profile(settings["profile"], str(self.settings)).to_dict()}

    def check_journal(self) -> None:
        """Check that a run with scored maps still has its study; a new study would overwrite their tables.

        Raises:
            InputError: the study is gone.
        """
        table = self.path / "trials.csv"
        damaged = self.path.glob(f"{self.journal.name}.damaged-*")  # an empty journal beside one was repaired
        gone = not (self.journal.is_file() and (self.journal.stat().st_size or any(damaged)))
        if gone and table.is_file() and len(table.read_text(encoding="utf-8").splitlines()) > 1:
            raise InputError(
                f"{self.journal}: is missing or empty, but trials.csv lists scored maps; put it back from a copy, or "
                "give --run another directory"
            )

    def write_settings(
        self,
        profile: Mapping[str, Any],
        fingerprint: Mapping[str, str],
        versions: Mapping[str, str],
        place: Place | None = None,
        start: Mapping[str, Any] | None = None,
        resolved: Mapping[str, str] | None = None,
    ) -> None:
        """Write run.toml, with the facts of this start, and the URL of a database without its password.

        ``resolved`` are the absolute paths of the profile's directories, for commands from other directories.
        """
        document = {
            "schema": RUN_SCHEMA,
            "profile": dict(profile),
            "fingerprint": dict(fingerprint),
            "versions": dict(versions),
        }
        if resolved:
            document["resolved"] = dict(resolved)
        if start is not None:
            document["start"] = dict(start)
        if place is not None and place.url:
            document["storage"] = {"url": redacted(place.url), "study": place.study_name}
        write_text(self.settings, tomli_w.dumps(document))

    def place(self, url: str = "") -> Place:
        """Return where the run's study is stored: in the database of ``url``, else as recorded, else in a journal.

        In a database the study keeps the name that the run had at first. A recorded URL has no password, so libpq must
        find one (``PGPASSWORD``, ``~/.pgpass``) or ``url`` must give it.

        Raises:
            InputError: ``url`` is not of a supported database, or the run began in its own journal.
        """
        if url:
            redacted(url)  # raises if it is not supported
        if not self.exists():
            return Place(self.journal, url, self.name if url else STUDY_NAME)
        storage = self.read_settings().get("storage")
        if storage is None:
            if url and self.journal.exists():
                raise InputError(
                    f"{self.path}: began in its own journal; to share a search, give --run a new directory"
                )
            return Place(self.journal, url, self.name if url else STUDY_NAME)
        if not (isinstance(storage, dict) and all(isinstance(storage.get(key), str) for key in ("url", "study"))):
            raise InputError(f"{self.settings}: its table [storage] needs the texts url and study; start another run")
        return Place(self.journal, url or storage["url"], storage["study"])

    def check_same(self, current: Mapping[str, object], recorded: Mapping[str, object]) -> None:
        """Check that this search is the one that the run began with.

        Raises:
            InputError: ``current`` differs from ``recorded``; the message lists the differences.
        """
        faults = [
            f"{key} was {recorded.get(key)!r} and is now {value!r}"
            for key, value in current.items()
            if recorded.get(key) != value
        ]
        if faults:
            raise all_faults(f"{self.path}: is another search; give --run another directory", faults)

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    def is_locked(self) -> bool:
        """Return whether a live process has locked the run."""
        try:
            with FileLock(self._lock).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False  # a directory that cannot be written cannot be locked

    def clean_up(self) -> None:
        """Remove temporary files of a dead process; lock the run first."""
        for folder in (self.path, self.path / "bitmaps", self.path / "polished"):
            remove_leftovers(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process.

        Raises:
            InputError: another live process has locked it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)  # the system releases it when the process dies
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout:
            raise InputError(
                f"{self.path}: another process is searching here; wait for it, or give --run another directory"
            ) from None
        try:
            yield
        finally:
            lock.release()
