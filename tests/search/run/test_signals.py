import signal
import subprocess
import sys

import pytest

from search.run.signals import blocked_signals, interrupts, stop_requests


def send(number: int) -> None:
    """Send this thread a signal; another thread may handle one that is sent to the process, and later."""
    signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_a_second_ctrl_c_interrupts(number: int) -> None:
    before = signal.getsignal(number)
    with stop_requests() as should_stop:
        assert not should_stop()
        send(number)
        assert should_stop()
        send(signal.SIGTERM)  # a service manager may be impatient: the current evaluation is finished all the same
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_interrupts_before_a_search_has_begun(number: int) -> None:
    with interrupts(), pytest.raises(KeyboardInterrupt):
        send(number)


def test_a_search_started_with_nohup_outlives_the_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as should_stop:
            send(signal.SIGHUP)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_child_gets_no_signal_and_its_parent_misses_none() -> None:
    with stop_requests() as should_stop:
        with blocked_signals():
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            send(signal.SIGTERM)
        assert should_stop()
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                child.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=0.5)
        finally:
            child.kill()
            child.wait()
