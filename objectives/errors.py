"""The one exception that means: the input was wrong, and here is what to do about it."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """What a user handed over cannot be used.

    The message states the rule, the value received, where it came from and what to do. The command line prints it as it
    is and exits with status 2; callers may catch it as a ``ValueError``.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory is short: torch has no class of its own for that on a CPU."""
    short = isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    )
    return short or isinstance(error, MemoryError)


def all_faults(subject: str, faults: Sequence[str], most: int | None = None) -> InputError:
    """Return one error that lists the faults of one subject (a file, a map), so that all are mended in one go.

    Beyond the first ``most``, faults are only counted.
    """
    assert faults
    if len(faults) == 1:
        return InputError(f"{subject}: {faults[0]}")
    shown = [*faults] if most is None or len(faults) <= most else [*faults[:most], f"and {len(faults) - most} more"]
    return InputError("\n  - ".join([f"{subject}: {len(faults)} faults", *shown]))
