"""Atomic replacement of files and directories, and locks between processes."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from objectives.errors import InputError, printable

log = logging.getLogger("bitfront")

_LOCK_POLL_S = 0.002
_TELL_AFTER_S = 5.0  # without flock, when the holder may be dead
_ASK_AGAIN_S = 0.5  # once the wait is told: a signal must not wait long
_TELL_AT_LATEST_S = 60.0  # with flock the holder lives; many workers may take their turns
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# Without flock, filelock keeps the lock by the mere existence of its file; waiting for one is reported below.
warnings.filterwarnings("ignore", message="flock not supported")

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
            sync(written.fileno())
        _follow_umask(temporary)
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
        for written in (temporary, *temporary.rglob("*")):
            _follow_umask(written)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def never() -> bool:
    """Return False: a ``should_stop`` that can be pickled."""
    return False


class LockHeldError(OSError):
    """Another process holds a lock; the message names the lock's file and, if the file tells, the holder."""


@contextmanager
def process_lock(
    path: Path, timeout_s: float = float("inf"), should_stop: Callable[[], bool] = never
) -> Iterator[None]:
    """Hold a lock between processes. The system releases it if the process dies, even by SIGKILL.

    A file system without flock has no such locks: there the file itself is the lock, and a process that dies on another
    machine leaves it behind. So a wait for such a file, or a long wait for any lock, is logged.

    Args:
        path: the lock's file, in a folder that exists.
        timeout_s: how long to wait for another process, in seconds.
        should_stop: once it returns true, a wait that is logged ends.

    Raises:
        LockHeldError: another process still holds the lock after ``timeout_s``, or when ``should_stop`` ends the wait.
        OSError: the file cannot be written, or the file system refuses locks; it names the file.
    """
    lock, began, told = FileLock(path), time.monotonic(), False
    while not lock.is_locked:
        left_s = began + timeout_s - time.monotonic()
        step_s = _ASK_AGAIN_S if told else _TELL_AFTER_S
        try:
            lock.acquire(timeout=max(0.0, min(left_s, step_s)), poll_interval=_LOCK_POLL_S)
        except Timeout:
            holder = _holder(path)
            held = f"another process{holder} holds this lock"
            if holder:
                held += "; if no such process runs, delete the file"
            waited_s = time.monotonic() - began
            overdue = bool(holder) or waited_s >= _TELL_AT_LATEST_S
            if waited_s >= timeout_s or (overdue and should_stop()):
                raise LockHeldError(errno.EBUSY, held, str(path)) from None
            if overdue and not told:
                told = True
                log.warning("%s: waiting, because %s", printable(path), held)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _NO_LOCKS:
                reason = (
                    f"this file system has no locks ({reason}); use a directory on a local disk, or have it mounted "
                    "with locks (for NFS, lockd; for Lustre, -o flock)"
                )
            raise OSError(error.errno, reason, str(path)) from None
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Return which process holds a lock, if its file tells: only where a file system has no flock."""
    with suppress(OSError, ValueError):
        process, host, *_ = path.read_text(encoding="utf-8").splitlines()
        return f" ({int(process)} on {host})"
    return ""


def looks_temporary(name: str) -> bool:
    """Return whether ``remove_leftovers`` takes a file or directory of this name for a temporary one."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of dead processes from a folder. No process may be writing there."""
    if folder.is_dir():
        for path in folder.iterdir():
            if looks_temporary(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to ``path``, replacing the file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync(handle: int) -> None:
    """Write a file's data to the disk, if its file system can; buckets and some network mounts cannot."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def user_path(path: str | Path) -> Path:
    """Return a path that a user gave, with ``~`` and ``~name`` expanded.

    Raises:
        InputError: there is no such home directory.
    """
    try:
        if str(path).startswith("~") and not os.environ.get("HOME", "/").startswith("/"):
            raise RuntimeError  # an empty HOME would make ~/x /x
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: there is no such home directory; write the path in full") from None


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, read piece by piece, as manifests of checkpoints have it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _follow_umask(path: Path) -> None:
    """Give a file or directory the mode that new ones have; ``tempfile`` and some libraries let only the owner read.

    Bucket mounts, exFAT and CIFS keep no modes and may refuse to set one. Nothing is lost by that.
    """
    mask = os.umask(0)
    os.umask(mask)
    with suppress(OSError):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
