"""Atomic replacement of files and directories, and locks between processes."""

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
_TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}(\.[^.]*)?")  # the names that tempfile makes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it to ``path`` on success, else remove it.

    A missing folder is made. Use it for libraries that write a file by its name (pandas, matplotlib, torch).

    Raises:
        OSError: the folder cannot be made or written, or the disk is full. ``path`` stays unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last because matplotlib and others derive the format from it.
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp lets only the owner read the file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary directory beside ``path``; rename it to ``path`` on success, else remove it.

    Raises:
        FileExistsError: ``path`` exists; a directory is never overwritten.
    """
    if path.exists():
        raise FileExistsError(f"{path} already exists")
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
    """Hold a lock between processes. The system releases it if the process dies, even by SIGKILL."""
    with FileLock(path).acquire(poll_interval=_LOCK_POLL_S):
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of dead processes from a folder. No process may be writing there."""
    if folder.is_dir():
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to ``path``, replacing the file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
