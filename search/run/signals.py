"""Signals that stop a search: from Ctrl-C, a service manager, or a closed terminal."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("bitfront")

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield ``should_stop``, true from the first signal on; a second SIGINT raises KeyboardInterrupt."""
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        log.info("stopping after the current evaluation; press Ctrl-C again to stop at once")

    with _signal_handler(on_signal):
        yield lambda: bool(received)


@contextmanager
def interrupts() -> Iterator[None]:
    """Make every signal raise KeyboardInterrupt, so that files and locks are closed."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _signal_handler(on_signal):
        yield


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block the signals in processes that the block starts, as their parent decides when they stop.

    Terminals and service managers send each signal to all processes of a search.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _signal_handler(handler: _Handler) -> Iterator[None]:
    # Keep ignored signals ignored: nohup relies on it.
    numbers = [number for number in _STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
