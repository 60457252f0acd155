"""Optuna's journal file, kept whole: whatever happens to a process or to the disk, its lines stay whole lines."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend

from objectives.files import replacing

log = logging.getLogger("bitfront")

_LOCK_POLL_S = 0.002
_SET_PARAMETER = 5  # Optuna's code for it: an unfinished trial may lose these, so they need not reach the disk at once


@contextmanager
def process_lock(path: Path) -> Iterator[None]:
    """Hold a lock that one process at a time has, and that the system releases when its process dies, however it dies.

    Optuna's own journal locks are files that a dead process leaves behind; the next start waits 30 s for them.
    """
    with FileLock(path).acquire(poll_interval=_LOCK_POLL_S):
        yield


class JournalFile(JournalFileBackend):
    """Appends that are whole or not there at all, under a lock that dies with its process."""

    def __init__(self, path: Path) -> None:
        """Use the journal at ``path``; it is made when it is missing."""
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, or raise OSError and leave the file as it was."""
        text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)
        lasting = any(entry["op_code"] != _SET_PARAMETER for entry in logs)
        with journal_lock(self._path):
            _set_aside_torn_tail(self._path)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            end = os.fstat(file).st_size
            try:
                left = memoryview(text.encode("utf-8"))
                while left:
                    left = left[os.write(file, left) :]
                if lasting:
                    os.fsync(file)
            except BaseException:
                os.ftruncate(file, end)  # the next line would be glued to half a line
                raise
            finally:
                os.close(file)


@contextmanager
def journal_lock(path: Path) -> Iterator[None]:
    """Hold the lock under which a journal is written."""
    with process_lock(path.with_name(f".{path.name}.lock")):
        yield


def repair_journal(path: Path) -> str:
    """Take what cannot be read out of a journal that nobody else has open, and return what was done in a line.

    A line torn by a dying process goes, and what was written behind it on the same line stays: nobody was ever told
    that the torn operation had happened. Anything else that is no operation ends what can be trusted, since operations
    refer to each other by their order. The file as it was is kept beside it. The result is empty where nothing was
    wrong.
    """
    with journal_lock(path):
        content = path.read_bytes()
        sound, lost = _sound_part(content)
        if sound == content:
            return ""
        aside = next(candidate for number in range(1, 1000) if not (candidate := _aside(path, number)).exists())
        with replacing(aside) as temporary:
            temporary.write_bytes(content)
        with replacing(path) as temporary:
            temporary.write_bytes(sound)
    return f"{path}: was damaged; recovered all but {lost:,} of its {len(content):,} bytes, and kept it as {aside.name}"


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _sound_part(content: bytes) -> tuple[bytes, int]:
    """Return the operations that can be trusted, and how many bytes are not among them."""
    kept = []
    for line in content.splitlines(keepends=True):
        whole = _whole_operation(line)
        if whole is None:
            if line.endswith(b"\n"):
                break
            continue
        kept.append(whole)
    sound = b"".join(kept)
    return sound, len(content) - len(sound)


def _whole_operation(line: bytes) -> bytes | None:
    if not line.endswith(b"\n"):
        return None
    for start in (0, line.rfind(b'{"op_code":')):
        if start < 0:
            continue
        try:
            operation = json.loads(line[start:])
        except ValueError:
            continue
        if isinstance(operation, dict) and isinstance(operation.get("op_code"), int):
            return line[start:]
    return None


def _set_aside_torn_tail(path: Path) -> None:
    """Move what a dead process wrote of its last line into a file beside the journal; the lock is held."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.seek(whole)
        torn = file.read()
        with path.with_name(f"{path.name}.torn").open("ab") as aside:
            aside.write(torn + b"\n")
        file.truncate(whole)
    log.warning("%s: set aside %d bytes of a line that a dead process left unfinished", path, len(torn))
