"""Reading a study as an outcome.

The study holds everything that results need: layers, labels, FP32 scores and each trial's outputs. So a report needs
the storage alone, without the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from objectives.bit_maps import documented_misfit
from objectives.errors import InputError
from objectives.heads import Head, head_of_record
from objectives.layers import WIDTHS, Layer
from objectives.metrics import MetricName
from objectives.packing.footprint import Footprint
from objectives.packing.onnx_size import OnnxSizes
from objectives.packing.scheme import Scheme
from objectives.scores import Scores, score
from results.outcome import Outcome, Trial
from search.allocation.constraint import SizeConstraint
from search.storage.stores import Place
from search.study.arrays import unpack_array
from search.study.holdout_record import read_holdout
from search.study.study import CONTEXT, FP32_SCORES, STUDY_SCHEMA
from search.study.trials import EVALUATION, FAILURE, LABEL, MOST_ATTEMPTS, map_of, origin_of, settled, trials_of
from search.study.unseen_record import read_unseen, unscored


class NoStudyError(InputError):
    """A run has no study yet, or an incomplete one."""


def load_study(location: Path | Place) -> optuna.Study:
    """Open the study of a run for reading.

    Args:
        location: the study's journal or place.

    Raises:
        NoStudyError: the study does not exist yet, or is incomplete.
        InputError: the journal is damaged, the study is of another version, or the database cannot be reached.
    """
    place = location if isinstance(location, Place) else Place(location)
    subject = f"study {place.study_name!r}" if place.url else str(place.journal)
    if not place.url and not place.journal.is_file():
        raise NoStudyError(f"{subject}: the run has no study yet; start the search again")
    storage = place.open().backend
    try:
        study = optuna.load_study(study_name=place.study_name, storage=storage)
    except KeyError as error:
        raise NoStudyError(f"{subject}: cannot be read as a study ({error}); start another run") from None
    context = study.user_attrs.get(CONTEXT)
    if context is None:
        raise NoStudyError(f"{subject}: the study is incomplete; start the search again")
    if context.get("schema") != STUDY_SCHEMA:
        raise InputError(f"{subject}: the study is of another version; start another run")
    return study


def outcome(study: optuna.Study, name: str) -> Outcome:
    """Return the study's present state as an outcome called ``name``."""
    context = study.user_attrs[CONTEXT]
    layers = tuple(Layer(**layer) for layer in context["layers"])
    head, metric = head_of_record(context.get("head")), context.get("metric", "mcc")
    labels = unpack_array(context["labels"], head.label_type, head.label_shape)
    fp32_log_odds = unpack_array(context["fp32_log_odds"], np.float32, head.shape)
    kept = {key: tuple(shape) for key, shape in context["kept"].items()}
    onnx = OnnxSizes.of_record(context["onnx"]) if "onnx" in context else None
    scheme = Scheme(**context.get("scheme", {}))  # older studies lack it and have the default, as of the widths
    footprint = Footprint(layers, kept, scheme, onnx)
    widths = tuple(context.get("widths", WIDTHS))
    constraint = SizeConstraint(footprint, context["size_axis"], context["min_compression"], widths)
    names = [layer.name for layer in layers]
    frozen = trials_of(study)
    attributes = study.user_attrs  # one query, if the study is in a database
    ends = ends_of(frozen)
    trials = []
    for trial in frozen:
        if not settled(trial) or map_of(trial, names) is None:
            continue
        rescored = attributes.get(f"{FP32_SCORES} {trial.number}")
        trials.append(_trial(trial, rescored, constraint, ends[trial.number], head, metric))
    return Outcome(
        name=name,
        model=context["model"],
        data=context["data"],
        footprint=footprint,
        quality=context["quality"],
        size_axis=context["size_axis"],
        min_compression=context["min_compression"],
        labels=labels,
        in_domain=None if context["in_domain"] is None else unpack_array(context["in_domain"], np.bool_),
        head=head,
        metric=metric,
        label_names=tuple(context.get("label_names", ())),
        paired=context.get("paired", False),
        fp32_log_odds=fp32_log_odds,
        fp32=score(fp32_log_odds, labels, fp32_log_odds, head, metric),
        # Older studies list every layer of the documented map.
        reference_note=documented_misfit(len(layers)) if "\n" in (note := context["reference_note"]) else note,
        trials=tuple(trials),
        provenance=tuple((key, value) for key, value in context["provenance"]),
        holdout_source=context.get("held_back", ""),
        holdout=read_holdout(study, len(trials), head),
        unseen=read_unseen(study, len(trials), head),
        unscored=unscored(study),
        widths=widths,
    )


def ends_of(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Return when each ended trial ended, by its number, in seconds since the first trial began.

    Trials begin in the order of their numbers. If one began before another of a lower number, the clock was set back.
    Then time stands still at the latest end so far, until the clock has caught up: no time is negative, and no trial
    seems to have ended before those that it followed.
    """
    ends: dict[int, float] = {}
    began, latest_start_s, latest_end_s = None, 0.0, 0.0
    for trial in sorted(trials, key=lambda trial: trial.number):
        start = trial.datetime_start or trial.datetime_complete  # one that waited may be failed without a start
        if start is None:
            continue
        began = began or start
        start_s = (start - began).total_seconds()
        if trial.datetime_complete is not None:
            end_s = max((trial.datetime_complete - began).total_seconds(), start_s)
            ends[trial.number] = max(end_s, latest_end_s) if start_s < latest_start_s else end_s
            latest_end_s = max(latest_end_s, ends[trial.number])
        latest_start_s = max(latest_start_s, start_s)
    return ends


def _trial(
    trial: FrozenTrial,
    rescored: dict[str, Any] | None,
    constraint: SizeConstraint,
    finished_s: float,
    head: Head,
    metric: MetricName,
) -> Trial:
    footprint = constraint.footprint
    bit_map = map_of(trial, [layer.name for layer in footprint.layers])
    assert bit_map is not None
    recorded: dict[str, Any] | None = trial.user_attrs.get(EVALUATION) if trial.state == TrialState.COMPLETE else None
    packed_bytes = recorded["packed_bytes"] if recorded else footprint.packed_bytes(bit_map)
    size_bits = 8 * packed_bytes if constraint.axis == "packed" else constraint.size_bits(bit_map)
    elapsed_s = recorded["elapsed_s"] if recorded else 0.0
    recorded = rescored or recorded
    return Trial(
        number=trial.number,
        origin=origin_of(trial),
        label=trial.user_attrs.get(LABEL, f"trial {trial.number}"),
        bit_map=bit_map,
        nominal_compression=footprint.compression(bit_map, "nominal"),
        packed_compression=footprint.fp32_packed_bytes / packed_bytes,
        onnx_compression=None if footprint.onnx is None else footprint.compression(bit_map, "onnx"),
        feasible=size_bits <= constraint.largest_bits and constraint.allows(bit_map),
        scores=Scores.of_record(recorded, metric) if recorded else None,
        log_odds=unpack_array(recorded["log_odds"], np.float32, head.shape) if recorded else None,
        elapsed_s=elapsed_s,
        finished_s=finished_s,
        precision=recorded["precision"] if recorded else "fp32",
        failure="" if recorded else trial.user_attrs.get(FAILURE, f"its process died in all {MOST_ATTEMPTS} attempts"),
    )
