"""What a search prints: a progress bar on a terminal, plain lines elsewhere, and a summary at its end."""

from __future__ import annotations

import logging
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
from search.cli.options import PipeSafeConsole
from search.run.progress import REFRESH_S, SEARCHING, Display, Phase, Progress

_MAX_COLUMNS = 100


def log_to_console(console: Console) -> None:
    """Show log records of level INFO and above on the console."""
    log = logging.getLogger("bitfront")
    log.setLevel(logging.INFO)
    handler = RichHandler(console=console, show_path=False, show_level=False, markup=False, log_time_format="%H:%M:%S")
    handler.setLevel(logging.INFO)
    log.handlers = [handler]


@contextmanager
def progress_display(console: PipeSafeConsole) -> Iterator[Display]:
    """Provide a display of the search's progress."""
    if not console.can_animate:
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


def summary(analysis: Analysis, run: Path) -> str:
    """Return the text that a search ends with, as wide as the terminal within 80 to 100 characters."""
    # Imported here because pandas is slow to import and `status` does without.
    from results.report.distilled import read_distilled
    from results.report.summary import checkpoint_command, ending_lines

    width = max(80, min(_MAX_COLUMNS, shutil.get_terminal_size((_MAX_COLUMNS, 24)).columns))
    export = checkpoint_command(analysis, str(run))
    return "\n".join(ending_lines(analysis, str(run), export, width, read_distilled(run)))


def status_line(progress: Progress) -> str:
    """Return trials, rate and time left, as ``40/150 trials, 12.0 a minute, 9 min left``; then the final checks."""
    limit = f"/{progress.trial_limit}" if progress.trial_limit else ""
    left = f", {duration(progress.left_s)} left" if progress.left_s is not None else ""
    if progress.checks_s and left:
        left += f", then up to {duration(progress.checks_s)} of final checks"
    return f"{progress.trials}{limit} trials, {60 * progress.rate_per_s:.1f} a minute{left}"


@dataclass(frozen=True)
class _Bar:
    bar: ProgressBar
    task: TaskID

    def phase(self, phase: Phase) -> None:
        self.bar.update(self.task, completed=phase.done, total=phase.total or None, description=phase.line)

    def trials(self, progress: Progress) -> None:
        self.bar.update(
            self.task,
            completed=progress.trials,
            total=progress.trial_limit or None,
            description=f"{status_line(progress)}\n{progress.front}",
        )


class _PlainLines:
    """Prints a line for each phase, and then at most one every ``REFRESH_S`` seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed, self._printed_at = "", 0.0

    def phase(self, phase: Phase) -> None:
        self._print(phase.name, phase.line)

    def trials(self, progress: Progress) -> None:
        self._print(SEARCHING, f"{status_line(progress)}; {progress.front}")

    def _print(self, phase: str, line: str) -> None:
        if phase != self._printed or time.monotonic() - self._printed_at >= REFRESH_S:
            self._printed, self._printed_at = phase, time.monotonic()
            self._console.print(line, soft_wrap=True, highlight=False)
