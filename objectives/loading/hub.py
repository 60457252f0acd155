"""Sources of models and sentences: local directories, and Hugging Face hub repositories in the local cache."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from objectives.errors import InputError, is_out_of_memory

_CARD = "README.md"
_LICENSE = re.compile(r"[\w.+-][\w.+ -]*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LONGEST_POINTER = 1024  # bytes, by the specification of Git LFS


def local_directory(source: str, what: str) -> Path | None:
    """Return ``source`` as a directory, or None if it can only be a hub name.

    Raises:
        InputError: it is empty or a file.
        InputError: it is written as a path (``./x``, ``/a/b``, ``x/``), and there is no such directory.
    """
    if not source.strip():
        raise InputError(f"{what} {source!r}: a directory or a hub name is needed, got an empty name; give one")
    try:
        path = Path(source).expanduser()
    except RuntimeError:  # ~name, and there is no such user
        path = Path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{what} {source}: a directory is needed, got a file; name its directory")
    # A hub name is `name` or `owner/name`; any other text with separators is a path.
    if source.startswith(("/", ".", "~")) or source.endswith("/") or "\\" in source or source.count("/") > 1:
        raise InputError(f"{what} {source}: there is no such directory (looked for {path.absolute()}); check the path")
    return None


def license_of(source: str) -> dict[str, str]:
    """Return the license that a model's card names, by the hub's keys; empty if none is known here.

    Nothing is downloaded: ``hub_snapshot`` has the card of a hub's model.

    Args:
        source: a model's directory or hub name.
    """
    directory = local_directory(source, "model")
    card = directory / _CARD if directory else huggingface_hub.try_to_load_from_cache(source, _CARD)
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return {}
    try:
        metadata = huggingface_hub.metadata_load(card) or {}
    except Exception:  # somebody else's YAML, which can be faulty in any way; the license is then unknown
        return {}
    named = {key: metadata.get(key) for key in ("license", "license_name")}
    return {key: value for key, value in named.items() if isinstance(value, str) and _LICENSE.fullmatch(value)}


def hub_snapshot(name: str, kind: Literal["model", "dataset"], patterns: Sequence[str], instead: str) -> Path:
    """Download missing files of a hub repository, and return its folder in the local cache.

    If ``HF_HUB_OFFLINE=1`` is set or the hub does not answer, nothing is downloaded. Callers load from the folder,
    because the libraries' own downloads ask the hub to convert ``pytorch_model.bin`` in a background thread.

    Args:
        name: ``owner/name`` or ``name``.
        kind: the kind of repository.
        patterns: shell patterns of the files to fetch. The folder does not exist if none matches.
        instead: what to do without the hub, for the error message.

    Raises:
        InputError: the hub cannot be reached and the cache lacks files, or a download breaks off.
        InputError: the hub has no such repository, or it is private or gated.
        OSError: the cache cannot be read or written, for example because the disk is full.
    """
    with _quiet_loggers():
        failure: Exception | None = None
        try:
            # snapshot_download asks this too, but without a time limit.
            huggingface_hub.HfApi().repo_info(name, repo_type=kind, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except Exception as error:  # the client passes on any error of httpx
            failure = error  # the cache may still have the files
        try:
            folder = huggingface_hub.snapshot_download(
                name,
                repo_type=kind,
                allow_patterns=list(patterns),
                local_files_only=failure is not None,
                tqdm_class=_Bar,
            )
        except Exception as error:
            cause = failure or error
            raise _hub_error(cause, name, kind, instead) from cause
    return Path(folder)


def refuse_lfs_pointers(subject: str, paths: Iterable[Path]) -> None:
    """Check that no file is the pointer that a clone without Git LFS has in its place.

    Raises:
        InputError: some are; the message starts with ``subject`` and names them.
    """
    pointers = [path for path in paths if path.stat().st_size < _LONGEST_POINTER and _is_pointer(path)]
    if pointers:
        names = ", ".join(path.name for path in pointers)
        raise InputError(
            f"{subject}: not the file itself but a Git LFS pointer: {names}; run `git lfs pull` in "
            f"{pointers[0].parent}, or download the files again"
        )


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the progress bars, log lines and warnings of the model libraries."""
    from transformers.utils import logging as transformers_logging  # a slow import that reading a run does not need

    bars = transformers_logging.is_progress_bar_enabled()
    with warnings.catch_warnings(), _quiet_loggers():
        warnings.simplefilter("ignore")
        if bars:
            transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            if bars:
                transformers_logging.enable_progress_bar()


@contextmanager
def library_faults(subject: str, part: str) -> Iterator[None]:
    """Raise any error but short memory as an InputError: ``subject`` has ``part``, which cannot be read."""
    # transformers, torch, safetensors and tokenizers raise a dozen types for broken files, including bare Exception.
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{subject}: {part} cannot be read ({first_line(error)}); download or save the model again"
        ) from error


def first_line(error: BaseException) -> str:
    """Return an exception as one line: its type and the first line of its text, without a terminal's colours."""
    lines = _COLOURS.sub("", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


class _Bar(tqdm):
    """A progress bar for downloads. It shows only on a terminal and is cleared at the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"disable": None, "leave": False})  # type: ignore[no-untyped-call]


def _hub_error(error: BaseException, name: str, kind: str, instead: str) -> Exception:
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError | TimeoutError):
        fault = f"the hub's cache cannot be used ({error.strerror}); free disk space, or set HF_HOME to another folder"
        return OSError(error.errno, fault, error.filename or constants.HF_HUB_CACHE)
    while not isinstance(error, HfHubHTTPError) and error.__cause__ is not None:
        error = error.__cause__  # the hub's client wraps the real error in "an error happened"
    hub, log_in = constants.ENDPOINT, "log in (`hf auth login`, or HF_TOKEN)"
    match error:
        case OfflineModeIsEnabled():
            fault = (
                f"there is no such directory, HF_HUB_OFFLINE is set, and the cache {constants.HF_HUB_CACHE} lacks it "
                "or some of its files; unset HF_HUB_OFFLINE to download them"
            )
        case GatedRepoError():
            fault = f"its owner on {hub} grants access only on request; accept the terms there and {log_in}"
        case RepositoryNotFoundError():
            fault = (
                f"there is no such directory, and on {hub} this {kind} is missing or private; check the spelling, "
                f"{log_in}"
            )
        case HFValidationError():
            fault = f"neither a directory nor a hub name ({first_line(error)}); check the spelling"
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            fault = f"{hub} refused it with HTTP status {error.response.status_code}; {log_in}"
        case HfHubHTTPError():
            fault = f"{hub} answered with HTTP status {error.response.status_code}; try again later"
        case _:
            fault = (
                f"there is no such directory, and {hub} cannot be reached or broke off ({first_line(error)}); check "
                "the connection, set HF_HUB_OFFLINE=1 if the cache has all files"
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
