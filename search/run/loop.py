"""The search: propose, evaluate and record maps, and update the run's files, until the budget ends or a signal."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import optuna
import torch

from objectives.cache import cache_directory
from objectives.loading import AUTO
from objectives.loading.fingerprint import Fingerprint
from objectives.problem import Problem
from objectives.training_sentences import distillation_sentences
from results.plots.heat_maps import write_sensitivity_plot
from results.report.report import write_report
from results.statistics.analysis import Analysis
from search.allocation.baselines import first_baselines
from search.allocation.phases import MEASURING
from search.allocation.sensitivity import Sensitivities, measure
from search.run.distilling import EPOCHS, Distillation, distil_maps, maps_to_distil
from search.run.final_checks import most_check_passes, run_final_checks
from search.run.logs import log_start, logging_to, provenance, versions
from search.run.profile import GUIDED, Profile, resolved_places
from search.run.progress import (
    BASELINES,
    BY_BUDGET,
    BY_GAIN,
    BY_NO_MAP,
    BY_SIGNAL,
    DISTILLING,
    PREPARING,
    REPORTING,
    SEARCHING,
    Budget,
    Display,
    PhaseRecord,
    ReportPhase,
    checks_limit_s,
    paced,
    search_hours,
    with_share,
)
from search.run.reporting import RunFiles
from search.run.run_directory import RunDirectory
from search.run.signals import stop_requests
from search.run.worker import Job, Worker, constraint_of, load_searched_problem, make_sampler, with_precision
from search.run.worker_pool import evaluating
from search.samplers.guided import CONFIDENCE, SMALLEST_GAIN, GuidedSampler
from search.storage.stores import Place, Store, redacted
from search.study.study import check_joinable, open_study, precision_of
from search.study.trials import begun, enqueued, exhausted, finished

log = logging.getLogger("bitfront")


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
    phases = PhaseRecord(run, display)
    start: dict[str, Any] = {"at": datetime.now(UTC), "workers": profile.workers, "process": os.getpid()}
    with ExitStack() as resources:
        place, store, problem = _prepare(profile, run, storage_url, phases, resources)
        should_stop = resources.enter_context(stop_requests())
        # A continued run keeps the codes and the precision that it began with.
        before = run.read_settings() if run.exists() else None
        codes = before["fingerprint"].get("codes", "") if before else ""
        asked = replace(profile, metric=problem.metric)
        profile, problem = with_precision(asked, problem, before["profile"]["precision"] if before else "auto")

        def write_settings() -> None:
            fingerprint = {**problem.fingerprint, "codes": codes or problem.codes}
            settings = profile.to_dict()
            resolved = resolved_places(settings)
            run.write_settings(settings | dict(given or {}), fingerprint, versions(), place, start, resolved)

        write_settings()
        resources.callback(phases.end)
        run.clean_up()
        whole = Budget(profile, started, should_stop)
        budget = Budget(replace(profile, hours=search_hours(profile.hours, profile.distill)), started, should_stop)
        constraint = constraint_of(profile, problem.footprint)
        baselines, reference_note = first_baselines(problem.layers, profile.widths)
        # The guided sampler waits for sensitivities; until then no map is proposed.
        first_sampler = "random" if profile.sampler == GUIDED else profile.sampler
        sampler = make_sampler(first_sampler, problem, constraint, None, profile.seed)
        if store is None:
            store = place.open(recover=True, should_stop=should_stop)

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
                    provenance(profile, problem),
                    store.study_name,
                    store.shared,
                )

        study = store.patiently(open_locked, should_stop)
        if before is None and precision_of(study) != profile.precision:  # another machine has begun the study
            profile, problem = with_precision(asked, problem, precision_of(study))
            write_settings()
        store.patiently(lambda: log_start(profile, run, problem, study), should_stop)
        worker = Worker(store, study, problem, constraint, profile, should_stop)
        job = Job(profile, place, problem.fingerprint, max(1, torch.get_num_threads() // profile.workers))

        def record_end(end: str, waiting: int) -> None:
            start.update(ended=datetime.now(UTC), by=BY_SIGNAL if should_stop() else end, waiting=waiting)
            write_settings()

        files = RunFiles(run, store, study, should_stop)
        with files.written_on_failure():
            recorded = store.patiently(lambda: finished(study), should_stop)
            if profile.sensitivity != "none":
                trial_s = _score_enqueued(worker, budget, phases)
                scored = store.patiently(lambda: finished(study), should_stop)
                report_phase = with_share(phases, budget, scored, trial_s)
                sensitivities = _measure_sensitivities(profile, problem, files, budget, report_phase, start)
                if sensitivities is not None:
                    worker.search_with(sensitivities)
            analysis = _loop(worker, job, files, budget, phases, recorded, record_end)
        if profile.distill != "none" and not whole.is_over():
            phases(DISTILLING)
            distil_maps(
                problem,
                analysis.outcome,
                maps_to_distil(analysis, between=profile.hours > 0),
                run,
                Distillation(profile.distill, EPOCHS[profile.distill], profile.seed),
                profile.unseen,
                phases,
                whole.is_over,
                whole.left_s,
            )
            write_report(analysis, run.path)
            start |= {"ended": datetime.now(UTC), "by": BY_SIGNAL if should_stop() else start["by"]}
            write_settings()
        return analysis


def _prepare(
    profile: Profile, run: RunDirectory, storage_url: str, phases: PhaseRecord, resources: ExitStack
) -> tuple[Place, Store | None, Problem]:
    """Lock the run, open its database if it has one, load its problem, and check that they fit together.

    An existing run is locked first. A new run gets its directory last, so that a mistake leaves none behind.
    """

    def lock() -> None:
        resources.enter_context(run.locked())
        resources.enter_context(logging_to(run))

    def check_problem(identity: Fingerprint) -> None:
        if run.exists():  # the holdout set must be the same as before, too
            run.check_same({"confirmation": None, **identity}, run.read_settings()["fingerprint"])

    run.check_settings(profile)
    existing = run.exists()
    if existing:
        lock()
        run.check_settings(profile)
        resources.callback(phases.end)
    phases(PREPARING)
    place = run.place(storage_url)
    if existing and not place.url:
        run.check_journal()
    store = place.open() if place.url else None  # reports its faults before the model is loaded
    if existing and profile.metric == AUTO:
        profile = replace(profile, metric=run.read_settings()["profile"]["metric"])
    problem = load_searched_problem(profile, log.info, check_problem)
    constraint = constraint_of(profile, problem.footprint)
    if profile.distill != "none":
        distillation_sentences(problem, profile.unseen)  # raises before the search, if there are none
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
        run.check_settings(profile)  # another process may have created it meanwhile
        check_problem(problem.fingerprint)
    return place, store, problem


def _score_enqueued(worker: Worker, budget: Budget, phases: PhaseRecord) -> float | None:
    """Evaluate the maps that wait in the study, so that there is a front before sensitivities are measured.

    Return the seconds that a map took; None if there was none.
    """
    began = time.monotonic()
    store, study = worker.store, worker.study
    waiting = store.patiently(lambda: enqueued(study), budget.should_stop)
    report_progress = paced(phases, BASELINES)
    done = 0
    while waiting and budget.allows(store.patiently(lambda: finished(study), budget.should_stop)):
        report_progress(min(done, waiting), waiting)
        if not worker.evaluate_next(enqueued_only=True):
            break
        done += 1
    return (time.monotonic() - began) / done if done else None


def _loop(
    worker: Worker,
    job: Job,
    files: RunFiles,
    budget: Budget,
    phases: PhaseRecord,
    recorded: int,
    record_end: Callable[[str, int], object],
) -> Analysis:
    """Search until the budget ends or the search is done, make the final checks, and return the analysis.

    ``recorded`` is the number of trials before this start. ``record_end`` is called before the last report with what
    ended the search, and how many maps the checks left out.
    """
    store, study = worker.store, worker.study
    began = time.monotonic()

    def count() -> int:
        return store.patiently(lambda: finished(study), budget.should_stop)

    def reason_to_end() -> str:
        if store.patiently(lambda: exhausted(study) and begun(study) == finished(study), budget.should_stop):
            return BY_NO_MAP  # while a trial runs, it may fail, and its map be tried again
        sampler, profile = study.sampler, job.profile
        if not profile.early_stop or profile.trials or not isinstance(sampler, GuidedSampler):
            return ""
        return BY_GAIN if store.patiently(lambda: sampler.is_done(study), budget.should_stop) else ""

    end = reason_to_end()
    done_before = done = count()
    check_passes = most_check_passes(worker.problem, job.profile)
    needed = budget.allows(done) and not end
    if needed:
        phases(SEARCHING, done, job.profile.trials)
    with evaluating(worker, job, needed) as evaluate:
        while budget.allows(done) and not end:
            has_changed = evaluate()
            end = reason_to_end()
            if not has_changed:
                continue
            done = count()
            files.update_if_due()
            rate = (done - done_before) / (time.monotonic() - began)
            phases.trials(budget.progress(done, rate, files.front, check_passes))
    # A start with nothing to search is there to complete the checks.
    limit_s = checks_limit_s(budget.elapsed_s) if done > recorded else float("inf")
    waiting = run_final_checks(worker, files.run, phases, limit_s)
    phases(REPORTING)
    record_end(end or BY_BUDGET, waiting)
    analysis = files.write()
    log.info("the search ended by %s", BY_SIGNAL if budget.should_stop() else end or BY_BUDGET)
    if end == BY_GAIN:
        log.info("no size is likely to gain %.0f%% (%.0f%% confidence)", 100 * SMALLEST_GAIN, 100 * CONFIDENCE)
        log.info("--no-early-stop goes on all the same")
    return analysis


def _measure_sensitivities(
    profile: Profile,
    problem: Problem,
    files: RunFiles,
    budget: Budget,
    report_phase: ReportPhase,
    start: dict[str, Any],
) -> Sensitivities | None:
    """Return the sensitivities; None if the budget ended first, and ``start`` then says how many are kept."""
    assert profile.sensitivity != "none"
    widths = profile.widths
    started = time.monotonic()

    def report_progress(name: str, done: int, total: int, left_s: float | None) -> None:
        files.update_if_due()  # with the baselines, before the first measurement
        if name == MEASURING:
            start["sensitivities"] = f"{done} of {total}"
        report_phase(name, done, total, left_s)

    measured = measure(problem, cache_directory(), profile.sensitivity, report_progress, budget.is_over, widths)
    if measured is not None:
        start.pop("sensitivities", None)
        write_sensitivity_plot(problem.layers, measured.damages, measured.measured, files.run.path, widths)
        log.info("sensitivities of %d layers after %.0f s", len(problem.layers), time.monotonic() - started)
    return measured
