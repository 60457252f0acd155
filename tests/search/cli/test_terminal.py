import io
from dataclasses import replace

import pytest

from results.formatting import duration
from search.cli.options import PipeSafeConsole
from search.cli.terminal import progress_display, status_line
from search.run.progress import Phase, Progress


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


HALFWAY = Progress(trials=40, trial_limit=150, elapsed_s=60.0, left_s=165.0, rate_per_s=2 / 3, front="front of 3")


def test_the_status_line_says_trials_rate_and_time_left() -> None:
    assert status_line(HALFWAY) == f"40/150 trials, 40.0 a minute, {duration(165.0)} left"
    endless = Progress(trials=7, trial_limit=0, elapsed_s=60.0, left_s=None, rate_per_s=0.1, front="")
    assert status_line(endless) == "7 trials, 6.0 a minute"


def test_the_time_left_counts_the_final_checks() -> None:
    line = status_line(replace(HALFWAY, checks_s=240.0))
    assert line == f"40/150 trials, 40.0 a minute, {duration(165.0)} left, then up to 4 min of final checks"


def test_a_pipe_gets_a_line_for_each_phase_and_others_now_and_then() -> None:
    said = io.StringIO()
    with progress_display(PipeSafeConsole(file=said, force_terminal=False, width=200)) as display:
        display.phase(Phase("measuring sensitivities", 3, 228, 90.0))
        for _ in range(5):
            display.trials(HALFWAY)  # within half a minute of the first line
    assert said.getvalue().splitlines() == [
        "measuring sensitivities: 3/228, 90 s left",
        f"{status_line(HALFWAY)}; front of 3",
    ]


def test_a_log_whose_colours_are_forced_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    said = io.StringIO()
    console = PipeSafeConsole(file=said, width=200)
    assert console.is_terminal  # so rich would draw
    with console.waiting("starting"), progress_display(console) as display:
        display.phase(Phase("measuring sensitivities", 3, 228, 90.0))
        display.trials(HALFWAY)
    assert said.getvalue().splitlines() == [
        "measuring sensitivities: 3/228, 90 s left",
        f"{status_line(HALFWAY)}; front of 3",
    ]
    console.message("red", "red")
    assert "\x1b[31mred" in said.getvalue()


def test_a_reader_that_goes_away_ends_nothing() -> None:
    class Gone(Terminal):
        error: OSError | None = None

        def write(self, text: str) -> int:
            if self.error is not None:
                raise self.error
            return super().write(text)

    pipe = Gone()
    console = PipeSafeConsole(file=pipe, force_terminal=False)
    with progress_display(console) as display:
        pipe.error = BrokenPipeError()
        display.trials(HALFWAY)
    assert console.quiet
    terminal = Gone()
    with progress_display(PipeSafeConsole(file=terminal, force_terminal=True)) as display:
        display.trials(HALFWAY)
        terminal.error = OSError(5, "Input/output error")


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    said = Terminal()
    console = PipeSafeConsole(file=said, force_terminal=True, width=120, color_system=None)
    with progress_display(console) as display:
        display.phase(Phase("measuring sensitivities", 3, 228, 90.0))
        display.trials(HALFWAY)
    assert "40/150 trials" in said.getvalue()
    assert "front of 3" in said.getvalue()
    assert said.getvalue().endswith("\x1b[2K")
