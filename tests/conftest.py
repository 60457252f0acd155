"""What every test may ask for."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from objectives.files import write_text
from objectives.miniature import SHIPPED, Miniature
from results.plots import comparison, heat_maps, pareto, progress, unseen
from tests.shared import ROOT

# Tests leave the user's own cache alone; commands that they start inherit this.
os.environ.setdefault("BITFRONT_CACHE", str(ROOT / ".cache"))

# What a shell runs in the background is deaf to Ctrl-C, what nohup runs to a terminal that goes away,
# and so would be all that tests send those signals to.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


WHOLE = {"bitfront", "first_run", "server", "chromium", "shared"}
"""Fixtures of which each is a whole command, server, browser or real model."""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for one of these as end to end, and run the files with such tests first.

    Other end-to-end tests have the mark written out. With long files first, no process waits for the other at the end.
    """
    for item in items:
        if isinstance(item, pytest.Function) and WHOLE & set(item.fixturenames):
            item.add_marker("end_to_end")
    long_files = {item.path for item in items if item.get_closest_marker("end_to_end")}
    items.sort(key=lambda item: item.path not in long_files)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Leave files to the system's cache: only a power cut loses them, and each small search waits 150 times."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


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


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plot is drawn, each is an empty file: to draw them takes a third of the time of a small search."""

    def save_nothing(draw: Callable[[], Figure], directory: Path, stem: str) -> str:
        for ending in ("png", "svg"):
            write_text(directory / f"{stem}.{ending}", "<svg></svg>")
        return "<svg></svg>"

    for module in (comparison, heat_maps, pareto, progress, unseen):
        monkeypatch.setattr(module, "save_plot", save_nothing)
