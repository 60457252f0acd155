"""The Optuna study of a run: opening it, beginning trials and recording scores.

:mod:`search.study.reading` reads it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from objectives.errors import InputError, all_faults
from objectives.layers import WIDTHS, BitMap, Layer
from objectives.scores import Precision
from results.outcome import Quality
from search.allocation.constraint import NoMapLeftError, SizeConstraint
from search.storage.stores import STUDY_NAME
from search.study.arrays import pack_array
from search.study.trials import (
    ATTEMPT,
    EVALUATION,
    FAILURE,
    LABEL,
    MAP,
    NO_MAP,
    ORIGIN,
    interrupted,
    map_of,
    trials_of,
    width_distribution,
)

if TYPE_CHECKING:  # reading a run loads no model
    from objectives.problem import Evaluation, Problem
    from search.allocation.baselines import Baseline

log = logging.getLogger("bitfront")
optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY_SCHEMA = "bitfront-study-1"
CONTEXT, FP32_SCORES = "context", "confirmation of trial"
"""Attributes of the study; a trial's number follows the latter."""

THEN = ", then "
"""Joins the values that one fact of a continued run has had."""


def open_study(
    storage: BaseStorage,
    problem: Problem,
    quality: Quality,
    constraint: SizeConstraint,
    sampler: BaseSampler,
    baselines: Sequence[Baseline],
    reference_note: str = "",
    provenance: Sequence[tuple[str, str]] = (),
    name: str = STUDY_NAME,
    shared: bool = False,
) -> optuna.Study:
    """Open or create the run's study and enqueue the baselines.

    A trial that a dead process left unfinished is marked failed and enqueued again. Hold the study exclusively.

    Args:
        storage: the study's storage.
        problem: the model and its sentences.
        quality: the first objective; size is the second.
        constraint: the size constraint.
        sampler: proposes maps.
        baselines: evaluated first, even if they miss the constraint.
        reference_note: why the documented configuration is not among the baselines.
        provenance: further facts for the report.
        name: the study's name in the storage.
        shared: whether other processes may work on it now; if not, every running trial is a dead process's.

    Raises:
        InputError: the study has another model, other sentences or another objective; the message says which.
    """
    context = _context(problem, quality, constraint, reference_note, provenance)
    try:
        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
    except KeyError:
        study = optuna.create_study(storage=storage, sampler=sampler, study_name=name, directions=directions(quality))
    if CONTEXT not in study.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([quality, f"{constraint.axis}_bits_per_weight"])
        study.set_user_attr(CONTEXT, context)
    recorded = study.user_attrs[CONTEXT]
    _check_same(recorded, context, f"study {name!r}")
    warn_of_other_codes(recorded.get("codes"), problem, f"study {name!r}")
    if (continued := _continued(recorded["provenance"], context["provenance"])) != recorded["provenance"]:
        study.set_user_attr(CONTEXT, {**recorded, "provenance": continued})

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not shared:
            study.tell(trial.number, state=TrialState.FAIL)
    names = [layer.name for layer in problem.layers]
    retry_lost(study, names)
    enqueue_baselines(study, names, baselines)
    return study


def enqueue_baselines(study: optuna.Study, names: Sequence[str], baselines: Sequence[Baseline]) -> None:
    """Enqueue the baselines that the study does not have yet. Hold the study exclusively."""
    standing = [trial for trial in trials_of(study) if not interrupted(trial)]
    # Knapsack maps of older runs are labelled "plain".
    labels = {str(trial.user_attrs.get(LABEL)).replace("plain ", "knapsack ") for trial in standing}
    maps = {map_of(trial, names) for trial in standing}
    for baseline in baselines:  # a knapsack's map may be uniform, and no map is evaluated twice
        if baseline.label not in labels and baseline.bit_map not in maps:
            maps.add(baseline.bit_map)
            _enqueue(study, names, baseline.bit_map, {ORIGIN: baseline.origin, LABEL: baseline.label})


def precision_of(study: optuna.Study) -> Precision:
    """Return the precision that a study was begun in; FP32 if an older version began it, which does not say."""
    precision: Precision = study.user_attrs[CONTEXT].get("precision", "fp32")
    return precision


def _continued(before: list[list[str]], now: list[list[str]]) -> list[list[str]]:
    """Return the provenance of a continued run: each fact with all the values that it has had."""
    provenance = dict(before)
    for key, value in now:
        values = provenance.get(key, value).split(THEN)
        provenance[key] = THEN.join(values if value in values else [*values, value])
    return [list(pair) for pair in provenance.items()]


def directions(quality: Quality) -> list[StudyDirection]:
    """Return the directions of a study's objectives: quality, then size."""
    first = StudyDirection.MINIMIZE if quality == "damage" else StudyDirection.MAXIMIZE
    return [first, StudyDirection.MINIMIZE]


def retry_lost(study: optuna.Study, names: Sequence[str], blamed: bool = False) -> int:
    """Enqueue again every map that only interrupted trials have; return how many.

    It depends on the study alone, so it may be interrupted and repeated. Hold the study exclusively.

    Args:
        study: the study.
        names: the layers' names.
        blamed: whether the map may have killed its process, because other processes live on; after ``MOST_ATTEMPTS``
            such deaths it is not tried again.
    """
    trials = trials_of(study)
    maps = {map_of(trial, names) for trial in trials if not interrupted(trial)}
    lost: dict[BitMap, FrozenTrial] = {}
    for trial in trials:
        bit_map = map_of(trial, names)
        if bit_map is not None and bit_map not in maps:
            lost[bit_map] = trial  # the last attempt counts
    for bit_map, trial in lost.items():
        attributes = {key: value for key, value in trial.user_attrs.items() if key in (ORIGIN, LABEL)}
        attempt = trial.user_attrs.get(ATTEMPT, 1) + blamed
        _enqueue(study, names, bit_map, {**attributes, ATTEMPT: attempt})
    return len(lost)


def _enqueue(study: optuna.Study, names: Sequence[str], bit_map: BitMap, attributes: Mapping[str, object]) -> None:
    study.enqueue_trial(dict(zip(names, bit_map, strict=True)), user_attrs={**attributes, MAP: list(bit_map)})


def check_joinable(
    storage: BaseStorage,
    name: str,
    problem: Problem,
    quality: Quality,
    constraint: SizeConstraint,
    moved_from: str = "",
) -> None:
    """Check, before anything is written, that an existing study called ``name`` is of this search.

    Args:
        storage: the storage to look in.
        name, problem, quality, constraint: this search's, as for ``open_study``.
        moved_from: the database that the run was begun in, if it is another; the study must then be here too.

    Raises:
        InputError: the study has another model, other sentences or another objective, or is missing; the message says
            which.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        if moved_from:
            raise InputError(
                f"study {name!r}: is not in this database; the run was begun in {moved_from}. Leave out --storage, or "
                "give a database that has the study"
            ) from None
        return
    if recorded := study.user_attrs.get(CONTEXT):
        _check_same(recorded, _context(problem, quality, constraint, "", ()), f"study {name!r}")
    elif study.get_trials(deepcopy=False) or study.directions != directions(
        quality
    ):  # not a study of ours that is just being made
        raise InputError(f"study {name!r}: exists in this database and is not bitfront's; give --run another name")


def _check_same(recorded: Mapping[str, Any], context: Mapping[str, Any], subject: str) -> None:
    if recorded.get("schema") != STUDY_SCHEMA:
        raise InputError(f"{subject}: is of another version; give --run another directory")
    keys = ("quality", "size_axis", "min_compression", "widths")
    recorded = {"widths": list(WIDTHS), **recorded}  # older studies have all
    pairs = [(key.replace("_", " "), recorded.get(key), context[key]) for key in keys]
    # A holdout must be the same on all machines, also if it is missing here.
    fingerprint = {"confirmation": None, **context["fingerprint"]}
    pairs.append(("metric", recorded.get("metric", "mcc"), context["metric"]))  # older studies have no other
    pairs += [(key, recorded["fingerprint"].get(key), value) for key, value in fingerprint.items()]
    faults = [f"{key} was {before!r} and is now {now!r}" for key, before, now in pairs if before != now]
    if faults:
        raise all_faults(f"{subject}: is another search; give --run another directory", faults)


def warn_of_other_codes(recorded: str | None, problem: Problem, subject: str) -> None:
    """Warn if another machine's GPTQ made the codes that the maps were scored with: some roundings differ."""
    if recorded and problem.codes and recorded != problem.codes:
        log.warning(
            "%s: its maps were scored with codes calibrated on another machine or with another number of threads. The "
            "codes here differ a little; to use the same ones, copy bank-* from the other machine's cache",
            subject,
        )


def claim(
    study: optuna.Study, layers: Sequence[Layer], on_begin: Callable[[optuna.Trial], object] = lambda trial: None
) -> tuple[optuna.Trial, BitMap]:
    """Begin a trial and claim a map for it. Hold the study exclusively, so that no other trial gets that map.

    The map is written as one attribute; :func:`write_widths` writes it again as Optuna's parameters, one by one.
    ``on_begin`` is called with the trial before its map is proposed.

    Raises:
        NoMapLeftError: there is no new map; the trial has ended, and from then on the study is :func:`exhausted`.
    """
    with warnings.catch_warnings():  # Optuna expects only its own loop to send heartbeats
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        trial = study.ask()
    on_begin(trial)
    try:
        proposed = trial.relative_params  # calls the sampler for enqueued maps too
    except NoMapLeftError:
        trial.set_user_attr(NO_MAP, True)
        study.tell(trial, state=TrialState.FAIL)
        raise
    if MAP in trial.user_attrs:
        return trial, tuple(trial.user_attrs[MAP])
    if not proposed:  # enqueued by an older version, without the attribute
        return trial, write_widths(trial, layers)
    bit_map = tuple(int(proposed[layer.name]) for layer in layers)
    trial.set_user_attr(MAP, list(bit_map))
    return trial, bit_map


def write_widths(trial: optuna.Trial, layers: Sequence[Layer], widths: Sequence[int] = WIDTHS) -> BitMap:
    """Write a trial's map as its parameters and return it; the reference may have other widths than ``widths``."""
    known = set(trial.user_attrs.get(MAP, ())) <= set(widths)
    space = width_distribution(widths if known else WIDTHS)
    return tuple(trial.suggest_int(layer.name, space.low, space.high, step=space.step) for layer in layers)


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    bit_map: BitMap,
    evaluation: Evaluation,
    constraint: SizeConstraint,
    quality: Quality,
) -> None:
    """Record a map's scores and end its trial."""
    if "size" not in trial.constraints:  # else a storage went away after it had written this, and Optuna would warn
        trial.set_constraint("size", constraint.violation(bit_map))
    packed_bytes = constraint.footprint.packed_bytes(bit_map)
    trial.set_user_attr(EVALUATION, {**_record(evaluation), "packed_bytes": packed_bytes})
    elements = sum(layer.elements for layer in constraint.footprint.layers)
    study.tell(trial, [evaluation.scores.quality(quality), constraint.size_bits(bit_map) / elements])


def record_fp32_scores(study: optuna.Study, number: int, evaluation: Evaluation) -> None:
    """Record a finished trial's scores in FP32, which replace its scores in every outcome."""
    study.set_user_attr(f"{FP32_SCORES} {number}", _record(evaluation))


def fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """End a trial without scores, with the reason."""
    trial.set_user_attr(FAILURE, reason)
    study.tell(trial, state=TrialState.FAIL)


def _context(
    problem: Problem,
    quality: Quality,
    constraint: SizeConstraint,
    reference_note: str,
    provenance: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    problem.fp32.quality(quality)  # refuses one that the head has not
    onnx = constraint.footprint.onnx
    return {
        "schema": STUDY_SCHEMA,
        "model": problem.model,
        "data": problem.data,
        "fingerprint": problem.fingerprint,
        "codes": problem.codes,
        "layers": [asdict(layer) for layer in problem.layers],
        **({} if onnx is None else {"onnx": asdict(onnx)}),
        "kept": {key: list(shape) for key, shape in problem.footprint.kept.items()},
        "scheme": asdict(problem.footprint.scheme),
        "quality": quality,
        "size_axis": constraint.axis,
        "min_compression": constraint.min_compression,
        "widths": list(constraint.widths),
        "precision": problem.search_evaluator.precision,
        "labels": pack_array(problem.labels),
        "in_domain": None if problem.in_domain is None else pack_array(problem.in_domain),
        "head": problem.head.record(),
        "metric": problem.metric,
        "label_names": problem.label_names,
        "paired": problem.paired,
        "fp32_log_odds": pack_array(problem.fp32_log_odds),
        "reference_note": reference_note,
        "held_back": "" if problem.holdout is None else problem.holdout.source,
        "provenance": [list(pair) for pair in provenance],
    }


def _record(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **evaluation.scores.record(),
        "precision": evaluation.precision,
        "elapsed_s": round(evaluation.elapsed_s, 4),
        "log_odds": pack_array(evaluation.log_odds),
    }
