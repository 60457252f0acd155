"""The check on the holdout set: after a search, it is scored once for the picks, their rivals and the reference."""

from __future__ import annotations

import logging

import optuna
from optuna.trial import TrialState

from objectives.errors import InputError
from objectives.problem import Problem
from results.outcome import Outcome
from results.statistics.analysis import select
from search.storage.stores import Store
from search.study.holdout_record import holdout_scored_after, record_holdout
from search.study.trials import claimed

log = logging.getLogger("bitfront")


def check_holdout(problem: Problem, store: Store, study: optuna.Study, outcome: Outcome) -> bool:
    """Score the picks, their rivals and the reference on the holdout set, in FP32; return whether it was done now.

    The scores are recorded once. Nothing is scored if there is no holdout set, if it was scored before, or while other
    machines still search: maps that they add would put the scores out of date.

    Args:
        problem: the run's problem.
        store: the store of its study.
        study: the run's study.
        outcome: what the study holds now.
    """
    if problem.holdout is None or outcome.holdout is not None or not outcome.trials:
        return False
    if store.shared:
        with store.exclusive():
            store.fail_abandoned(study, claimed)  # a dead machine does not count as searching
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if running:
            log.info("other machines still search; the last one to end scores the holdout set")
            return False
    selection = select(outcome)
    rivals = [headline.rival for headline in selection.headlines if headline.rival is not None]
    scored = selection.picked | {trial.number: trial for trial in rivals}
    log.info("scoring %d maps on the holdout set of %d sentences", len(scored), len(problem.holdout.labels))
    try:
        fp32, log_odds = problem.holdout_log_odds([trial.bit_map for trial in scored.values()])
    except InputError as error:
        log.warning("no scores on the holdout set: %s", error)
        return False
    with store.exclusive():
        if holdout_scored_after(study):  # another machine ended at the same moment
            return False
        by_number = dict(zip(scored, log_odds, strict=True))
        record_holdout(study, problem.holdout, fp32, by_number, len(outcome.trials))
    return True
