"""The scores on the holdout, as one record of the study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from objectives.heads import Head
from objectives.scores import LogOdds
from results.outcome import HoldoutScores
from search.study.arrays import pack_array, unpack_array

if TYPE_CHECKING:  # reading a run loads no model
    from objectives.problem import Holdout

_RECORD = "opening of the confirmation sentences"  # as stored in studies


def record_holdout(
    study: optuna.Study, holdout: Holdout, fp32_log_odds: LogOdds, log_odds: Mapping[int, LogOdds], trials: int
) -> None:
    """Record the outputs of FP32 and of some trials' maps on the holdout, scored after so many trials."""
    record = {
        "source": holdout.source,
        "labels": pack_array(holdout.labels),
        "in_domain": None if holdout.in_domain is None else pack_array(holdout.in_domain),
        "fp32_log_odds": pack_array(fp32_log_odds),
        "log_odds": {str(number): pack_array(scored) for number, scored in log_odds.items()},
        "trials": trials,
    }
    study.set_user_attr(_RECORD, record)


def holdout_scored_after(study: optuna.Study) -> int:
    """Return after how many trials the holdout was scored; 0 if it has not been scored."""
    return int(study.user_attrs.get(_RECORD, {"trials": 0})["trials"])


def read_holdout(study: optuna.Study, trials: int, head: Head) -> HoldoutScores | None:
    """Return the scores on the holdout; None if it has not been scored.

    Args:
        study: the run's study.
        trials: how many maps it has evaluated by now; if more than at the scoring, the scores count as withdrawn.
        head: of the run's model.
    """
    record: dict[str, Any] | None = study.user_attrs.get(_RECORD)
    if record is None:
        return None
    return HoldoutScores(
        source=record["source"],
        labels=unpack_array(record["labels"], head.label_type, head.label_shape),
        in_domain=None if record["in_domain"] is None else unpack_array(record["in_domain"], np.bool_),
        fp32_log_odds=unpack_array(record["fp32_log_odds"], np.float32, head.shape),
        log_odds={
            int(number): unpack_array(scored, np.float32, head.shape) for number, scored in record["log_odds"].items()
        },
        trials=record["trials"],
        withdrawn=trials > record["trials"],
    )
