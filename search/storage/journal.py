"""Optuna's journal file, kept whole: whatever happens to a process or to the disk, its lines stay whole lines."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from objectives.errors import InputError
from objectives.files import process_lock, replacing

log = logging.getLogger("bitfront")

_SET_PARAMETER = 5  # Optuna's code; an unfinished trial may lose these, so they need not reach the disk at once

Operation = dict[str, Any]


@dataclass(frozen=True)
class _Position:
    """A place between two lines.

    Attributes:
        number: how many lines are before it.
        offset: of the next line, in bytes.
        check: checksum of the line before it; 0 at the beginning.
        sound: offset behind the last line with a checksum. Damage may have changed lines without one.
    """

    number: int = 0
    offset: int = 0
    check: int = 0
    sound: int = 0

    def behind(self, line: bytes) -> _Position:
        """Return the place behind a line, given with its line end; an empty line counts for nothing."""
        offset, text = self.offset + len(line), line.strip()
        if not text:
            return replace(self, offset=offset)
        return replace(self, number=self.number + 1, offset=offset, check=zlib.crc32(text + b"\n"))


class JournalFile(BaseJournalBackend):
    """Appends that are whole or not there at all, under a lock that dies with its process; reads of sound lines only.

    Optuna's own journal is locked by a file that a dead process leaves behind; the next start waits 30 s for it.

    Each line has its number and ends with a checksum of itself and of the line before it. So every damage is noticed: a
    changed digit as well as a line that was lost, doubled or moved. Lines that other tools append have neither; the
    next line of ours vouches for them. Empty lines and spaces around a line are ignored, the CR of CRLF among them.
    """

    def __init__(self, path: Path) -> None:
        """Use the journal at ``path``; it is made when it is missing."""
        self.path = path
        self._lock = path.with_name(f".{path.name}.lock")
        self._read = _Position()
        self._held: list[Operation] | None = None
        if not path.exists():
            path.touch()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Append what is appended within as one piece at its end: all of it or, if anything fails, nothing.

        Not for operations whose effect is asked for within. One thread at a time.

        Raises:
            OSError: as for ``append_logs``.
        """
        held: list[Operation] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
        if held:
            self.append_logs(held)

    def append_logs(self, logs: list[Operation]) -> None:
        """Append operations, or raise OSError and leave the file as it was."""
        if self._held is not None:
            self._held += logs
            return
        with (
            process_lock(self._lock),
            os.fdopen(os.open(self.path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as file,
        ):
            end = self._read
            file.seek(end.offset)
            *whole, torn = file.read().split(b"\n")
            for line in whole:
                end = end.behind(line + b"\n")
            if torn:
                self._set_aside(torn)
                file.truncate(end.offset)
            left = memoryview(_lines(logs, end))
            try:
                while left:
                    left = left[file.write(left) :]
                if any(entry["op_code"] != _SET_PARAMETER for entry in logs):
                    os.fsync(file.fileno())
            except BaseException as error:
                file.truncate(end.offset)  # the next line would be glued to half a line
                if isinstance(error, OSError):
                    raise OSError(error.errno, error.strerror, str(self.path)) from None
                raise

    def read_logs(self, log_number_from: int) -> Iterator[Operation]:
        """Yield the operations from a number on; a last line that is still being written is left for later.

        Raises:
            InputError: a line is damaged.
        """
        if self._read.number > log_number_from:
            self._read = _Position()
        with self.path.open("rb") as file:
            file.seek(self._read.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                before, at = self._read, self._read.behind(line)
                if at.number > before.number:
                    try:
                        operation, checked = _operation(line.strip(), before)
                    except (ValueError, TypeError, KeyError, RecursionError):
                        raise unreadable(self.path, f"line {at.number} is damaged") from None
                    if checked:
                        at = replace(at, sound=at.offset)
                    if at.number > log_number_from:
                        yield operation
                self._read = at  # not before: if Optuna cannot replay an operation, the sound part ends in front of it

    def drop_damage(self) -> None:
        """End the journal where the last reading met damage. A copy of the damaged file is kept beside it."""
        names = (f"{self.path.name}.damaged-{number}" for number in count(1))
        aside = next(path for path in map(self.path.with_name, names) if not path.exists())
        with process_lock(self._lock):
            with replacing(aside) as temporary:
                shutil.copyfile(self.path, temporary)
            os.truncate(self.path, self._read.sound)
        log.warning(
            "%s: was damaged; kept the first %s of its %s bytes, and what the rest recorded is evaluated again; the "
            "damaged file is kept as %s",
            self.path,
            f"{self._read.sound:,}",
            f"{aside.stat().st_size:,}",
            aside.name,
        )
        self._read = _Position()

    def _set_aside(self, torn: bytes) -> None:
        """Keep what a dead process wrote of its last line in a file beside the journal."""
        with self.path.with_name(f"{self.path.name}.torn").open("ab") as aside:
            aside.write(torn + b"\n")
        log.warning("%s: set aside %d bytes of a line that a dead process left unfinished", self.path, len(torn))


def unreadable(path: Path, why: object) -> InputError:
    """Return the error of a journal that cannot be read."""
    return InputError(
        f"{path}: cannot be read as a study ({why}); start the search again, which keeps what is before the damage"
    )


def _lines(operations: list[Operation], at: _Position) -> bytes:
    """Return operations as the lines that follow ``at``."""
    written, check = [], at.check
    for number, operation in enumerate(operations, at.number + 1):
        text = json.dumps({**operation, "line": number}, separators=(",", ":")).encode().removesuffix(b"}")
        line = text + b',"check":"%08x"}\n' % zlib.crc32(text, check)
        check = zlib.crc32(line)
        written.append(line)
    return b"".join(written)


def _operation(text: bytes, at: _Position) -> tuple[Operation, bool]:
    """Return the operation of the line that follows ``at``, and whether the line has a checksum.

    Lines of older versions may have a checksum and no number, or the number of trials as well.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: the line is damaged.
    """
    operation = json.loads(text)
    if not isinstance(operation, dict):
        raise TypeError
    checked = "check" in operation or "line" in operation
    if checked:
        check = zlib.crc32(text[: text.rindex(b',"check"')], at.check)
        if operation.pop("check") != f"{check:08x}" or operation.pop("line", at.number + 1) != at.number + 1:
            raise ValueError
        operation.pop("trials", None)
    if isinstance(operation.get("param_name"), str):
        operation["param_name"] = sys.intern(operation["param_name"])  # Optuna keeps it for every trial
    return operation, checked
