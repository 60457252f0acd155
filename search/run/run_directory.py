"""The run directory: who may write it, what it was started with, and where its files are."""

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
_LOCK_TIMEOUT_S = 0.5  # whoever asks for the status holds the lock for a moment


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run; making the value touches nothing."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name: that of its directory."""
        return self.path.resolve().name

    @property
    def settings(self) -> Path:
        """The resolved profile, the fingerprint and versions."""
        return self.path / "run.toml"

    @property
    def journal(self) -> Path:
        """The Optuna storage."""
        return self.path / "study.journal"

    @property
    def log(self) -> Path:
        """What was done, line by line."""
        return self.path / "search.log"

    def exists(self) -> bool:
        """Return whether a run is there.

        Raises:
            InputError: something else is there.
        """
        if self.settings.is_file():
            return True
        # All there is of a run that ended before it had written its settings.
        ours = {self._lock, self.log, *self.path.glob(f".{self.settings.stem}-????????{self.settings.suffix}")}
        if self.path.exists() and (not self.path.is_dir() or set(self.path.iterdir()) - ours):
            raise InputError(
                f"{self.path}: is no run directory (it has no run.toml) and is not empty; "
                "give --run a new directory or one that a search has written"
            )
        return False

    def read_settings(self) -> dict[str, Any]:
        """Return what run.toml says: ``profile`` with every setting, ``fingerprint``, ``versions``, each a dictionary.

        Raises:
            InputError: there is no run, or its run.toml is damaged or of another version.
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
        return {**settings, "profile": checked_profile(settings["profile"], str(self.settings)).to_dict()}

    def check_journal(self) -> None:
        """Check that the study of a run that has scored maps is not gone: it would begin anew, over their tables.

        Raises:
            InputError: it is.
        """
        table = self.path / "trials.csv"
        aside = self.path.glob(f"{self.journal.name}.damaged-*")  # then nothing of it was sound
        gone = not (self.journal.is_file() and (self.journal.stat().st_size or any(aside)))
        if gone and table.is_file() and len(table.read_text(encoding="utf-8").splitlines()) > 1:
            raise InputError(
                f"{self.journal}: is missing or has nothing in it, though trials.csv has maps that were scored; put it "
                "back from a copy, or give --run another directory"
            )

    def write_settings(
        self,
        profile: Mapping[str, Any],
        fingerprint: Mapping[str, str],
        versions: Mapping[str, str],
        place: Place | None = None,
        start: Mapping[str, Any] | None = None,
    ) -> None:
        """Write run.toml; of a database it gets the URL without its password, of this start when and how it was."""
        document = {
            "schema": RUN_SCHEMA,
            "profile": dict(profile),
            "fingerprint": dict(fingerprint),
            "versions": dict(versions),
        }
        if start is not None:
            document["start"] = dict(start)
        if place is not None and place.url:
            document["storage"] = {"url": redacted(place.url), "study": place.study_name}
        write_text(self.settings, tomli_w.dumps(document))

    def place(self, url: str = "") -> Place:
        """Return where the run's study lies: where it was begun, else in the database of ``url``, else in a journal.

        In a database the study is called as the run was when it was begun. A recorded URL has no password; libpq's ways
        to give one (``PGPASSWORD``, ``~/.pgpass``) hold for it, or ``url`` does.

        Raises:
            InputError: ``url`` is none of a database that can be used, or the run was begun in its own journal.
        """
        if url:
            redacted(url)
        if not self.exists():
            return Place(self.journal, url, self.name if url else STUDY_NAME)
        storage = self.read_settings().get("storage")
        if storage is None:
            if url and self.journal.exists():
                raise InputError(f"{self.path}: was begun in its own journal; give --run another directory to share it")
            return Place(self.journal, url, self.name if url else STUDY_NAME)
        if not (isinstance(storage, dict) and all(isinstance(storage.get(key), str) for key in ("url", "study"))):
            raise InputError(f"{self.settings}: its table storage needs url and study as texts; start another run")
        return Place(self.journal, url or storage["url"], storage["study"])

    def check_same(self, asked: Mapping[str, object], recorded: Mapping[str, object]) -> None:
        """Refuse to continue the run as another one.

        Raises:
            InputError: ``asked`` differs from ``recorded``; the message says in what.
        """
        faults = [
            f"{key} was {recorded.get(key)!r} and is now {value!r}"
            for key, value in asked.items()
            if recorded.get(key) != value
        ]
        if faults:
            raise all_faults(f"{self.path}: is another search; give --run another directory", faults)

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    def is_held(self) -> bool:
        """Return whether a live process holds the run."""
        try:
            with FileLock(self._lock).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False  # nobody can hold what nobody can write

    def clear_up(self) -> None:
        """Remove the temporary files that a dead process left; the run must be held."""
        for folder in (self.path, self.path / "bitmaps", self.path / "polished"):
            remove_leftovers(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process alone.

        Raises:
            InputError: another live process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)  # the system releases it when the process dies, however it dies
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
