"""What every test may ask for."""

import os
import signal

import pytest
from filelock import FileLock

from objectives.miniature.training import Miniature, materialise
from objectives.problem import cache_directory
from tests.shared import ROOT

# Tests leave the user's own cache alone; commands that they start inherit this.
os.environ.setdefault("BITFRONT_CACHE", str(ROOT / ".cache"))

# A shell starts what it runs in the background deaf to Ctrl-C, and so would be all that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def miniature() -> Miniature:
    """The embedded default, trained once in a checkout, by one process while the others wait: about a minute."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with FileLock(cache_directory() / "miniature.lock"):
        return materialise(cache_directory())
