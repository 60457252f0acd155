"""Where models and sentences lie: local directories, or repositories of the Hugging Face hub in the local cache."""

from __future__ import annotations

import errno
import glob
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from objectives.errors import InputError

_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EIO,
)


def local_directory(source: str, what: str) -> Path | None:
    """Return ``source`` as a directory, or None where it can only be a name on the hub.

    Raises:
        InputError: it is empty, a file, or written as a path (``./x``, ``/a/b``, ``x/``) and no directory is there.
    """
    if not source.strip():
        raise InputError(f"{what} {source!r}: a directory or a hub name is needed, this is empty; name one")
    try:
        path = Path(source).expanduser()
    except RuntimeError:  # ~name, and there is nobody of that name
        path = Path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{what} {source}: a directory is needed, this is a file; name the directory it lies in")
    # A hub name is `name` or `owner/name`; whatever else has separators was meant as a path.
    if source.startswith(("/", ".", "~")) or source.endswith("/") or "\\" in source or source.count("/") > 1:
        raise InputError(f"{what} {source}: there is no such directory (looked for {path.absolute()}); check the path")
    return None


def hub_snapshot(
    name: str, kind: Literal["model", "dataset"], wanted: Callable[[Sequence[str]], list[str]], instead: str
) -> Path:
    """Return the folder of a hub repository in the local cache, after downloading what is wanted and not yet there.

    Offline (``HF_HUB_OFFLINE=1``), or where the hub does not answer, the cache is used as it is. Everything is fetched
    here and loaded from the folder, rather than by the libraries' own downloads: those retry a dead hub for half a
    minute a file, and ask the hub to convert ``pytorch_model.bin`` in a background thread.

    Args:
        name: ``owner/name`` or ``name``.
        kind: what sort of repository it is.
        wanted: picks the files to fetch from the names of all files.
        instead: what the user can do without the hub, for the error message.

    Raises:
        InputError: the hub cannot be reached and the cache has nothing, or a download breaks off.
        InputError: the hub has no such repository, or it is private or gated.
    """
    if huggingface_hub.is_offline_mode():
        cached = _cached_snapshot(name, kind)
        if cached is None:
            raise InputError(
                f"{kind} {name}: there is no directory of that name, HF_HUB_OFFLINE is set, and the cache "
                f"{constants.HF_HUB_CACHE} does not have it; unset HF_HUB_OFFLINE to download it, or {instead}"
            )
        return cached
    with _quiet_loggers():
        api, timeout_s = huggingface_hub.HfApi(), constants.HF_HUB_ETAG_TIMEOUT
        try:
            # Asked first because it is the one request with a time limit and without retries.
            info = (api.model_info if kind == "model" else api.dataset_info)(name, timeout=timeout_s)
        except Exception as error:
            if _is_of_this_machine(error):
                raise
            cached = _cached_snapshot(name, kind) if _is_outage(error) else None
            if cached is None:
                raise _hub_fault(error, name, kind, instead) from error
            return cached
        files = wanted([sibling.rfilename for sibling in info.siblings or ()])
        # The bars are for somebody who waits minutes; for files that are there they would only flash by.
        present = all(
            isinstance(huggingface_hub.try_to_load_from_cache(name, file, revision=info.sha, repo_type=kind), str)
            for file in files
        )
        with nullcontext() if sys.stderr.isatty() and not present else _without_progress_bars():
            try:
                folder = huggingface_hub.snapshot_download(
                    name, repo_type=kind, allow_patterns=[glob.escape(file) for file in files]
                )
            except Exception as error:
                if _is_of_this_machine(error):
                    raise
                raise _hub_fault(error, name, kind, instead) from error
    return Path(folder)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the progress bars, log lines and warnings of the model libraries off the terminal, and restore them."""
    with warnings.catch_warnings(), _without_progress_bars(), _quiet_loggers():
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> str:
    """Return an exception as one line for a message: its type and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _cached_snapshot(name: str, kind: str) -> Path | None:
    try:
        # Patterns that every repository meets: which files are needed cannot be asked now, their readers will tell.
        return Path(
            huggingface_hub.snapshot_download(
                name, repo_type=kind, local_files_only=True, allow_patterns=["config.json"]
            )
        )
    except (OSError, ValueError):
        return None


def _is_outage(error: Exception) -> bool:
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500


def _is_of_this_machine(error: Exception) -> bool:
    """Return whether it is this machine's disk that failed, and not the hub or the way there."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _hub_fault(error: BaseException, name: str, kind: str, instead: str) -> InputError:
    while not isinstance(error, HfHubHTTPError) and error.__cause__ is not None:
        error = error.__cause__  # the hub's client wraps what happened in "an error happened"
    hub, log_in = constants.ENDPOINT, "log in (`hf auth login`, or HF_TOKEN)"
    match error:
        case GatedRepoError():
            fault = f"its owner on {hub} gives it out only on request; accept the terms there and {log_in}"
        case RepositoryNotFoundError():
            fault = (
                f"there is no directory of that name, and {hub} has no such {kind}, or a private one; check the "
                f"spelling, {log_in}"
            )
        case HFValidationError():
            fault = f"neither a directory nor a hub name ({first_line(error)}); check the spelling"
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            fault = f"{hub} refused it with HTTP status {error.response.status_code}; {log_in}"
        case HfHubHTTPError():
            fault = f"{hub} answered with HTTP status {error.response.status_code}; try again later"
        case _:
            fault = (
                f"there is no directory of that name, and {hub} cannot be reached or broke off ({first_line(error)}); "
                "check the connection, set HF_HUB_OFFLINE=1 if the cache has it"
            )
    return InputError(f"{kind} {name}: {fault}, or {instead}")


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging  # a second or more, and reading a run needs none

    # transformers' own functions switch the hub's bars too, but would forget what those were set to.
    transformers_bars, hub_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hub's client warns where HF_HUB_DISABLE_PROGRESS_BARS has the last word
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            if transformers_bars:
                transformers_logging.enable_progress_bar()
            (enable_progress_bars if hub_bars else disable_progress_bars)()
