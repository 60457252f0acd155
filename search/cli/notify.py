"""Run the user's command when a search ends."""

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
    """Run ``command`` in a shell when the block ends or raises; nothing if it is empty.

    The command gets two environment variables. ``BITFRONT_RUN`` is the run's directory. ``BITFRONT_STATE`` is
    ``ended``; ``stopped`` if a signal ended the block or ``stopped()`` is true; or ``failed: `` and the reason. If the
    command fails or takes over a minute, the log says so and the search's own result stands.
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
