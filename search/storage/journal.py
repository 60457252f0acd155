"""Optuna's journal as a file that survives dead processes, full disks and damage: its lines stay whole lines."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from objectives.errors import InputError
from objectives.files import never, process_lock, replacing, sync

log = logging.getLogger("bitfront")

_SET_PARAMETER = 5  # Optuna's code; not synced to disk, because an unfinished trial may lose its parameters

Operation = dict[str, Any]


@dataclass(frozen=True)
class _Position:
    """A position between two lines.

    Attributes:
        number: how many lines are before it.
        offset: offset of the next line, in bytes.
        check: checksum of the line before it; 0 at the beginning.
        sound: offset behind the last line with a checksum; lines without one may be damaged.
    """

    number: int = 0
    offset: int = 0
    check: int = 0
    sound: int = 0

    def after(self, line: bytes) -> _Position:
        """Return the position after a line, which includes its line end; empty lines are not numbered."""
        offset, text = self.offset + len(line), line.strip()
        if not text:
            return replace(self, offset=offset)
        return replace(self, number=self.number + 1, offset=offset, check=zlib.crc32(text + b"\n"))


class JournalFile(BaseJournalBackend):
    """A journal with atomic appends, a lock that its process releases even when it dies, and a checksum in each line.

    Optuna's own journal is locked by a file that a dead process leaves behind; the next start waits 30 s for it.

    Each line has its number and ends with a checksum of itself and of the line before it. So every damage is noticed: a
    changed digit, and a line that was lost, doubled or moved. Other tools append lines without these; our next line's
    checksum covers them. Empty lines and spaces around a line, such as the CR of CRLF, are ignored.
    """

    def __init__(self, path: Path, should_stop: Callable[[], bool] = never) -> None:
        """Use the journal at ``path``, created if it is missing; ``should_stop`` ends a long wait for its lock."""
        self.path = path
        self._should_stop = should_stop
        self._lock = path.with_name(f".{path.name}.lock")
        self._read = _Position()
        self._batch: list[Operation] | None = None
        if not path.exists():
            path.touch()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Append the operations of this context in one write at its end; if anything fails, append none.

        The context cannot read their effects. One thread at a time.

        Raises:
            OSError: as for ``append_logs``.
        """
        batch: list[Operation] = []
        self._batch = batch
        try:
            yield
        finally:
            self._batch = None
        if batch:
            self.append_logs(batch)

    def append_logs(self, logs: list[Operation]) -> None:
        """Append operations, or raise OSError and leave the file as it was."""
        if self._batch is not None:
            self._batch += logs
            return
        with (
            process_lock(self._lock, should_stop=self._should_stop),
            os.fdopen(os.open(self.path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as file,
        ):
            end = self._read
            file.seek(end.offset)
            *whole, torn = file.read().split(b"\n")
            for line in whole:
                end = end.after(line + b"\n")
            if torn:
                self._set_aside(torn)
                file.truncate(end.offset)
            left = memoryview(_lines(logs, end))
            try:
                while left:
                    left = left[file.write(left) :]
                if any(entry["op_code"] != _SET_PARAMETER for entry in logs):
                    sync(file.fileno())
            except BaseException as error:
                file.truncate(end.offset)  # or the next line would continue half a line
                if isinstance(error, OSError):
                    raise OSError(error.errno, error.strerror, str(self.path)) from None
                raise

    def read_logs(self, log_number_from: int) -> Iterator[Operation]:
        """Yield the operations from a number on; a last line that is still being written is skipped.

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
                before, after = self._read, self._read.after(line)
                if after.number > before.number:
                    try:
                        operation, checked = _parse(line.strip(), before)
                    except (ValueError, TypeError, KeyError, RecursionError):
                        raise unreadable(self.path, f"line {after.number} is damaged") from None
                    if checked:
                        after = replace(after, sound=after.offset)
                    if after.number > log_number_from:
                        yield operation
                self._read = (
                    after  # after the yield: if Optuna cannot replay an operation, the sound part ends before it
                )

    def drop_damage(self) -> None:
        """Truncate the journal where the last reading met damage, and keep a copy of the damaged file beside it."""
        names = (f"{self.path.name}.damaged-{number}" for number in count(1))
        copy = next(path for path in map(self.path.with_name, names) if not path.exists())
        with process_lock(self._lock, should_stop=self._should_stop):
            with replacing(copy) as temporary:
                shutil.copyfile(self.path, temporary)
            os.truncate(self.path, self._read.sound)
        log.warning(
            "%s: was damaged; kept the first %s of its %s bytes. Trials recorded after them are evaluated again. The "
            "damaged file is kept as %s",
            self.path,
            f"{self._read.sound:,}",
            f"{copy.stat().st_size:,}",
            copy.name,
        )
        self._read = _Position()

    def _set_aside(self, torn: bytes) -> None:
        """Move an unfinished last line to a file beside the journal."""
        with self.path.with_name(f"{self.path.name}.torn").open("ab") as aside:
            aside.write(torn + b"\n")
        log.warning("%s: set aside %d bytes of a line that a dead process left unfinished", self.path, len(torn))


def unreadable(path: Path, why: object) -> InputError:
    """Return the error of a journal that cannot be read."""
    return InputError(
        f"{path}: cannot be read as a study ({why}); start the search again, which keeps all lines before the damage"
    )


def _lines(operations: list[Operation], end: _Position) -> bytes:
    """Return operations as the lines that follow ``end``."""
    lines, check = [], end.check
    for number, operation in enumerate(operations, end.number + 1):
        text = json.dumps({**operation, "line": number}, separators=(",", ":")).encode().removesuffix(b"}")
        line = text + b',"check":"%08x"}\n' % zlib.crc32(text, check)
        check = zlib.crc32(line)
        lines.append(line)
    return b"".join(lines)


def _parse(text: bytes, before: _Position) -> tuple[Operation, bool]:
    """Return the operation of the line that follows ``before``, and whether the line has a checksum.

    Lines of older versions may lack the line number, or have the number of trials too.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: the line is damaged.
    """
    operation = json.loads(text)
    if not isinstance(operation, dict):
        raise TypeError
    checked = "check" in operation or "line" in operation
    if checked:
        check = zlib.crc32(text[: text.rindex(b',"check"')], before.check)
        if operation.pop("check") != f"{check:08x}" or operation.pop("line", before.number + 1) != before.number + 1:
            raise ValueError
        operation.pop("trials", None)
    if isinstance(operation.get("param_name"), str):
        operation["param_name"] = sys.intern(operation["param_name"])  # Optuna keeps one for each trial
    return operation, checked
