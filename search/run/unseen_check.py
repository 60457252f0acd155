"""The check on unseen sentences: after a search, its best maps are scored on further training sentences.

A search fits the sentences that it scores maps on, so damage (mean KL divergence from FP32) is optimistic there. It
needs no labels, so training sentences can measure it again. Picks use these scores; the sampler never sees them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

import numpy as np
import optuna

from objectives.errors import InputError
from objectives.layers import BitMap
from objectives.loading.fingerprint import short_digest
from objectives.problem import Problem
from objectives.scores import LogOdds
from objectives.training_sentences import unseen_sentences
from results.outcome import Outcome, Trial
from results.pareto import exact_sizes, non_dominated
from results.statistics.analysis import Selection, select
from search.study.arrays import pack_array
from search.study.unseen_record import SCORES, SENTENCES, WANTED, scores_on_unseen

log = logging.getLogger("bitfront")

_MAX_FRONT = 32
MOST_CANDIDATES = 2 * _MAX_FRONT
"""About the most maps that a check scores: the front, the baselines, and the best map at each baseline's size."""

DamageElsewhere = Callable[[BitMap, LogOdds], float]
"""The expected damage of a map on other sentences, in nats a sentence, given its outputs on the search's sentences."""


def check_on_unseen(
    problem: Problem,
    study: optuna.Study,
    outcome: Outcome,
    sentence_limit: int,
    should_stop: Callable[[], bool],
    damage_elsewhere: DamageElsewhere | None = None,
    report_progress: Callable[[int, int], object] = lambda done, total: None,
    is_late: Callable[[], bool] = lambda: False,
) -> list[Trial]:
    """Score the best maps on unseen sentences, in FP32, and record the scores; recorded scores are kept.

    The scores count only once all that the picks need are recorded: else a baseline would win against a searched map
    that is not scored yet. If time is short, further maps wait in pairs that the verdict compares.

    Args:
        problem: the run's problem.
        study: the run's study.
        outcome: what the study holds now.
        sentence_limit: the largest number of sentences; 0 for no check.
        should_stop: asked before each map.
        damage_elsewhere: the sampler's maps are chosen by this expected damage; without it, by their damage on the
            search's sentences.
        report_progress: called with the number of maps scored and their total.
        is_late: asked before each group of maps; once true, the others wait for the next start of the search.

    Returns:
        The maps that wait. The scores do not count yet if ``unscored`` maps are among them.
    """
    if not sentence_limit:
        if study.user_attrs.get(WANTED):
            study.set_user_attr(WANTED, None)
        return []
    selection = select(outcome)
    trials = unseen_candidates(selection, damage_elsewhere)
    if not trials:
        return []
    try:
        token_ids = unseen_sentences(problem, sentence_limit)
    except InputError as error:
        log.warning("not checked on unseen sentences: %s", error)
        return []
    digest = short_digest(json.dumps(token_ids))
    recorded = study.user_attrs  # read once: each read of a database is a query
    missing = [trial for trial in trials if scores_on_unseen(recorded, trial.number, digest) is None]
    previous = recorded.get(SENTENCES)
    if previous is not None and previous["digest"] != digest:
        study.set_user_attr(SENTENCES, None)
        previous = None
    fp32 = None if previous is None else previous["fp32_log_odds"]
    waiting: list[Trial] = []
    if fp32 is None or missing:  # a search killed at the end of this block lacks only the former
        log.info("scoring %d maps on %d training sentences that the search did not see", len(missing), len(token_ids))
        study.set_user_attr(WANTED, {"digest": digest, "numbers": [trial.number for trial in missing]})
        evaluator = problem.evaluator_on(token_ids)
        fp32 = fp32 or pack_array(evaluator.fp32_log_odds())
        groups = _by_need(selection, missing)
        needed, done, by_need = groups[0], 0, [trial for group in groups for trial in group]
        for group in groups:
            if group is not needed and is_late():
                waiting = by_need[done:]
                break
            for trial in group:
                report_progress(done, len(missing))
                if should_stop() or (group is needed and is_late()):
                    log.warning("some maps are not scored on unseen sentences yet; start the search again")
                    return by_need[done:]
                log_odds = evaluator.log_odds(trial.bit_map)
                if np.isfinite(log_odds).all():
                    scores = {"digest": digest, "log_odds": pack_array(log_odds)}
                    study.set_user_attr(f"{SCORES} {trial.number}", scores)
                else:
                    log.warning("%s has no finite scores on unseen sentences and is left out", trial.label)
                done += 1
    latest = study.user_attrs.get(SENTENCES)  # another machine may have updated it meanwhile
    considered = len(outcome.trials)
    if latest is not None and latest["digest"] == digest:
        considered = max(considered, latest.get("trials", 0))  # older studies do not record it
    if (record := {"digest": digest, "fp32_log_odds": fp32, "trials": considered}) != latest:
        study.set_user_attr(SENTENCES, record)
    if missing or recorded.get(WANTED):
        study.set_user_attr(WANTED, None)
    return waiting


def _by_need(selection: Selection, trials: Sequence[Trial]) -> list[list[Trial]]:
    """Return trials in groups by need: all that the picks need first, then the verdict's pairs, then the others.

    A pair is a knapsack's map and the largest map of the sampler within its size. One scored without the other would
    tilt the comparison.
    """
    axis = selection.outcome.size_axis
    sampled = sorted(
        (trial for trial in trials if trial.origin == "sampler"), key=lambda trial: trial.compression(axis)
    )
    head, pairs = needed_by_picks(selection), []
    for knapsack in (trial for trial in selection.baselines if trial.origin == "plain"):
        rival = next((trial for trial in sampled if trial.compression(axis) >= knapsack.compression(axis)), knapsack)
        pair = {knapsack.number, rival.number}
        if knapsack.number in head:
            head |= pair
        pairs.append(pair)
    remaining = {trial.number: trial for trial in trials}
    numbers = [head, *pairs, *({trial.number} for trial in trials)]
    needed, *others = [[remaining.pop(number) for number in sorted(group & remaining.keys())] for group in numbers]
    return [needed, *(group for group in others if group)]


def needed_by_picks(selection: Selection) -> set[int]:
    """Return the numbers of the picks, the reference, and the baselines that rival the picks."""
    rivals = (headline.rival for headline in selection.headlines)
    return {*selection.picked, *(rival.number for rival in rivals if rival is not None)}


def unseen_candidates(selection: Selection, damage_elsewhere: DamageElsewhere | None = None) -> list[Trial]:
    """Return the maps to pick from: the picks so far, the baselines, and the sampler's best maps.

    The sampler's best maps are its front of size and expected damage, thinned if it is long, and its best map at each
    baseline's size. A front of damage on the search's sentences would favour lucky maps.
    """
    outcome = selection.outcome
    sampled = [trial for trial in outcome.trials if trial.feasible and trial.origin == "sampler"]
    scored = [trial for trial in sampled if trial.scores is not None]
    sizes = exact_sizes(outcome.footprint, scored, outcome.size_axis)

    def expected_of(trial: Trial) -> float:
        assert trial.scores is not None
        assert trial.log_odds is not None
        return damage_elsewhere(trial.bit_map, trial.log_odds) if damage_elsewhere else trial.scores.damage

    expected = [expected_of(trial) for trial in scored]
    front = np.flatnonzero(non_dominated(np.column_stack([expected, sizes])))
    front = front[np.argsort(sizes[front], kind="stable")]
    kept = np.unique(np.linspace(0, len(front) - 1, min(len(front), _MAX_FRONT)).astype(int))
    chosen = [scored[index] for index in front[kept]] + list(selection.picked.values())
    baselines = [trial for trial in selection.baselines if trial.feasible and trial.scores is not None]
    for limit in exact_sizes(outcome.footprint, baselines, outcome.size_axis):
        within = front[sizes[front] <= limit]
        chosen += [scored[index] for index in within[-1:]]  # on a front, the largest map has the least damage
    chosen += baselines
    return [trial for _, trial in sorted({trial.number: trial for trial in chosen}.items())]
