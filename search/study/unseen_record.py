"""The scores on unseen sentences, as records of the study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna

from objectives.heads import Head
from results.outcome import Unseen
from search.study.arrays import unpack_array

SENTENCES, SCORES, WANTED = "unseen sentences", "unseen scores of trial", "wanted on unseen sentences"
"""Attributes of the study: the sentences with FP32's scores; one map's outputs; the maps that a check has to score."""


def read_unseen(study: optuna.Study, trials: int, head: Head) -> Unseen | None:
    """Return the scores of maps on unseen sentences; None if the check has not been made.

    Args:
        study: the run's study.
        trials: how many maps it has evaluated by now.
        head: of the run's model.
    """
    recorded = study.user_attrs
    sentences = recorded.get(SENTENCES)
    if sentences is None:
        return None
    log_odds = {}
    for key in recorded:
        if key.startswith(SCORES):
            number = int(key.removeprefix(SCORES))
            if (record := scores_on_unseen(recorded, number, sentences["digest"])) is not None:
                log_odds[number] = unpack_array(record["log_odds"], np.float32, head.shape)
    if not log_odds:
        return None
    after = sentences.get("trials", trials)
    fp32 = unpack_array(sentences["fp32_log_odds"], np.float32, head.shape)
    return Unseen(fp32, log_odds, after, outdated=trials > after)


def unscored(study: optuna.Study) -> int:
    """Return how many maps an interrupted check still has to score; 0 if none was interrupted."""
    recorded = study.user_attrs
    check = recorded.get(WANTED)
    if check is None:
        return 0
    return sum(scores_on_unseen(recorded, number, check["digest"]) is None for number in check["numbers"])


def scores_on_unseen(recorded: Mapping[str, Any], number: int, digest: str) -> dict[str, Any] | None:
    """Return the record of a trial's map on the sentences with this digest; None if there is none."""
    record: dict[str, Any] | None = recorded.get(f"{SCORES} {number}")
    return record if record is not None and record["digest"] == digest else None
