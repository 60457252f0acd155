"""The outcome of a run, its files, its front in one line, and the command that repeats it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import optuna

from objectives.errors import InputError
from results.formatting import command, maps, nats
from results.outcome import Outcome
from results.pareto import front
from results.statistics.candidates import Candidates
from results.statistics.picks import headline_limits, pick
from search.allocation.phases import MEASURING
from search.run.profile import Profile, checked_profile, given_as
from search.run.progress import BY_SIGNAL, REFRESH_S, SEARCHING, Phase, read_phase
from search.run.run_directory import RunDirectory
from search.storage.stores import Store
from search.study.reading import load_study, outcome
from search.study.study import THEN

if TYPE_CHECKING:
    from results.statistics.analysis import Analysis

log = logging.getLogger("bitfront")

_REFRESH_SHARE = 0.02  # of the search's time may go into updating the run's files


def read_outcome(run: RunDirectory, margin: float | None = None) -> Outcome:
    """Return the outcome of a run, read from its files; see ``outcome_of_run``."""
    run.read_settings()  # raises first if there is no run
    return outcome_of_run(load_study(run.place()), run, margin)


def outcome_of_run(study: optuna.Study, run: RunDirectory, margin: float | None = None) -> Outcome:
    """Return the outcome of a run's study, with the run's margin and command.

    Args:
        study: the run's study.
        run: its directory.
        margin: overrides the run's margin.

    Raises:
        InputError: the run's settings cannot be read, or the margin is out of range.
    """
    settings = run.read_settings()
    profile = settings["profile"]
    margin = profile["margin"] if margin is None else checked_profile(profile | {"margin": margin}, run.name).margin
    result = outcome(study, run.name)
    # No single command repeats a run that was continued with another sampler.
    resampled = THEN in dict(result.provenance).get("sampler", "")
    command = "" if resampled else command_of(profile, run, len(result.trials))
    start = settings.get("start", {})
    phase = read_phase(run)  # of a search that runs, or was killed
    if "ended" not in start and phase is not None and phase[0].name == MEASURING:
        start["sensitivities"] = f"{phase[0].done} of {phase[0].total}"
    unfinished = unfinished_because(start, len(result.trials), profile["trials"])
    return replace(result, margin=margin, command=command, unfinished=unfinished)


@dataclass
class RunFiles:
    """The files that show a run, updated while it is searched.

    Attributes:
        run: the run's directory.
        store: the storage of its study.
        study: its study.
        should_stop: once true, an unreachable storage is not waited for.
        front: the front in one line, as of the last update; empty before the first.
    """

    run: RunDirectory
    store: Store
    study: optuna.Study
    should_stop: Callable[[], bool]
    front: str = ""
    _updated_at: float = float("-inf")
    _cost_s: float = 0.0

    def write(self) -> Analysis:
        """Analyse the study as it is now, and write the run's tables, plots, report and bit maps."""
        return self.store.patiently(self._write, self.should_stop)

    def update_if_due(self) -> None:
        """Write the files if that is long enough ago for what it cost; if that fails, only warn."""
        began = time.monotonic()
        if began - self._updated_at < max(REFRESH_S, self._cost_s / _REFRESH_SHARE):
            return
        self.front = self.store.patiently(self._try_to_write, self.should_stop) or self.front
        self._updated_at = time.monotonic()
        self._cost_s = self._updated_at - began

    @contextmanager
    def written_on_failure(self) -> Iterator[None]:
        """Write the files if an error ends the search."""
        try:
            yield
        except BaseException as error:
            # A second Ctrl-C may come while the files are written: write all again, so that they agree.
            with suppress(OSError, InputError):  # the user must see the first error
                self.store.patiently(lambda: self._write(has_ended=True), lambda: True)
            if isinstance(error, (OSError, MemoryError)):
                log.warning("all finished maps are recorded; start the same command again to continue")
            raise

    def _write(self, has_ended: bool = False) -> Analysis:
        # Imported here because pandas is slow to import and `status` does without.
        from results.report.report import write_report
        from results.statistics.analysis import analyse

        analysis = analyse(outcome_of_run(self.study, self.run))
        write_report(analysis, self.run.path, "" if has_ended else running_line(self.run, len(analysis.outcome.trials)))
        return analysis

    def _try_to_write(self) -> str:
        try:
            return front_line(self._write().outcome)
        except (OSError, InputError) as error:  # no result is lost: the storage has them
            log.warning("cannot write the report for now (%s); the search goes on", error)
            return ""


def running_line(run: RunDirectory, trials: int) -> str:
    """Return how far a run's search is, as ``searching: 40/150, 9 min left``; empty if its settings say that it ended.

    ``trials`` is how many maps have been evaluated: the phase's own record may be some seconds older.
    Only the process that holds the run's lock, or that has seen that another holds it, knows that the search is alive.
    """
    if "ended" in run.read_settings().get("start", {"ended": None}):
        return ""
    record = read_phase(run)
    phase = Phase(SEARCHING) if record is None else record[0]
    return (replace(phase, done=trials) if phase.name == SEARCHING else phase).line


def unfinished_because(start: Mapping[str, Any], trials: int, trial_limit: int) -> str:
    """Return why a run is not complete, without a full stop; empty if it is, or if run.toml does not say.

    Args:
        start: the table of run.toml with the facts of its last start.
        trials: how many maps have been evaluated.
        trial_limit: how many were wanted; 0 for no limit.
    """
    evaluated = f"{trials:,} of {trial_limit:,} trials" if trial_limit else f"{trials:,} trials"
    again = "the same command continues it"
    if not start:
        return ""
    if measured := start.get("sensitivities"):
        evaluated += f" and {measured} sensitivities (kept)"
    if "ended" not in start:
        return f"after {evaluated} it was still running when this was written, or was interrupted; {again}"
    if start.get("by") == BY_SIGNAL:
        return f"a signal stopped it after {evaluated}; {again}"
    if measured:
        return f"its time was over after {evaluated}; {again}"
    if waiting := start.get("waiting"):
        return (
            f"its final checks had no time for {maps(int(waiting))}, those that picks and verdict need least; "
            "the same command scores them"
        )
    return ""


def front_line(outcome: Outcome) -> str:
    """Return the front in one line: its number of maps, and the damage of the pick at each size in the report."""
    candidates = Candidates.of(outcome)
    damages = []
    for request, _ in headline_limits(outcome):
        with suppress(InputError):  # no map is that small yet
            trial = pick(outcome, request, candidates)
            if trial.scores is not None:
                damages.append(f"{request.removeprefix('best@')} {nats(trial.scores.damage)}")
    line = f"front of {maps(len(front(outcome)))}"
    return f"{line}; damage at {', '.join(damages)}" if damages else line


def command_of(profile: Mapping[str, Any], run: RunDirectory, trials: int) -> str:
    """Return the command that repeats a run: up to its number of trials, or its limits if it has none yet."""
    arguments: list[object] = ["search", "--run", run.path]
    for field in fields(Profile):
        value = profile[field.name]
        if value in (field.default, []) or (trials and field.name in ("trials", "hours")):
            continue
        arguments += given_as(field.name, value)
    if trials:
        arguments += ["--trials", trials]
    return command(*arguments)
