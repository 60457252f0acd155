"""What asks a search to stop: Ctrl-C, a service manager, a terminal that goes away."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("bitfront")

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first signal into a request, which is what is given tells; a second SIGINT interrupts at once."""
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        log.info("stopping after the evaluation in hand; press Ctrl-C again to leave now")

    with _handled_by(on_signal):
        yield lambda: bool(received)


@contextmanager
def interrupts() -> Iterator[None]:
    """Have every signal interrupt as Ctrl-C does, so that what is done here ends in order."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(on_signal):
        yield


@contextmanager
def deaf_children() -> Iterator[None]:
    """Have a process started here get none of the signals, which terminals and service managers send to all processes.

    What they mean is for its parent to decide.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    # Who starts a search with nohup wants it to outlive the terminal.
    numbers = [number for number in _STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
