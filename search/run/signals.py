"""Signals that ask a search to stop: from Ctrl-C, a service manager, or a terminal that is closed."""

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
    """Give ``should_stop``, which is true from the first signal on; a second SIGINT raises KeyboardInterrupt."""
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        log.info("stopping after the current evaluation; press Ctrl-C again to stop at once")

    with _handled_by(on_signal):
        yield lambda: bool(received)


@contextmanager
def interrupts() -> Iterator[None]:
    """Let every signal raise KeyboardInterrupt, so that the work ends in order."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(on_signal):
        yield


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block the signals in processes that are started here: their parent decides when they stop.

    Terminals and service managers send a signal to all processes of a search at once.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    # A signal that is ignored stays so: nohup lets a search outlive its terminal.
    numbers = [number for number in _STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
