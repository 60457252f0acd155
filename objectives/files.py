"""Writing files so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

_LOCK_POLL_S = 0.002
_TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}(\.[^.]*)?")  # as tempfile makes names


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path``; on a clean exit it is renamed to ``path``, else removed.

    The folder is made when it is missing. Use it for whatever writes a file by its name (pandas, matplotlib, torch).

    Raises:
        OSError: the folder cannot be made or written, or the disk is full. ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: matplotlib and others choose the format by it.
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Give an empty temporary directory beside ``path``; on a clean exit it is renamed to ``path``, else removed.

    Raises:
        FileExistsError: ``path`` is there already; a directory is never overwritten.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def process_lock(path: Path) -> Iterator[None]:
    """Hold a lock that one process at a time has; the system releases it when its process dies, however it dies."""
    with FileLock(path).acquire(poll_interval=_LOCK_POLL_S):
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that dead processes left in a folder; nobody may be writing there."""
    if folder.is_dir():
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to ``path``, replacing what was there in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
