"""The outcome of a run as one value: the input of tables, plots and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from objectives.heads import TWO_CLASSES, Head
from objectives.layers import WIDTHS, BitMap
from objectives.metrics import MetricName
from objectives.packing.footprint import Footprint, SizeAxis
from objectives.scores import Labels, LogOdds, Precision, Scores

Quality = Literal["damage", "mcc", "agreement"]
"""What a study optimises; ``mcc`` stands for the task's metric, whichever it is."""
Origin = Literal["reference", "uniform", "plain", "sampler"]
"""Who proposed a map: the documented configuration, a uniform baseline, the knapsack, or the sampler."""

DEFAULT_MARGIN = 0.01
"""The loss of the metric that the user accepts, unless the run sets another."""


@dataclass(frozen=True)
class Trial:
    """One evaluated bit map.

    Attributes:
        number: the trial's number in the study.
        origin: its proposer.
        label: its name in plots and tables: ``documented``, ``uniform 4``, or ``trial 17``.
        bit_map: the map.
        nominal_compression: FP32 size over size, codes only; higher is smaller.
        packed_compression: FP32 size over size, every byte of the file; higher is smaller.
        onnx_compression: that of ONNX files; None if their sizes have not been measured.
        feasible: whether it meets the size constraint and has the run's widths only.
        scores: its scores; None if the evaluation failed (``failure`` then says why).
        log_odds: the outputs, ``(n_sentences, *head.shape)``; None if the evaluation failed.
        precision: of the evaluation; FP32 once the final checks have scored the map again.
        elapsed_s: seconds that the evaluation took.
        finished_s: seconds since the study's first trial began.
    """

    number: int
    origin: Origin
    label: str
    bit_map: BitMap
    nominal_compression: float
    packed_compression: float
    feasible: bool
    scores: Scores | None
    log_odds: LogOdds | None
    elapsed_s: float
    finished_s: float
    precision: Precision = "fp32"
    failure: str = ""
    onnx_compression: float | None = None

    def compression(self, axis: SizeAxis) -> float:
        """Return the compression on one axis.

        Raises:
            ValueError: on ONNX's, if it is not known.
        """
        if axis == "onnx":
            if self.onnx_compression is None:
                raise ValueError("the sizes of ONNX files have not been measured")
            return self.onnx_compression
        return self.nominal_compression if axis == "nominal" else self.packed_compression


@dataclass(frozen=True)
class HoldoutScores:
    """The scores of the picks, their rivals and the reference on the holdout, which the search never sees.

    Attributes:
        source: the sentences, as the user named them.
        labels: ``(n_sentences, *head.label_shape)``.
        in_domain: ``(n_sentences,)``, or None if the sentences do not say.
        fp32_log_odds: outputs ``(n_sentences, *head.shape)`` of the FP32 model.
        log_odds: outputs of maps, by trial number.
        trials: how many maps had been evaluated when the holdout was scored.
        withdrawn: whether the search went on afterwards, so that the scores no longer count.
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
    """The scores of the best maps on unlabelled sentences that neither the search nor the knapsack saw.

    Attributes:
        fp32_log_odds: outputs ``(n_sentences, *head.shape)`` of the FP32 model.
        log_odds: outputs of maps, by trial number.
        trials: how many maps had been evaluated when these maps were chosen.
        outdated: whether the search went on afterwards.
    """

    fp32_log_odds: LogOdds
    log_odds: Mapping[int, LogOdds]
    trials: int
    outdated: bool = False


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run, finished or not.

    Attributes:
        name: the run's name.
        model: the model's path or hub name, as the user gave it.
        data: the source of the sentences.
        footprint: the layers and their sizes.
        quality: the first objective of the study.
        size_axis: the size that the constraint and the front use.
        min_compression: the size constraint.
        labels: ``(n_sentences, *head.label_shape)``.
        in_domain: ``(n_sentences,)`` of bool, or None if the sentences do not say.
        fp32_log_odds: outputs ``(n_sentences, *head.shape)`` of the FP32 model.
        fp32: the scores of the FP32 model.
        reference_note: why the trials lack the documented configuration; empty if they have it.
        trials: every evaluated map, by number.
        provenance: further facts to show, in order: versions, seed, machine, fingerprints.
        margin: the loss of the metric that the user accepts, 0 or more.
        command: the command that repeats this run; empty if unknown.
        holdout_source: the holdout sentences, as the user named them; empty if there is none.
        holdout: the scores on the holdout; None until it is scored.
        unseen: the scores of the best maps on unseen training sentences; None until the search has ended.
        unscored: how many maps an interrupted check on unseen sentences still has to score.
        unfinished: why the run is not complete, without a full stop; empty if it is, or if unknown.
        head: of the model.
        metric: the task's.
        label_names: of classes or yes/no labels, in the order of the outputs; "" for one without, empty if unknown.
        paired: whether each of the sentences is a pair of texts.
        widths: the widths that a layer may have.
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
    holdout_source: str = ""
    holdout: HoldoutScores | None = None
    unseen: Unseen | None = None
    unscored: int = 0
    unfinished: str = ""
    head: Head = TWO_CLASSES
    metric: MetricName = "mcc"
    label_names: tuple[str, ...] = ()
    paired: bool = False
    widths: tuple[int, ...] = WIDTHS

    @property
    def file_axis(self) -> SizeAxis:
        """The axis of the files that the user wants: ONNX files if the run counts these, else packed checkpoints."""
        return "onnx" if self.size_axis == "onnx" else "packed"
