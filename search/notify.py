"""Telling somebody that a search has ended, by a command of the user's own."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("bitfront")

_TIMEOUT_S = 60


@contextmanager
def notifying(command: str, run: Path, stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Run ``command`` in a shell when what is done here ends, however it ends; nothing where it is empty.

    The command has ``BITFRONT_RUN``, the run's directory, and ``BITFRONT_STATE`` in its environment: ``ended``;
    ``stopped`` where a signal ended it, as ``stopped`` tells; or ``failed: `` and why. One that fails or takes too
    long is logged and changes nothing.
    """
    try:
        yield
    except KeyboardInterrupt:
        _run(command, run, "stopped")
        raise
    except BaseException as error:
        _run(command, run, f"failed: {str(error) or type(error).__name__}")
        raise
    _run(command, run, "stopped" if stopped() else "ended")


def _run(command: str, run: Path, state: str) -> None:
    if not command:
        return
    environment = {**os.environ, "BITFRONT_RUN": str(run), "BITFRONT_STATE": state}
    try:
        subprocess.run(command, shell=True, check=True, timeout=_TIMEOUT_S, env=environment)  # noqa: S602  # the user's
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("--notify: %s", error)
