"""Waiting for what another process or thread does, never for ever."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], timeout_s: float, pause_s: float = 0.02) -> None:
    """Return as soon as a condition holds; it is asked again after each pause.

    Raises:
        TimeoutError: it did not hold in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s} s in vain")
        time.sleep(pause_s)
