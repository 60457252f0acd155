"""A closer look at what a search ends with: in FP32, then on unseen sentences, then on those held back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from objectives.errors import InputError
from results.findings import conclude
from search.confirming import open_confirmation
from search.guided import GuidedSampler
from search.reporting import outcome_of_run
from search.run_directory import RunDirectory
from search.study import confirm
from search.unseen import DamageElsewhere, candidates, check_on_unseen
from search.worker import Worker

log = logging.getLogger("bitfront")


Show = Callable[[str, int, int], object]
"""Told what is being scored, how many maps are and how many are to be."""


def look_closer(worker: Worker, run: RunDirectory, show: Show) -> None:
    """Score what the search ends with in three steps, each of which chooses its maps by the one before.

    A signal ends it, and the next start goes on from there.

    Raises:
        InputError: a map has no score in FP32.
        StorageLostError: the storage stayed away.
    """
    store, study, problem = worker.store, worker.study, worker.problem
    expected = study.sampler.damage_elsewhere if isinstance(study.sampler, GuidedSampler) else None

    def confirm_shown() -> None:
        _confirm_shown(worker, run, expected, partial(show, "confirming in FP32"))

    def check() -> None:
        found = outcome_of_run(study, run)
        check_on_unseen(
            problem,
            study,
            found,
            worker.profile.unseen,
            worker.should_stop,
            expected,
            partial(show, "scoring on unseen sentences"),
        )

    def open_held_back() -> None:
        open_confirmation(problem, store, study, outcome_of_run(study, run))

    store.patiently(confirm_shown, worker.should_stop)
    for step in (check, open_held_back):
        if not worker.should_stop():
            store.patiently(step, worker.should_stop)


def _confirm_shown(
    worker: Worker, run: RunDirectory, expected: DamageElsewhere | None, show: Callable[[int, int], object]
) -> None:
    """Score in FP32 what a search in another precision shows, and what it may pick from.

    All of that can change as scores do, so this goes on until it is confirmed, or a signal comes.
    """
    study, problem = worker.study, worker.problem
    exact = problem.evaluator.precision
    while problem.scout.precision != exact or worker.store.shared:  # others may search in another precision
        found = conclude(outcome_of_run(study, run))
        picked_from = candidates(found, expected) if worker.profile.unseen else []
        told = {trial.number: trial for trial in (*found.shown, *picked_from)}
        scouted = [trial for trial in told.values() if trial.precision != exact]
        if not scouted:
            return
        log.info("confirming %d maps of the front, the picks and the contenders in FP32", len(scouted))
        for done, trial in enumerate(scouted):
            show(done, len(scouted))
            if worker.should_stop():
                log.warning("not all is confirmed in FP32; start the run again")
                return
            try:
                confirmed = problem.confirm(trial.bits)
            except ValueError as error:
                raise InputError(f"{trial.label} has no score in FP32: {error}; search with --precision fp32") from None
            confirm(study, trial.number, confirmed)
