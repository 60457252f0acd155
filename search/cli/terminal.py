"""What a person sees of a search: a progress bar on a terminal, plain lines elsewhere, and the answer at its end."""

from __future__ import annotations

import logging
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as ProgressBar

from results.formatting import duration
from results.statistics.analysis import Analysis
from search.run.progress import REFRESH_S, Display, Progress

MOST_COLUMNS = 100
"""How wide a line of the answer may be."""


def log_to_console(console: Console) -> None:
    """Send the product's log, from INFO up, to the console."""
    log = logging.getLogger("bitfront")
    log.setLevel(logging.INFO)
    handler = RichHandler(console=console, show_path=False, show_level=False, markup=False, log_time_format="%H:%M:%S")
    handler.setLevel(logging.INFO)
    log.handlers = [handler]


@contextmanager
def progress_display(console: Console) -> Iterator[Display]:
    """Provide the display that shows how far the search is."""
    if not console.is_terminal:
        yield _PlainLines(console)
        return
    columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
    bar = ProgressBar(*columns, console=console, transient=True, refresh_per_second=4)
    bar.start()
    try:
        yield _Bar(bar, bar.add_task("starting", total=None))
    finally:
        with suppress(OSError):  # the terminal may have gone away
            bar.stop()


def answer(found: Analysis, run: Path) -> str:
    """Return what a search ends with, as wide as the terminal within 80 to 100 characters."""
    # pandas takes a while to import, and `status` prints no table.
    from results.report.summary import ending_lines, export_commands

    packed = f"--format packed --out {shlex.quote(f'{run}-packed')}"
    commands = export_commands(found, str(run), packed)
    width = max(80, min(MOST_COLUMNS, shutil.get_terminal_size((MOST_COLUMNS, 24)).columns))
    return "\n".join(ending_lines(found, str(run), commands[0] if commands else "", width))


def status_line(progress: Progress) -> str:
    """Return evaluations, rate and time left in words."""
    wanted = f"/{progress.trials_wanted}" if progress.trials_wanted else ""
    left = f", {duration(progress.left_s)} left" if progress.left_s is not None else ""
    return f"{progress.trials}{wanted} trials, {60 * progress.rate_per_s:.1f} a minute{left}"


@dataclass(frozen=True)
class _Bar:
    bar: ProgressBar
    task: TaskID

    def sensitivities(self, done: int, wanted: int) -> None:
        self.bar.update(self.task, completed=done, total=wanted, description=_measuring(done, wanted))

    def trials(self, progress: Progress) -> None:
        self.bar.update(
            self.task,
            completed=progress.trials,
            total=progress.trials_wanted or None,
            description=f"{status_line(progress)}\n{progress.front}",
        )

    def closing(self, what: str, done: int, wanted: int) -> None:
        self.bar.update(self.task, completed=done, total=wanted, description=f"{what}: {done}/{wanted} maps")


class _PlainLines:
    """At most one line in each ``REFRESH_S`` seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = -REFRESH_S

    def sensitivities(self, done: int, wanted: int) -> None:
        self._print(_measuring(done, wanted))

    def trials(self, progress: Progress) -> None:
        self._print(f"{status_line(progress)}; {progress.front}")

    def closing(self, what: str, done: int, wanted: int) -> None:
        self._print(f"{what}: {done}/{wanted} maps")

    def _print(self, line: str) -> None:
        if time.monotonic() - self._shown >= REFRESH_S:
            self._shown = time.monotonic()
            self._console.print(line, soft_wrap=True, highlight=False)


def _measuring(done: int, wanted: int) -> str:
    return f"sensitivities: {done}/{wanted} measured"
