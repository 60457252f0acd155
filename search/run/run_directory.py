"""The run directory: its files, its settings, and the lock of the process that writes it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from objectives.errors import InputError, all_faults, printable, quoted
from objectives.files import LockHeldError, looks_temporary, process_lock, remove_leftovers, write_text
from objectives.loading import AUTO
from objectives.loading.tasks import TASKS
from objectives.metrics import USUAL_METRICS
from search.run.profile import Profile, checked_profile
from search.storage.stores import STUDY_NAME, Place, redacted

RUN_SCHEMA = "bitfront-run-1"
_HARMLESS = re.compile(
    r"\..*|lost\+found|Thumbs\.db|desktop\.ini|@eaDir"
    r"|(.*\.)?(stdout|stderr)|.*\.(log(\.\d+)?|out|err)|.*\.p?[oe]\d+([.-]\d+)?"
)
"""Names that do not make a directory someone else's: hidden files, those of file systems and desktops, and logs as
schedulers call them."""
_HALF_WRITTEN = re.compile(r"\.run-.{8}\.toml")  # by a run that was killed while it wrote its settings
_QUANTIZER = r"(?P<name>[a-z]+)-\d+(?: in groups of (?P<group_size>\d+))?(?: on \w+)?"
"""The fingerprint of a quantiser: its name and version, its group size, its calibration sentences."""
_LOCK_TIMEOUT_S = 0.5  # `bitfront status` holds the lock for a moment


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run; creating the value touches no file."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, which is its directory's."""
        return printable(self.path.resolve().name)

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

    @property
    def phase(self) -> Path:
        """Path of the file with the phase of a running search; see ``search.run.progress``."""
        return self.path / "phase.json"

    def exists(self) -> bool:
        """Return whether the directory holds a run.

        Raises:
            InputError: it holds other files, or is no directory.
        """
        if self.settings.is_file():
            return True
        # A run that ended before it wrote its settings has left hidden files and a log.
        if self.path.is_dir():
            others = sorted(path.name for path in self.path.iterdir() if _is_foreign(path.name))
            fault = f"it has no run.toml, but {others[0]!r}" if others else ""
        else:
            fault = "it is a file" if self.path.exists() else ""
        if fault:
            raise InputError(
                f"{self.path}: is no run directory ({fault}); give --run a new directory or one that a search has "
                "written"
            )
        return False

    def read_settings(self) -> dict[str, Any]:
        """Return run.toml: ``profile``, with every setting, ``resolved``, ``fingerprint`` and ``versions``.

        Raises:
            InputError: there is no run, or its run.toml is damaged or has another schema.
        """
        if not self.exists():
            command = f"bitfront search --run {quoted(self.path)}"
            raise InputError(f"{self.path}: there is no run here; start one with `{command}`")
        try:
            settings = tomllib.loads(self.settings.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{self.settings}: cannot be read ({error}); correct it or put it back from a copy, the run's maps are "
                "in its study"
            ) from None
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
        # The first runs had FP32 only; those of 0.2.0 and older search with all sentences; those of 0.4.0 go on to the
        # end of their budget.
        profile = {"precision": "fp32", "max_eval_samples": 0, "early_stop": False, **settings["profile"]}
        # Metric auto is of an older run, for which the task did not decide; newer ones record what it stands for.
        if profile.get("metric", AUTO) == AUTO and (task := TASKS.get(str(profile.get("task")))):
            profile["metric"] = USUAL_METRICS[task.kind]
        return {**settings, "profile": checked_profile(profile, str(self.settings)).to_dict()}

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

    def check_settings(self, profile: Profile) -> None:
        """Check what needs no model: that an existing run began with this objective and this quantiser.

        Raises:
            InputError: it is another search; the message lists the differences.
        """
        if not self.exists():
            return
        settings = self.read_settings()
        self.check_same(profile.objective, settings["profile"])
        recorded = re.fullmatch(_QUANTIZER, str(settings["fingerprint"].get("quantizer")))
        if recorded:  # else of another version: the fingerprint decides once the model is loaded
            before = {"quantizer": recorded["name"], "group_size": int(recorded["group_size"] or 0)}
            self.check_same({key: getattr(profile, key) for key in before}, before)

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    def is_locked(self) -> bool:
        """Return whether a live process has locked the run."""
        try:
            with process_lock(self._lock, timeout_s=0):
                return False
        except LockHeldError:
            return True
        except OSError:
            return False  # a directory that cannot be written cannot be locked

    def clean_up(self) -> None:
        """Remove temporary files of a dead process; lock the run first."""
        for folder in (self.path, self.path / "bitmaps", self.path / "polished", self.path / "distilled"):
            remove_leftovers(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process.

        Raises:
            InputError: another live process has locked it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as lock:
            try:
                lock.enter_context(process_lock(self._lock, _LOCK_TIMEOUT_S))
            except LockHeldError as error:
                raise InputError(
                    f"{self.path}: another process is searching here; wait for it, or give --run another directory "
                    f"({self._lock}: {error.strerror})"
                ) from None
            yield


def _is_foreign(name: str) -> bool:
    """Return whether a file in a directory without run.toml is somebody's work."""
    if looks_temporary(name):
        return _HALF_WRITTEN.fullmatch(name) is None  # cleaning up would remove it
    return _HARMLESS.fullmatch(name) is None
