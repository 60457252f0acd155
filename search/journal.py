"""Optuna's journal file, kept whole: whatever happens to a process or to the disk, its lines stay whole lines."""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend

from objectives.files import replacing

log = logging.getLogger("bitfront")

_LOCK_POLL_S = 0.002
_BLOCK_BYTES = 1 << 14
_SET_PARAMETER = 5  # Optuna's code for it: an unfinished trial may lose these, so they need not reach the disk at once


@contextmanager
def process_lock(path: Path) -> Iterator[None]:
    """Hold a lock that one process at a time has, and that the system releases when its process dies, however it dies.

    Optuna's own journal locks are files that a dead process leaves behind; the next start waits 30 s for them.
    """
    with FileLock(path).acquire(poll_interval=_LOCK_POLL_S):
        yield


class JournalFile(JournalFileBackend):
    """Appends that are whole or not there at all, under a lock that dies with its process; reads of sound lines only.

    Each line ends with a checksum of itself and of the line before it, so that no damage goes unnoticed: neither a
    changed digit, nor a line that was lost, doubled or moved. Lines that other tools append have none; the next line of
    ours vouches for them.
    """

    def __init__(self, path: Path) -> None:
        """Use the journal at ``path``; it is made when it is missing."""
        super().__init__(str(path))
        self._path = path
        self._read = _START

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, or raise OSError and leave the file as it was."""
        lasting = any(entry["op_code"] != _SET_PARAMETER for entry in logs)
        with journal_lock(self._path):
            _set_aside_torn_tail(self._path)
            file = os.open(self._path, os.O_RDWR | os.O_APPEND)
            end = os.fstat(file).st_size
            try:
                left = memoryview(_lines(logs, _last_line(file, end)))
                while left:
                    left = left[os.write(file, left) :]
                if lasting:
                    os.fsync(file)
            except BaseException as error:
                os.ftruncate(file, end)  # the next line would be glued to half a line
                if isinstance(error, OSError):
                    raise OSError(error.errno, error.strerror, str(self._path)) from None
                raise
            finally:
                os.close(file)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yield the operations from a number on; a last line that is still being written is left for later.

        Raises:
            ValueError: a line is damaged.
        """
        at = self._read if self._read.number <= log_number_from else _START
        with self._path.open("rb") as file:
            file.seek(at.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                operation = _operation(line, at.check)
                if operation is None:
                    raise ValueError(f"line {at.number + 1} is damaged")
                at = _Position(at.number + 1, at.offset + len(line), zlib.crc32(line))
                self._read = at
                if at.number > log_number_from:
                    yield operation


@dataclass(frozen=True)
class _Position:
    """How many lines have been read, where the next one begins, and the checksum of the last."""

    number: int
    offset: int
    check: int


_START = _Position(0, 0, 0)
_MARK = b',"check":"'
_ENDING = re.compile(rb',"check":"([0-9a-f]{8})"}\n$')


def _lines(operations: list[dict[str, Any]], before: bytes) -> bytes:
    """Return operations as lines that can follow the line ``before``, empty at the start of a journal."""
    lines = []
    for operation in operations:
        text = json.dumps(operation, separators=(",", ":")).encode("utf-8").removesuffix(b"}")
        before = text + _MARK + b'%08x"}\n' % zlib.crc32(text, zlib.crc32(before))
        lines.append(before)
    return b"".join(lines)


def _operation(line: bytes, before: int) -> dict[str, Any] | None:
    """Return what a line says; None where it is no operation, or not the one that followed the line before it.

    Args:
        line: with its line feed.
        before: checksum of the line before it; 0 for the first.
    """
    ending = _ENDING.search(line)
    if ending and int(ending[1], 16) != zlib.crc32(line[: ending.start()], before):
        return None
    try:
        operation = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(operation, dict) or not isinstance(operation.get("op_code"), int):
        return None
    if operation.pop("check", None) is not None and not ending:
        return None
    return operation


def _last_line(file: int, end: int) -> bytes:
    """Return the last line of an open file of ``end`` bytes, which ends with a line feed or is empty."""
    tail = b""
    while len(tail) < end and b"\n" not in tail[:-1]:
        start = max(0, end - 2 * len(tail) - _BLOCK_BYTES)
        tail = os.pread(file, end - start, start)
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]


@contextmanager
def journal_lock(path: Path) -> Iterator[None]:
    """Hold the lock under which a journal is written."""
    with process_lock(path.with_name(f".{path.name}.lock")):
        yield


def repair_journal(path: Path) -> str:
    """Cut a journal off before its first damaged line, and return what was done in a sentence.

    Operations refer to each other by their order, so none behind the damage can be trusted. The file as it was is kept
    beside it. Nobody else has it open. The result is empty where nothing was wrong.
    """
    with journal_lock(path):
        content = path.read_bytes()
        sound = _sound_part(content)
        if sound == content:
            return ""
        aside = next(candidate for number in range(1, 1000) if not (candidate := _aside(path, number)).exists())
        with replacing(aside) as temporary:
            temporary.write_bytes(content)
        with replacing(path) as temporary:
            temporary.write_bytes(sound)
    lost = len(content) - len(sound)
    return f"{path}: was damaged; recovered all but {lost:,} of its {len(content):,} bytes, and kept it as {aside.name}"


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _sound_part(content: bytes) -> bytes:
    """Return a journal's lines before the first that is damaged."""
    end, before = 0, 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or _operation(line, before) is None:
            break
        end, before = end + len(line), zlib.crc32(line)
    return content[:end]


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
