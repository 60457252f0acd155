"""Where codes and sensitivities are kept between searches, what lies there, and its removal by age."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from objectives.errors import InputError
from objectives.files import user_path

_REMEDY = "set BITFRONT_CACHE to a directory that can be written"
DAY_S = 86_400.0
_OURS = re.compile(r"bank-[0-9a-f]+|sensitivity-[0-9a-f]+\.npz")
_OUR_TEMPORARIES = re.compile(r"\.sensitivity-[0-9a-f]+-[a-z0-9_]{8}\.npz")

Kind = Literal["codes", "sensitivities", "leftover"]


def cache_directory() -> Path:
    """Return the cache directory: ``$BITFRONT_CACHE``, else the system's default. Its files can be made again.

    It is made if it is missing. One that is there may be read-only, if it was filled elsewhere.

    Raises:
        InputError: it cannot be made, or there is no home directory for it.
    """
    if given := os.environ.get("BITFRONT_CACHE"):
        path = user_path(given)
    else:
        try:
            path = Path(platformdirs.user_cache_dir("bitfront"))
        except RuntimeError:  # newer versions of platformdirs raise, older ones leave the ~
            path = Path("~")
        if not path.is_absolute():
            raise InputError(f"the cache: there is no home directory; {_REMEDY}")
    # Path.is_dir raises below a folder that may not be read; writable_cache says it with the remedy.
    return path if os.path.isdir(path) else writable_cache(path)  # noqa: PTH112


def writable_cache(folder: Path) -> Path:
    """Return a folder of the cache, made if it is missing; call it before the work whose result it is to keep.

    Raises:
        InputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(f"the cache {folder}: cannot be written ({error.strerror}); {_REMEDY}") from None
    return folder


@dataclass(frozen=True)
class CachePart:
    """One part of the cache.

    Attributes:
        path: a bank's directory or a file.
        kind: ``codes`` of one model and quantiser, ``sensitivities`` of one problem, or a ``leftover``: the unfinished
            file of a process that was killed, or is still writing.
        size_bytes: of its files.
        used_s: when it was written or used last, seconds since 1970.
    """

    path: Path
    kind: Kind
    size_bytes: int
    used_s: float


def cache_parts(cache: Path) -> list[CachePart]:
    """Return the parts of a cache, the one used last first. What is not ours in the directory is left out."""
    return sorted(_parts(cache), key=lambda part: (-part.used_s, part.path))


def prune(cache: Path, days: float) -> list[CachePart]:
    """Remove what was not used for so many days, and return it.

    Unfinished files of killed processes have no use, so they count from when they were written. A search that needs
    what was removed makes it again.

    Raises:
        ValueError: less than a day, which could take files from a process that is writing them.
        OSError: something cannot be removed.
    """
    if days < 1:
        raise ValueError("days must be at least 1")
    oldest_s = time.time() - days * DAY_S
    removed = [part for part in cache_parts(cache) if part.used_s < oldest_s]
    for part in removed:
        if part.path.is_dir():
            shutil.rmtree(part.path)
        else:
            part.path.unlink(missing_ok=True)  # its bank may be gone already
    return removed


def mark_used(path: Path) -> None:
    """Note that a part of the cache was used now; a cache that cannot be written stays as it is."""
    with suppress(OSError):
        os.utime(path)


def _parts(cache: Path) -> Iterator[CachePart]:
    for path in cache.iterdir() if cache.is_dir() else ():
        if _OUR_TEMPORARIES.fullmatch(path.name):
            yield from _files([path], "leftover")
        elif _OURS.fullmatch(path.name) and path.is_dir():
            files = list(path.iterdir())
            unfinished = [file for file in files if file.name.startswith(".")]
            yield from _files(unfinished, "leftover")
            stats = [file.stat() for file in files if file not in unfinished]
            used_s = max([path.stat().st_mtime, *(stat.st_mtime for stat in stats)])
            yield CachePart(path, "codes", sum(stat.st_size for stat in stats), used_s)
        elif _OURS.fullmatch(path.name):
            yield from _files([path], "sensitivities")


def _files(paths: list[Path], kind: Kind) -> Iterator[CachePart]:
    for path in paths:
        with suppress(FileNotFoundError):  # a writer has just renamed it
            stat = path.stat()
            yield CachePart(path, kind, stat.st_size, stat.st_mtime)
