"""The final checks of a search: scores in FP32, then on unseen sentences, then on the holdout set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from objectives.errors import InputError, NotFiniteError
from results.statistics.analysis import select
from search.run.holdout_check import check_holdout
from search.run.reporting import outcome_of_run
from search.run.run_directory import RunDirectory
from search.run.unseen_check import DamageElsewhere, check_on_unseen, unseen_candidates
from search.run.worker import Worker
from search.samplers.guided import GuidedSampler
from search.study.study import record_fp32_scores

log = logging.getLogger("bitfront")


def run_final_checks(worker: Worker, run: RunDirectory, report_progress: Callable[[str, int, int], object]) -> None:
    """Score the search's best maps again, in three steps; each step chooses its maps by the scores so far.

    A signal stops the checks, and the next start of the search continues them.

    Args:
        worker: of this process.
        run: the run's directory.
        report_progress: called with the step, the number of maps scored in it, and their total.

    Raises:
        InputError: a map has no score in FP32.
        StorageLostError: the storage cannot be reached any more.
    """
    store, study, problem = worker.store, worker.study, worker.problem
    damage_elsewhere = study.sampler.damage_elsewhere if isinstance(study.sampler, GuidedSampler) else None

    def in_fp32() -> None:
        _score_in_fp32(worker, run, damage_elsewhere, partial(report_progress, "scoring in FP32"))

    def on_unseen() -> None:
        outcome, show = outcome_of_run(study, run), partial(report_progress, "scoring on unseen sentences")
        check_on_unseen(problem, study, outcome, worker.profile.unseen, worker.should_stop, damage_elsewhere, show)

    def on_holdout() -> None:
        check_holdout(problem, store, study, outcome_of_run(study, run))

    store.patiently(in_fp32, worker.should_stop)
    for step in (on_unseen, on_holdout):
        if not worker.should_stop():
            store.patiently(step, worker.should_stop)


def _score_in_fp32(
    worker: Worker,
    run: RunDirectory,
    damage_elsewhere: DamageElsewhere | None,
    report_progress: Callable[[int, int], object],
) -> None:
    """Score in FP32 every map that the report shows or picks from and that was scored in another precision.

    New scores can change the front and the picks, so this repeats until no such map is left or a signal comes.
    """
    study, problem = worker.study, worker.problem
    exact = problem.evaluator.precision
    # In a shared store, other machines may search in another precision.
    while problem.search_evaluator.precision != exact or worker.store.shared:
        selection = select(outcome_of_run(study, run))
        candidates = unseen_candidates(selection, damage_elsewhere) if worker.profile.unseen else []
        reported = {trial.number: trial for trial in (*selection.shown, *candidates)}
        inexact = [trial for trial in reported.values() if trial.precision != exact]
        if not inexact:
            return
        log.info("scoring %d maps of the front, the picks and the baselines in FP32", len(inexact))
        for done, trial in enumerate(inexact):
            report_progress(done, len(inexact))
            if worker.should_stop():
                log.warning("some maps are not scored in FP32 yet; start the search again")
                return
            try:
                evaluation = problem.confirm(trial.bit_map)
            except NotFiniteError as error:
                raise InputError(f"{trial.label} has no score in FP32: {error}; search with --precision fp32") from None
            record_fp32_scores(study, trial.number, evaluation)
