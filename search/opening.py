"""The record that the confirmation sentences have been opened: written once, and read with every outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from objectives.scores import LogOdds
from results.outcome import Confirmation
from search.arrays import pack_array, unpack_array

if TYPE_CHECKING:  # reading a run loads no model
    from objectives.problem import Confirmation as Sentences

_OPENING = "opening of the confirmation sentences"


def record_opening(
    study: optuna.Study, sentences: Sentences, fp32_log_odds: LogOdds, log_odds: Mapping[int, LogOdds], trials: int
) -> None:
    """Record that the sentences have been opened after so many trials, and what FP32 and some trials' maps score."""
    record = {
        "source": sentences.source,
        "labels": pack_array(sentences.labels),
        "in_domain": None if sentences.in_domain is None else pack_array(sentences.in_domain),
        "fp32_log_odds": pack_array(fp32_log_odds),
        "log_odds": {str(number): pack_array(scored) for number, scored in log_odds.items()},
        "trials": trials,
    }
    study.set_user_attr(_OPENING, record)


def opened_after(study: optuna.Study) -> int:
    """Return after how many trials the sentences were opened; 0 where they have not been."""
    return int(study.user_attrs.get(_OPENING, {"trials": 0})["trials"])


def read_opening(study: optuna.Study, trials: int) -> Confirmation | None:
    """Return what the sentences have told, None where they have not been opened.

    Args:
        study: the run's study.
        trials: how many maps it has evaluated by now; more than at the opening withdraw what was confirmed.
    """
    record: dict[str, Any] | None = study.user_attrs.get(_OPENING)
    if record is None:
        return None
    return Confirmation(
        source=record["source"],
        labels=unpack_array(record["labels"], np.int8),
        in_domain=None if record["in_domain"] is None else unpack_array(record["in_domain"], np.bool_),
        fp32_log_odds=unpack_array(record["fp32_log_odds"], np.float32),
        log_odds={int(number): unpack_array(scored, np.float32) for number, scored in record["log_odds"].items()},
        trials=record["trials"],
        withdrawn=trials > record["trials"],
    )
