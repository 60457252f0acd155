"""The exception for invalid input, and helpers for error messages."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


class InputError(ValueError):
    """The user's input cannot be used.

    The message states the rule, the value received, its source and the remedy. The command line prints the message and
    exits with status 2. Callers may catch this error as a ``ValueError``.
    """


class NotFiniteError(ValueError):
    """Scores of a map are infinite or NaN; other maps of the same model may be sound."""


def printable(text: object) -> str:
    """Return a path or name for people to read: bytes that are no UTF-8 are written as ``\\xff``."""
    return str(text).encode("utf-8", errors="surrogateescape").decode("utf-8", errors="backslashreplace")


def quoted(word: object) -> str:
    """Return a path or name as one word of a shell command, to be pasted into bash or zsh."""
    text = str(word)
    shown = printable(text)
    if shown == text:
        return shlex.quote(text)
    escaped = text.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{printable(escaped)}'"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out. On a CPU torch raises a bare RuntimeError for that."""
    if isinstance(error, RuntimeError):
        return any(text in str(error) for text in ("allocate memory", "out of memory", "STATUS_ALLOC_FAILED"))
    return isinstance(error, MemoryError)


_MOST_SHOWN = 20


def all_faults(subject: str, faults: Sequence[str]) -> InputError:
    """Return one error that lists all faults of one subject (a file, a map).

    After the first 20, faults are only counted.
    """
    assert faults
    if len(faults) == 1:
        return InputError(f"{subject}: {faults[0]}")
    shown = [*faults[:_MOST_SHOWN]]
    if len(faults) > _MOST_SHOWN:
        shown.append(f"and {len(faults) - _MOST_SHOWN} more")
    return InputError("\n  - ".join([f"{subject}: {len(faults)} faults", *shown]))
