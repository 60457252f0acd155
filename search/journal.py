"""Optuna's journal file, kept whole: whatever happens to a process or to the disk, its lines stay whole lines."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend

from objectives.errors import InputError

log = logging.getLogger("bitfront")

_LOCK_POLL_S = 0.002
_BLOCK_BYTES = 1 << 14

CREATE_TRIAL = 4
_SET_PARAMETER = 5  # an unfinished trial may lose these, so they need not reach the disk at once
"""Optuna's codes of operations."""

Operation = dict[str, Any]


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
    changed digit, nor a line that was lost, doubled or moved. It also says how many lines there are up to it and how
    many trials have been created, so that what stands behind damage still finds its trials (`search.recovery`). Lines
    that other tools append have none of it; the next line of ours vouches for them.
    """

    def __init__(self, path: Path) -> None:
        """Use the journal at ``path``; it is made when it is missing."""
        super().__init__(str(path))
        self.path = path
        self._read = _START
        self._held: list[Operation] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Append what is appended within as one piece at its end: all of it or, where anything fails, nothing.

        Not for operations whose effect is asked for within. One thread at a time.

        Raises:
            InputError, OSError: as for ``append_logs``.
        """
        held: list[Operation] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
        if held:
            self.append_logs(held)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, or raise OSError and leave the file as it was.

        Raises:
            InputError: its last line is damaged.
        """
        if self._held is not None:
            self._held += logs
            return
        lasting = any(entry["op_code"] != _SET_PARAMETER for entry in logs)
        with journal_lock(self.path):
            _set_aside_torn_tail(self.path)
            file = os.open(self.path, os.O_RDWR | os.O_APPEND)
            end = os.fstat(file).st_size
            try:
                left = memoryview(lines(logs, self._end_of(file, end)))
                while left:
                    left = left[os.write(file, left) :]
                if lasting:
                    os.fsync(file)
            except BaseException as error:
                os.ftruncate(file, end)  # the next line would be glued to half a line
                if isinstance(error, OSError):
                    raise OSError(error.errno, error.strerror, str(self.path)) from None
                raise
            finally:
                os.close(file)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yield the operations from a number on; a last line that is still being written is left for later.

        Raises:
            InputError: a line is damaged.
        """
        at = self._read if self._read.number <= log_number_from else _START
        with self.path.open("rb") as file:
            file.seek(at.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                operation = operation_of(line, at.check, at.number)
                if operation is None:
                    raise unreadable(self.path, f"line {at.number + 1} is damaged")
                at = _Position(at.number + 1, at.offset + len(line), zlib.crc32(line))
                self._read = at
                if at.number > log_number_from:
                    yield operation

    def _end_of(self, file: int, end: int) -> Count:
        """Return what has been written to the open file of ``end`` bytes, which ends with a line feed or is empty."""
        tail: list[bytes] = []
        start, size = end, _BLOCK_BYTES
        # Lines of other tools, and ours of older versions, do not count: then the last that does is looked for.
        while start and not any(count_of(line) for line in tail[1:]):
            start, size = max(0, end - size), 2 * size
            tail = os.pread(file, end - start, start).splitlines(keepends=True)[1 if start else 0 :]
        counted, behind = Count(), tail
        for at in range(len(tail) - 1, -1, -1):
            if found := count_of(tail[at]):
                if operation_of(tail[at], zlib.crc32(tail[at - 1]) if at else 0) is None:
                    raise unreadable(self.path, f"line {found.lines} is damaged")  # so is what it counts
                counted, behind = found, tail[at + 1 :]
                break
        check = zlib.crc32(behind[-1]) if behind else counted.check
        return Count(counted.lines + len(behind), counted.trials + sum(map(_creates, behind)), check)


def unreadable(path: Path, why: object) -> InputError:
    """Return the error of a journal that cannot be read."""
    return InputError(f"{path}: cannot be read as a study ({why}); start the search again, which recovers what it can")


@dataclass(frozen=True)
class _Position:
    """How many lines have been read, where the next one begins, and the checksum of the last."""

    number: int
    offset: int
    check: int


@dataclass(frozen=True)
class Count:
    """What has been written up to a line and with it: how many lines, how many of them created trials; its checksum."""

    lines: int = 0
    trials: int = 0
    check: int = 0


_START = _Position(0, 0, 0)
_ENDING = re.compile(rb'(?:,"line":([0-9]{1,12}),"trials":([0-9]{1,12}))?,"check":"([0-9a-f]{8})"}\n$')
_MARKS = ("line", "trials", "check")


def lines(operations: list[Operation], before: Count) -> bytes:
    """Return operations as lines that can follow those of ``before``."""
    written = []
    number, trials, check = before.lines, before.trials, before.check
    for operation in operations:
        number += 1
        trials += operation["op_code"] == CREATE_TRIAL
        text = json.dumps(operation, separators=(",", ":")).encode("utf-8").removesuffix(b"}")
        text += b',"line":%d,"trials":%d' % (number, trials)
        line = text + b',"check":"%08x"}\n' % zlib.crc32(text, check)
        check = zlib.crc32(line)
        written.append(line)
    return b"".join(written)


def count_of(line: bytes) -> Count | None:
    """Return what a line says of itself and those before it; None where it does not."""
    ending = _ENDING.search(line)
    return Count(int(ending[1]), int(ending[2]), zlib.crc32(line)) if ending and ending[1] else None


def has_checksum(line: bytes) -> bool:
    """Return whether a line ends with a checksum, right or wrong; lines of other tools do not."""
    return _ENDING.search(line) is not None


def operation_of(line: bytes, before: int, lines_before: int | None = None) -> Operation | None:
    """Return what a line says; None where it is no operation, or not the one that followed the line before it.

    Args:
        line: with its line feed.
        before: checksum of the line before it; 0 for the first.
        lines_before: how many there are before it, where that is known.
    """
    ending = _ENDING.search(line)
    if ending and ending[1] and lines_before is not None and int(ending[1]) != lines_before + 1:
        return None  # lines are lost in front of another tool's
    if ending and int(ending[3], 16) != zlib.crc32(line[: line.rindex(b',"check"')], before):
        return None
    try:
        operation = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(operation, dict) or not isinstance(operation.get("op_code"), int):
        return None
    if isinstance(operation.get("param_name"), str):
        operation["param_name"] = sys.intern(operation["param_name"])  # Optuna keeps it for every trial
    marks = [operation.pop(mark, None) for mark in _MARKS]
    if not ending and any(mark is not None for mark in marks):
        return None
    return operation


def _creates(line: bytes) -> bool:
    try:
        return bool(json.loads(line)["op_code"] == CREATE_TRIAL)
    except (ValueError, RecursionError, KeyError, TypeError):
        return False


@contextmanager
def journal_lock(path: Path) -> Iterator[None]:
    """Hold the lock under which a journal is written."""
    with process_lock(path.with_name(f".{path.name}.lock")):
        yield


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
