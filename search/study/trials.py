"""Reading the trials of a study: map, origin, scores and state."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import gcd
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from objectives.layers import BitMap
from objectives.scores import LogOdds
from results.outcome import Origin
from search.study.arrays import unpack_array

# Attributes of a trial.
EVALUATION, ORIGIN, LABEL, FAILURE, ATTEMPT, MAP = "evaluation", "origin", "label", "failure", "attempt", "map"
NO_MAP = "no map left"
MOST_ATTEMPTS = 3
"""A map counts as failed once so many workers have died while they evaluated it."""


def width_distribution(widths: Sequence[int]) -> IntDistribution:
    """Return what Optuna knows of a layer's widths, which rise: the evenly spaced numbers that hold them all.

    Whole numbers, since samplers know their order. A sampler's number that is no width is repaired.
    """
    steps = [wider - narrower for narrower, wider in pairwise(widths)]
    return IntDistribution(widths[0], widths[-1], step=gcd(*steps) or 1)


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Return the study's trials as its storage holds them, to be read only.

    Ended trials share one set of distributions. Optuna makes one object for each layer of each trial, a third of a
    trial's memory in every process.
    """
    trials = study.get_trials(deepcopy=False)
    # Each is compared with the one before it, so that a set that is shared already is not read again. The first trial
    # may be the reference, which may have other widths; others may have ended before their widths were written.
    shared = None
    for trial in trials:
        if trial.distributions is shared or not trial.state.is_finished():
            continue
        if trial.distributions == shared:
            trial.distributions = shared
        elif trial.state == TrialState.COMPLETE:
            shared = trial.distributions
    return trials


def claimed(trial: FrozenTrial) -> bool:
    """Return whether a map has been claimed for a trial."""
    return MAP in trial.user_attrs


def map_of(trial: FrozenTrial, names: Sequence[str]) -> BitMap | None:
    """Return a trial's map, claimed or enqueued; None if none has been claimed yet."""
    if claimed(trial):
        return tuple(trial.user_attrs[MAP])
    widths = trial.params if len(trial.params) == len(names) else trial.system_attrs.get("fixed_params", {})
    return tuple(widths[name] for name in names) if len(widths) == len(names) else None


def origin_of(trial: FrozenTrial) -> Origin:
    """Return who proposed a trial's map."""
    return cast(Origin, trial.user_attrs.get(ORIGIN, "sampler"))


def recorded_log_odds(trial: FrozenTrial) -> LogOdds | None:
    """Return the outputs of a trial's map, flat ``(n_sentences * n_outputs,)``; None if it has no scores."""
    recorded: dict[str, Any] | None = trial.user_attrs.get(EVALUATION)
    return unpack_array(recorded["log_odds"], np.float32) if recorded and trial.state == TrialState.COMPLETE else None


def settled(trial: FrozenTrial) -> bool:
    """Return whether a trial has ended for good."""
    return trial.state.is_finished() and not interrupted(trial)


def interrupted(trial: FrozenTrial) -> bool:
    """Return whether a dead process left a trial half-done, so that its map must be tried again."""
    # A failed evaluation has a reason; a trial without one was left behind by a dead process.
    if trial.state != TrialState.FAIL or FAILURE in trial.user_attrs:
        return False
    return bool(trial.user_attrs.get(ATTEMPT, 1) < MOST_ATTEMPTS)


def position_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """Return a trial's 0-based position in the study, not counting interrupted trials, which are repeated later.

    Proposals are seeded by it, so that a killed and continued run proposes the same maps as an undisturbed one.
    """
    return sum(not interrupted(before) for before in trials[: trial.number])


def finished(study: optuna.Study) -> int:
    """Return how many maps have been evaluated; failed evaluations count, interrupted ones do not."""
    return sum(settled(trial) for trial in trials_of(study))


def begun(study: optuna.Study) -> int:
    """Return how many maps have been evaluated or are being evaluated now."""
    trials = trials_of(study)
    return sum(settled(trial) or trial.state == TrialState.RUNNING for trial in trials)


def enqueued(study: optuna.Study) -> int:
    """Return how many maps wait for their evaluation."""
    return _waiting(trials_of(study))


def exhausted(study: optuna.Study) -> bool:
    """Return whether every map that meets the constraint has been evaluated or is being evaluated now."""
    trials = trials_of(study)
    return not _waiting(trials) and any(NO_MAP in trial.user_attrs for trial in trials)


def _waiting(trials: Sequence[FrozenTrial]) -> int:
    return sum(trial.state == TrialState.WAITING for trial in trials)
