"""The final checks of a search: its maps are scored in FP32, then on unseen sentences, then on the holdout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from objectives.errors import InputError
from results.statistics.analysis import select
from search.run.holdout_check import check_holdout
from search.run.reporting import outcome_of_run
from search.run.run_directory import RunDirectory
from search.run.unseen_check import DamageElsewhere, check_on_unseen, unseen_candidates
from search.run.worker import Worker
from search.samplers.guided import GuidedSampler
from search.study.study import record_fp32_scores

log = logging.getLogger("bitfront")


Show = Callable[[str, int, int], object]
"""Called with what is being scored, how many maps are scored and how many are to be."""


def run_final_checks(worker: Worker, run: RunDirectory, show: Show) -> None:
    """Score the maps that a search ends with in three steps; each step chooses its maps by the scores before it.

    A signal stops it, and the next start continues.

    Raises:
        InputError: a map has no score in FP32.
        StorageLostError: the storage stayed away.
    """
    store, study, problem = worker.store, worker.study, worker.problem
    expected = study.sampler.damage_elsewhere if isinstance(study.sampler, GuidedSampler) else None

    def in_fp32() -> None:
        _confirm_shown(worker, run, expected, partial(show, "confirming in FP32"))

    def on_unseen() -> None:
        check_on_unseen(
            problem,
            study,
            outcome_of_run(study, run),
            worker.profile.unseen,
            worker.should_stop,
            expected,
            partial(show, "scoring on unseen sentences"),
        )

    def on_holdout() -> None:
        check_holdout(problem, store, study, outcome_of_run(study, run))

    store.patiently(in_fp32, worker.should_stop)
    for step in (on_unseen, on_holdout):
        if not worker.should_stop():
            store.patiently(step, worker.should_stop)


def _confirm_shown(
    worker: Worker, run: RunDirectory, expected: DamageElsewhere | None, show: Callable[[int, int], object]
) -> None:
    """Score in FP32 all that the report shows or picks from, if it was scored in another precision.

    New scores can change the front and the picks, so this repeats until nothing is left to score, or a signal comes.
    """
    study, problem = worker.study, worker.problem
    exact = problem.evaluator.precision
    while problem.search_evaluator.precision != exact or worker.store.shared:  # others may search in another precision
        selection = select(outcome_of_run(study, run))
        picked_from = unseen_candidates(selection, expected) if worker.profile.unseen else []
        needed = {trial.number: trial for trial in (*selection.shown, *picked_from)}
        inexact = [trial for trial in needed.values() if trial.precision != exact]
        if not inexact:
            return
        log.info("confirming %d maps of the front, the picks and the baselines in FP32", len(inexact))
        for done, trial in enumerate(inexact):
            show(done, len(inexact))
            if worker.should_stop():
                log.warning("not all maps are confirmed in FP32; start the run again")
                return
            try:
                evaluation = problem.confirm(trial.bit_map)
            except ValueError as error:
                raise InputError(f"{trial.label} has no score in FP32: {error}; search with --precision fp32") from None
            record_fp32_scores(study, trial.number, evaluation)
