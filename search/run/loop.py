"""The search: propose, evaluate and record maps, and update the run's files, until the budget ends or a signal."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import optuna
import torch

from objectives.errors import InputError
from objectives.problem import Problem, cache_directory, polishing_sentences
from results.plots.heat_maps import write_sensitivity_plot
from results.report.report import write_report
from results.statistics.analysis import Analysis, analyse
from search.allocation.baselines import all_baselines
from search.allocation.sensitivity import Sensitivities, measure
from search.run.final_checks import run_final_checks
from search.run.logs import log_start, logging_to
from search.run.polishing import maps_to_polish, polish_maps
from search.run.profile import GUIDED, Profile, resolved_places
from search.run.progress import BY_SIGNAL, REFRESH_S, Display, Progress, time_left
from search.run.reporting import front_line, outcome_of_run
from search.run.run_directory import RunDirectory
from search.run.signals import stop_requests
from search.run.worker import Job, Worker, constraint_of, load_searched_problem, make_sampler
from search.run.worker_pool import WorkerPool
from search.samplers.guided import GuidedSampler
from search.storage.stores import Place, Store, redacted
from search.study.study import check_joinable, open_study
from search.study.trials import begun, exhausted, finished

log = logging.getLogger("bitfront")

_PAUSE_S = 0.5
_REFRESH_SHARE = 0.02  # of the search's time may go into updating the run's files


def run_search(
    profile: Profile, run: RunDirectory, display: Display, storage_url: str = "", given: Mapping[str, str] | None = None
) -> Analysis:
    """Search until the profile's budget ends or SIGINT, SIGTERM or SIGHUP comes; return the analysis.

    After a first signal the current evaluation finishes; a second SIGINT raises KeyboardInterrupt. In both cases the
    run's files show every recorded map.

    Args:
        profile: the settings.
        run: a new run, or one to continue.
        display: shows the progress.
        storage_url: a database that machines share; empty for the one that the run has, or its journal.
        given: settings to record as they were given, if the profile has paths that they resolved to.

    Raises:
        InputError: the profile's model, sentences or constraint cannot be used.
        InputError: the run belongs to a search with other settings, or the storage cannot be opened.
        StorageLostError: the database cannot be reached any more.
    """
    started = time.monotonic()
    start: dict[str, Any] = {"at": datetime.now(UTC), "workers": profile.workers, "process": os.getpid()}
    with ExitStack() as resources:
        place, store, problem = _prepare(profile, run, storage_url, resources)
        should_stop = resources.enter_context(stop_requests())
        versions = _versions()
        # A continued run keeps the codes that its study began with.
        codes = run.read_settings()["fingerprint"].get("codes", "") if run.exists() else ""

        def write_settings() -> None:
            fingerprint = {**problem.fingerprint, "codes": codes or problem.codes}
            settings = profile.to_dict()
            resolved = resolved_places(settings)
            run.write_settings(settings | dict(given or {}), fingerprint, versions, place, start, resolved)

        write_settings()
        run.clean_up()
        budget = _Budget(profile, started, should_stop)
        sensitivities = _measure_sensitivities(profile, problem, run, budget, display)
        constraint = constraint_of(profile, problem)
        baselines, reference_note = all_baselines(problem, constraint, sensitivities)
        # A search that is stopped while measuring still opens its study, so that it has a report.
        sampler_name = "random" if sensitivities is None and profile.sampler == GUIDED else profile.sampler
        sampler = make_sampler(sampler_name, problem, constraint, sensitivities, profile.seed)
        if isinstance(sampler, GuidedSampler):
            log.info("interaction shrinkage %.2f (0 treats layers as independent)", sampler.shrinkage)
        if store is None:
            store = place.open(recover=True)

        def open_locked(store: Store = store) -> optuna.Study:
            with store.exclusive():
                return open_study(
                    store.backend,
                    problem,
                    profile.quality,
                    constraint,
                    sampler,
                    baselines,
                    reference_note,
                    _provenance(profile, problem, versions),
                    store.study_name,
                    store.shared,
                )

        study = store.patiently(open_locked, should_stop)
        store.patiently(lambda: log_start(profile, run, problem, study), should_stop)
        worker = Worker(store, study, problem, constraint, profile, should_stop)
        job = Job(profile, sampler_name, place, problem.fingerprint, max(1, torch.get_num_threads() // profile.workers))
        analysis, out_of_maps = _loop(worker, job, run, budget, display)
        if profile.polish and not should_stop():
            trials = maps_to_polish(analysis)
            polish_maps(problem, analysis.outcome, trials, run, profile.seed, should_stop=should_stop)
            write_report(analysis, run.path)
        end = "running out of maps" if out_of_maps else "its budget"
        start |= {"ended": datetime.now(UTC), "by": BY_SIGNAL if should_stop() else end}
        write_settings()
        return analysis


def _prepare(
    profile: Profile, run: RunDirectory, storage_url: str, resources: ExitStack
) -> tuple[Place, Store | None, Problem]:
    """Lock the run, open its database if it has one, load its problem, and check that they fit together.

    An existing run is locked first. A new run gets its directory last, so that a mistake leaves none behind.
    """

    def lock() -> None:
        resources.enter_context(run.locked())
        resources.enter_context(logging_to(run))

    existing = run.exists()
    if existing:
        lock()
        run.check_same(profile.objective, run.read_settings()["profile"])
    place = run.place(storage_url)
    if existing and not place.url:
        run.check_journal()
    store = place.open() if place.url else None  # reports its faults before the model is loaded
    problem = load_searched_problem(profile, log.info)
    constraint = constraint_of(profile, problem)
    if profile.polish:
        polishing_sentences(problem)  # raises before the search, if there are none
    if store is not None:
        recorded = run.place().url if existing else ""
        moved_from = recorded if recorded != redacted(place.url) else ""
        arguments = (store.backend, store.study_name, problem, profile.quality, constraint, moved_from)

        def check(store: Store = store) -> None:
            with store.exclusive():  # another machine may be creating the study
                check_joinable(*arguments)

        store.patiently(check, lambda: False)
    if not existing:
        lock()
        existing = run.exists()  # another process may have created it meanwhile
    if existing:
        # The holdout set must be the same as before, too.
        settings = run.read_settings()
        run.check_same(profile.objective, settings["profile"])
        run.check_same({"confirmation": None, **problem.fingerprint}, settings["fingerprint"])
    return place, store, problem


@dataclass(frozen=True)
class _Budget:
    """The limits of this start of a search; a signal ends it too."""

    profile: Profile
    started: float
    should_stop: Callable[[], bool]

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def is_over(self) -> bool:
        """Return whether the time is up or a signal has come."""
        limit_s = self.profile.hours * 3600
        return self.should_stop() or bool(limit_s and self.elapsed_s >= limit_s)

    def allows(self, trials: int) -> bool:
        """Return whether the search may go on after this many trials."""
        return not (self.is_over() or (self.profile.trials and trials >= self.profile.trials))


def _loop(worker: Worker, job: Job, run: RunDirectory, budget: _Budget, display: Display) -> tuple[Analysis, bool]:
    """Search until the budget ends or no map is left; return the analysis, and whether no map was left."""
    store, study = worker.store, worker.study
    began = time.monotonic()

    def count() -> int:
        return store.patiently(lambda: finished(study), budget.should_stop)

    def no_map_left() -> bool:  # a running trial may fail, and its map be tried again
        return store.patiently(lambda: exhausted(study) and begun(study) == finished(study), budget.should_stop)

    out_of_maps = no_map_left()
    done_before = done = count()
    front = ""
    refreshed_at, refresh_cost_s = float("-inf"), 0.0
    try:
        with _evaluating(worker, job, needed=budget.allows(done) and not out_of_maps) as evaluate:
            while budget.allows(done) and not out_of_maps:
                has_changed = evaluate()
                out_of_maps = no_map_left()
                if not has_changed:
                    continue
                done = count()
                now = time.monotonic()
                if now - refreshed_at >= max(REFRESH_S, refresh_cost_s / _REFRESH_SHARE):
                    front = store.patiently(lambda: _try_to_refresh(study, run), budget.should_stop) or front
                    refreshed_at = time.monotonic()
                    refresh_cost_s = refreshed_at - now
                rate = (done - done_before) / (time.monotonic() - began)
                display.trials(_progress(job.profile, done, budget.elapsed_s, rate, front))
        run_final_checks(worker, run, display.final_check)
        analysis = store.patiently(lambda: refresh(study, run), budget.should_stop)
    except BaseException as error:
        # A second Ctrl-C may come while the files are written: write all again, so that they agree.
        with suppress(OSError, InputError):  # the user must see the first error
            store.patiently(lambda: refresh(study, run), lambda: True)
        if isinstance(error, (OSError, MemoryError)):
            log.warning("all finished maps are recorded; start the same command again to continue")
        raise
    end = "no further map meets the constraint" if out_of_maps else "budget reached"
    log.info("%s", "stopped by a signal" if budget.should_stop() else end)
    return analysis, out_of_maps


@contextmanager
def _evaluating(worker: Worker, job: Job, needed: bool) -> Iterator[Callable[[], bool]]:
    """Yield a function that waits for an evaluation and returns whether the study may have changed.

    A worker pool starts only if ``needed`` and the profile has several workers.
    """
    if job.profile.workers == 1 or not needed:

        def evaluate_here() -> bool:
            if worker.evaluate_next():
                return True
            time.sleep(_PAUSE_S)  # other processes evaluate the last maps
            return worker.store.shared

        yield evaluate_here
        return
    log.info("%d workers with %d threads each", job.profile.workers, job.threads)
    pool = WorkerPool(job, worker.store, worker.study, [layer.name for layer in worker.problem.layers])
    try:
        yield lambda: bool(pool.watch(_PAUSE_S)) or worker.store.shared
        pool.shutdown()
    finally:
        pool.kill()


def _try_to_refresh(study: optuna.Study, run: RunDirectory) -> str:
    """Update the run's files and return the front in one line; empty if the files cannot be read or written."""
    try:
        return front_line(refresh(study, run).outcome)
    except (OSError, InputError) as error:  # no result is lost: the storage has them
        log.warning("cannot write the report for now (%s); the search goes on", error)
        return ""


def refresh(study: optuna.Study, run: RunDirectory) -> Analysis:
    """Analyse the study as it is now, and write the run's tables, plots, report and bit maps."""
    analysis = analyse(outcome_of_run(study, run))
    write_report(analysis, run.path)
    return analysis


def _measure_sensitivities(
    profile: Profile, problem: Problem, run: RunDirectory, budget: _Budget, display: Display
) -> Sensitivities | None:
    if profile.sensitivity == "none":
        return None
    started = time.monotonic()
    measured = measure(problem, cache_directory(), profile.sensitivity, display.sensitivities, budget.is_over)
    if measured is not None:
        write_sensitivity_plot(problem.layers, measured.damages, measured.measured, run.path)
        log.info("sensitivities of %d layers after %.0f s", len(problem.layers), time.monotonic() - started)
    return measured


def _progress(profile: Profile, done: int, elapsed_s: float, rate: float, front: str) -> Progress:
    left_s = time_left(done, profile.trials, rate, profile.hours, elapsed_s)
    return Progress(done, profile.trials, elapsed_s, left_s, rate, front)


def _versions() -> dict[str, str]:
    packages = ("bitfront", "torch", "transformers", "optuna", "numpy")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def _provenance(profile: Profile, problem: Problem, versions: dict[str, str]) -> list[tuple[str, str]]:
    return [
        ("sampler", f"{profile.sampler}, seed {profile.seed}"),
        *((f"fingerprint of {key}", value) for key, value in problem.fingerprint.items()),
        *versions.items(),
        ("machine", f"{platform.machine()}, {torch.get_num_threads()} threads, {platform.system()}"),
    ]
