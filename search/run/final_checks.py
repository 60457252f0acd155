"""The final checks of a search: scores in FP32, then on unseen sentences, then on the holdout set.

They take at most a fifth of the time of a start that searched, or five minutes if that is longer: else the maps that
the picks and the verdict need most come first, and the others wait for the next start. A start that finds nothing to
search completes the checks, whatever it takes. So only the clock of a slow machine decides what waits, never the maps
that are searched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from objectives.errors import InputError, NotFiniteError
from objectives.problem import Problem
from results.outcome import Trial
from results.statistics.analysis import select
from search.run.holdout_check import check_holdout
from search.run.profile import Profile
from search.run.progress import IN_FP32, ON_HOLDOUT, ON_UNSEEN, ReportPhase, paced
from search.run.reporting import outcome_of_run
from search.run.run_directory import RunDirectory
from search.run.unseen_check import (
    MOST_CANDIDATES,
    DamageElsewhere,
    check_on_unseen,
    needed_by_picks,
    unseen_candidates,
)
from search.run.worker import Worker
from search.samplers.guided import GuidedSampler
from search.study.study import record_fp32_scores

log = logging.getLogger("bitfront")

_MOST_ON_HOLDOUT = 12  # the picks, their rivals and the reference
# The holdout set and the report need what is left of the limit.
_FP32_SHARE, _FP32_NEEDED_SHARE, _UNSEEN_SHARE = 0.4, 0.5, 0.8


def most_check_passes(problem: Problem, profile: Profile) -> float:
    """Return the most that the final checks will score, in passes over the search's sentences.

    A search in another precision does not know the pace of FP32, so that only the limit of time bounds it.
    """
    if problem.search_evaluator.precision != problem.evaluator.precision:
        return float("inf")
    sentences = min(profile.trials or MOST_CANDIDATES, MOST_CANDIDATES) * profile.unseen
    if problem.holdout is not None:
        sentences += _MOST_ON_HOLDOUT * len(problem.holdout.labels)
    return sentences / len(problem.labels)


def run_final_checks(
    worker: Worker, run: RunDirectory, report_phase: ReportPhase, limit_s: float = float("inf")
) -> int:
    """Score the search's best maps again, in three steps; each step chooses its maps by the scores so far.

    A signal or the limit ends the checks, and the next start of the search continues them.

    Args:
        worker: of this process.
        run: the run's directory.
        report_phase: called with each step, the number of maps scored in it, and their total.
        limit_s: the most seconds that they may take, but for the map in hand.

    Returns:
        The number of maps that the limit left out; 0 after a signal.

    Raises:
        InputError: a map has no score in FP32.
        StorageLostError: the storage cannot be reached any more.
    """
    store, study, problem = worker.store, worker.study, worker.problem
    damage_elsewhere = study.sampler.damage_elsewhere if isinstance(study.sampler, GuidedSampler) else None
    began = time.monotonic()
    waiting: set[int] = set()

    def used() -> float:
        return (time.monotonic() - began) / limit_s

    def in_fp32() -> None:
        left_out = _score_in_fp32(worker, run, damage_elsewhere, report_phase, used)
        waiting.update(trial.number for trial in left_out)

    def on_unseen() -> None:
        left_out = check_on_unseen(
            problem,
            study,
            outcome_of_run(study, run),
            worker.profile.unseen,
            worker.should_stop,
            damage_elsewhere,
            paced(report_phase, ON_UNSEEN),
            is_late=lambda: used() > _UNSEEN_SHARE,
        )
        waiting.update(trial.number for trial in left_out)

    def on_holdout() -> None:
        outcome = outcome_of_run(study, run)
        wanted = problem.holdout is not None and outcome.holdout is None
        if wanted and not outcome.unscored:  # else the picks that it would confirm may still change
            report_phase(ON_HOLDOUT, 0, 0, None)
            check_holdout(problem, store, study, outcome)

    store.patiently(in_fp32, worker.should_stop)
    for step in (on_unseen, on_holdout):
        if not worker.should_stop():
            store.patiently(step, worker.should_stop)
    if worker.should_stop():
        return 0
    if waiting:
        log.info("%d maps wait for the next start, so that the checks end in time", len(waiting))
    return len(waiting)


def _score_in_fp32(
    worker: Worker,
    run: RunDirectory,
    damage_elsewhere: DamageElsewhere | None,
    report_phase: ReportPhase,
    used: Callable[[], float],
) -> list[Trial]:
    """Score in FP32 every map that the report shows or picks from and that was scored in another precision.

    New scores can change the front and the picks, so this repeats until no such map is left, a signal comes or the time
    is used up. Return the maps that the time left out.
    """
    study, problem = worker.study, worker.problem
    exact = problem.evaluator.precision
    # In a shared store, other machines may search in another precision.
    while problem.search_evaluator.precision != exact or worker.store.shared:
        selection = select(outcome_of_run(study, run))
        candidates = unseen_candidates(selection, damage_elsewhere) if worker.profile.unseen else []
        reported = {trial.number: trial for trial in (*selection.shown, *candidates)}
        inexact = [trial for trial in reported.values() if trial.precision != exact]
        needed = needed_by_picks(selection)
        inexact.sort(key=lambda trial: trial.number not in needed)
        if not inexact:
            return []
        log.info("scoring %d maps of the front, the picks and the baselines in FP32", len(inexact))
        report_progress = paced(report_phase, IN_FP32)
        for done, trial in enumerate(inexact):
            report_progress(done, len(inexact))
            if worker.should_stop():
                log.warning("some maps are not scored in FP32 yet; start the search again")
                return []
            if used() > (_FP32_NEEDED_SHARE if trial.number in needed else _FP32_SHARE):
                if done == 0 or trial.number in needed:
                    return inexact[done:]
                break  # the scores so far may have changed what the picks need
            try:
                evaluation = problem.confirm(trial.bit_map)
            except NotFiniteError as error:
                raise InputError(f"{trial.label} has no score in FP32: {error}; search with --precision fp32") from None
            record_fp32_scores(study, trial.number, evaluation)
    return []
