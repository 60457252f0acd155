"""What every test may ask for."""

import os
import signal
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from objectives.miniature import SHIPPED, Miniature
from tests.shared import ROOT

# Tests leave the user's own cache alone; commands that they start inherit this.
os.environ.setdefault("BITFRONT_CACHE", str(ROOT / ".cache"))

# What a shell runs in the background is deaf to Ctrl-C, what nohup runs to a terminal that goes away,
# and so would be all that tests send those signals to.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(scope="session")
def miniature() -> Miniature:
    """The embedded default."""
    return SHIPPED


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are drawn and written without a picture: to render them takes most of the time of a small search."""

    def savefig(self: Figure, path: Path, **_: object) -> None:
        path.write_text("<svg></svg>", encoding="utf-8")

    monkeypatch.setattr(Figure, "savefig", savefig)
