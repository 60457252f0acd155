"""The confirmation sentences: opened once, when a search has ended, for the maps that the report shows."""

from __future__ import annotations

import logging

import optuna
from optuna.trial import TrialState

from objectives.errors import InputError
from objectives.problem import Problem
from results.findings import conclude
from results.outcome import Outcome
from search.opening import opened_after, record_opening
from search.storage import Store
from search.trials import claimed

log = logging.getLogger("bitfront")


def open_confirmation(problem: Problem, store: Store, study: optuna.Study, found: Outcome) -> bool:
    """Score the picks, their rivals and the reference on the confirmation sentences, in FP32, and record it.

    They are opened once: where the study has been through this, or has no such sentences, nothing happens. Nor does it
    while other machines search on, whose maps would withdraw what is confirmed.

    Args:
        problem: the run's.
        store: the study's.
        study: the run's.
        found: what the study holds now.

    Returns:
        Whether they were opened.
    """
    if problem.confirmation is None or found.confirmation is not None or not found.trials:
        return False
    if store.shared:
        with store.exclusive():
            store.fail_abandoned(study, claimed)  # a machine that died after our last trial searches no more
            in_hand = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if in_hand:
            log.info("others search on: the last machine to end opens the confirmation sentences")
            return False
    findings = conclude(found)
    rivals = [headline.rival for headline in findings.headlines if headline.rival is not None]
    chosen = findings.picked | {trial.number: trial for trial in rivals}
    log.info("opening %d confirmation sentences for %d maps", problem.confirmation.labels.size, len(chosen))
    try:
        fp32, scored = problem.confirmed_log_odds([trial.bits for trial in chosen.values()])
    except InputError as error:
        log.warning("not confirmed: %s", error)
        return False
    with store.exclusive():
        if opened_after(study):  # another machine ended at the same moment
            return False
        record_opening(study, problem.confirmation, fp32, dict(zip(chosen, scored, strict=True)), len(found.trials))
    return True
