"""Where codes and sensitivities are kept between searches."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import platformdirs

from objectives.errors import InputError
from objectives.files import user_path

_REMEDY = "set BITFRONT_CACHE to a directory that can be written"


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
    return path if path.is_dir() else writable_cache(path)


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
