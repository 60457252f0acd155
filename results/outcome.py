"""What a search has found so far, as one value: everything that tables, plots and the report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from objectives.layers import Bits
from objectives.scores import Labels, LogOdds, Precision, Scores
from objectives.sizes import Footprint, SizeAxis

Quality = Literal["damage", "mcc", "agreement"]
Origin = Literal["reference", "uniform", "plain", "sampler"]
"""Who proposed a map: the documented configuration, a uniform contender, plain allocation, or the sampler."""

DEFAULT_MARGIN = 0.01
"""The loss of MCC that counts as none."""


@dataclass(frozen=True)
class Trial:
    """One evaluated bit map.

    Attributes:
        number: the trial's number in the study.
        origin: who proposed it.
        label: what plots and tables call it: ``documented``, ``uniform 4``, or ``trial 17``.
        bits: the map.
        nominal_compression: FP32 size over size, codes only; higher is smaller.
        packed_compression: FP32 size over size, every byte of the file; higher is smaller.
        feasible: whether it meets the size constraint.
        scores: what it scored; None where the evaluation failed (``failure`` then says why).
        log_odds: one log-odds a sentence, ``(n_sentences,)``; None where the evaluation failed.
        precision: what the scores were computed in; FP32 where they have been confirmed.
        elapsed_s: seconds that the evaluation took.
        finished_s: seconds since the study's first trial began.
    """

    number: int
    origin: Origin
    label: str
    bits: Bits
    nominal_compression: float
    packed_compression: float
    feasible: bool
    scores: Scores | None
    log_odds: LogOdds | None
    elapsed_s: float
    finished_s: float
    precision: Precision = "fp32"
    failure: str = ""

    def compression(self, axis: SizeAxis) -> float:
        """Return the compression on one axis."""
        return self.nominal_compression if axis == "nominal" else self.packed_compression


@dataclass(frozen=True)
class Confirmation:
    """What the maps that were shown when the search ended score on sentences that it never saw.

    Attributes:
        source: the sentences, as the user named them.
        labels: ``(n_sentences,)`` of 0 and 1.
        in_domain: ``(n_sentences,)``, or None where the sentences do not say.
        fp32_log_odds: ``(n_sentences,)`` of the FP32 model.
        log_odds: ``(n_sentences,)`` of maps, by trial number.
        trials: how many maps had been evaluated when the sentences were opened.
        withdrawn: whether the search went on afterwards, so that nothing here confirms anything.
    """

    source: str
    labels: Labels
    in_domain: npt.NDArray[np.bool_] | None
    fp32_log_odds: LogOdds
    log_odds: Mapping[int, LogOdds]
    trials: int
    withdrawn: bool


@dataclass(frozen=True)
class Unseen:
    """What the best maps score on unlabelled sentences that neither the search nor its allocations have seen.

    Attributes:
        fp32_log_odds: ``(n_sentences,)`` of the FP32 model.
        log_odds: ``(n_sentences,)`` of maps, by trial number.
        trials: how many maps had been evaluated when these were chosen.
        outdated: whether the search went on afterwards.
    """

    fp32_log_odds: LogOdds
    log_odds: Mapping[int, LogOdds]
    trials: int
    outdated: bool = False


@dataclass(frozen=True)
class Outcome:
    """The state of a run.

    Attributes:
        name: the run's name.
        model: where the model came from, as the user gave it.
        data: where the sentences came from.
        footprint: the layers and their sizes.
        quality: the study's first objective.
        size_axis: what the constraint and the size axis count.
        min_compression: the size constraint.
        labels: ``(n_sentences,)`` of 0 and 1.
        in_domain: ``(n_sentences,)`` of bool, or None where the sentences do not say.
        fp32_log_odds: ``(n_sentences,)`` of the FP32 model.
        fp32: what the FP32 model scores.
        reference_note: why the documented configuration is not among the trials; empty where it is.
        trials: every evaluated map, by number.
        provenance: further facts to show, in order: versions, seed, machine, fingerprints.
        margin: the loss of MCC that the user accepts, 0 or more.
        command: the command that makes this run again; empty where it is not known.
        held_back: the sentences that the search does not see, as the user named them; empty where there are none.
        confirmation: what they tell, once they have been opened.
        unseen: what the best maps do on training sentences, once the search has ended.
        unscored: how many maps that check lacks where it was broken off.
    """

    name: str
    model: str
    data: str
    footprint: Footprint
    quality: Quality
    size_axis: SizeAxis
    min_compression: float
    labels: Labels
    in_domain: npt.NDArray[np.bool_] | None
    fp32_log_odds: LogOdds
    fp32: Scores
    reference_note: str
    trials: tuple[Trial, ...]
    provenance: tuple[tuple[str, str], ...]
    margin: float = DEFAULT_MARGIN
    command: str = ""
    held_back: str = ""
    confirmation: Confirmation | None = None
    unseen: Unseen | None = None
    unscored: int = 0
