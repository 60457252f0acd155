"""The Optuna study of a run: opening it, beginning its trials and recording their scores.

It is read back by :mod:`search.study.reading`.
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
from results.outcome import Quality
from search.allocation.constraint import NoMapLeftError, SizeConstraint
from search.storage.stores import STUDY_NAME
from search.study.arrays import pack_array
from search.study.trials import ATTEMPT, EVALUATION, FAILURE, LABEL, MAP, NO_MAP, ORIGIN, interrupted, map_of, trials_of

if TYPE_CHECKING:  # reading a run loads no model
    from objectives.problem import Evaluation, Problem
    from search.allocation.baselines import Baseline

log = logging.getLogger("bitfront")
optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY_SCHEMA = "bitfront-study-1"
CONTEXT, CONFIRMATION = "context", "confirmation of trial"
"""Attributes of the study; the latter with the trial's number after it."""

THEN = ", then "
"""Joins what a fact of a run was and what it became when the run was continued."""


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
    """Open the run's study, or make it, and enqueue the baselines.

    A trial that a dead process left half-done is marked failed and enqueued again. Hold the study exclusively.

    Args:
        storage: of the study.
        problem: the model and its sentences.
        quality: the first objective; size is the second.
        constraint: the size constraint.
        sampler: proposes maps.
        baselines: the baselines, which are evaluated first, even if they miss the constraint.
        reference_note: why the documented configuration is not among them.
        provenance: further facts to show in the report.
        name: the study's name in the storage.
        shared: whether others may work on it now; if not, every running trial is a dead process's.

    Raises:
        InputError: the study is of another model, of other sentences or of another objective; the message says which.
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
    standing = [trial for trial in trials_of(study) if not interrupted(trial)]
    labels = {trial.user_attrs.get(LABEL) for trial in standing}
    maps = {map_of(trial, names) for trial in standing}
    for baseline in baselines:  # a knapsack's map can be uniform, and no map is evaluated twice
        if baseline.label not in labels and baseline.bit_map not in maps:
            maps.add(baseline.bit_map)
            _enqueue(study, names, baseline.bit_map, {ORIGIN: baseline.origin, LABEL: baseline.label})
    return study


def _continued(before: list[list[str]], now: list[list[str]]) -> list[list[str]]:
    """Return the facts of a continued run: each with all the values that it has had."""
    known = dict(before)
    for key, value in now:
        values = known.get(key, value).split(THEN)
        known[key] = THEN.join(values if value in values else [*values, value])
    return [list(pair) for pair in known.items()]


def directions(quality: Quality) -> list[StudyDirection]:
    """Return the directions of a study's objectives: quality, then size."""
    first = StudyDirection.MINIMIZE if quality == "damage" else StudyDirection.MAXIMIZE
    return [first, StudyDirection.MINIMIZE]


def retry_lost(study: optuna.Study, names: Sequence[str], blamed: bool = False) -> int:
    """Enqueue again every map whose trial was interrupted and that no other trial has; return how many.

    It depends on the study alone, so it may itself be interrupted and repeated. Hold the study exclusively.

    Args:
        study: the study.
        names: its layers.
        blamed: the process died while others lived on, so that the map may have killed it; after ``MOST_ATTEMPTS`` such
            deaths it is not tried again.
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
    """Check, before anything is written, that a study that others may have made is of this very search.

    Args:
        storage: may have the study.
        name: the study's name.
        problem: this search's problem.
        quality: this search's first objective.
        constraint: this search's size constraint.
        moved_from: the database that the run was begun in, if it is another; then the study must be in this one.

    Raises:
        InputError: the study is of another model, of other sentences or of another objective, or is missing; the
            message says which.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        if moved_from:
            raise InputError(
                f"study {name!r}: is not in this database; the run was begun in {moved_from}: leave out --storage, or "
                "give a database that has the study"
            ) from None
        return
    if recorded := study.user_attrs.get(CONTEXT):
        _check_same(recorded, _context(problem, quality, constraint, "", ()), f"study {name!r}")
    elif study.get_trials(deepcopy=False) or study.directions != directions(quality):  # not our study half-made
        raise InputError(f"study {name!r}: in this database is not bitfront's; give --run another name")


def _check_same(recorded: Mapping[str, Any], asked: Mapping[str, Any], subject: str) -> None:
    if recorded.get("schema") != STUDY_SCHEMA:
        raise InputError(f"{subject}: is of another version; give --run another directory")
    keys = ("quality", "size_axis", "min_compression")
    pairs = [(key.replace("_", " "), recorded.get(key), asked[key]) for key in keys]
    # Other machines' holdout must be the holdout here too.
    fingerprint = {"confirmation": None, **asked["fingerprint"]}
    pairs += [(key, recorded["fingerprint"].get(key), value) for key, value in fingerprint.items()]
    faults = [f"{key} was {before!r} and is now {now!r}" for key, before, now in pairs if before != now]
    if faults:
        raise all_faults(f"{subject}: is another search; give --run another directory", faults)


def warn_of_other_codes(recorded: str | None, problem: Problem, subject: str) -> None:
    """Warn if the maps were scored with codes that another machine calibrated: some roundings differ."""
    if recorded and problem.codes and recorded != problem.codes:
        log.warning(
            "%s: its maps were scored with codes that were calibrated on another machine, or by another number of "
            "threads, and differ a little from those here; to have the very same, copy its cache's bank-* here",
            subject,
        )


def claim(
    study: optuna.Study, layers: Sequence[Layer], on_begin: Callable[[optuna.Trial], object] = lambda trial: None
) -> tuple[optuna.Trial, BitMap]:
    """Begin a trial and claim a map for it, which no other trial has if the study is held exclusively.

    The map is written in one piece; :func:`write_widths` writes it again as Optuna's parameters, one by one.
    ``on_begin`` is called with the trial before its map is proposed.

    Raises:
        NoMapLeftError: there is no such map; the trial has ended, and from then on the study is :func:`exhausted`.
    """
    with warnings.catch_warnings():  # Optuna thinks that only its own loop can send heartbeats
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        trial = study.ask()
    on_begin(trial)
    try:
        proposed = trial.relative_params  # shows enqueued maps to the sampler too
    except NoMapLeftError:
        trial.set_user_attr(NO_MAP, True)
        study.tell(trial, state=TrialState.FAIL)
        raise
    if MAP in trial.user_attrs:
        return trial, tuple(trial.user_attrs[MAP])
    if not proposed:  # enqueued before maps were written in one piece
        return trial, write_widths(trial, layers)
    bit_map = tuple(int(proposed[layer.name]) for layer in layers)
    trial.set_user_attr(MAP, list(bit_map))
    return trial, bit_map


def write_widths(trial: optuna.Trial, layers: Sequence[Layer]) -> BitMap:
    """Write a trial's map as its parameters and return it."""
    return tuple(trial.suggest_int(layer.name, WIDTHS[0], WIDTHS[-1]) for layer in layers)


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    bit_map: BitMap,
    evaluation: Evaluation,
    constraint: SizeConstraint,
    quality: Quality,
) -> None:
    """Record what a map scored and end its trial."""
    if "size" not in trial.constraints:  # else a storage went away after it had written this, and Optuna would warn
        trial.set_constraint("size", constraint.violation(bit_map))
    packed_bytes = constraint.footprint.packed_bytes(bit_map)
    trial.set_user_attr(EVALUATION, {**_recorded(evaluation), "packed_bytes": packed_bytes})
    elements = sum(layer.elements for layer in constraint.footprint.layers)
    study.tell(trial, [getattr(evaluation.scores, quality), constraint.size_bits(bit_map) / elements])


def confirm(study: optuna.Study, number: int, evaluation: Evaluation) -> None:
    """Record a finished trial's scores in FP32; from then on they are its scores in every outcome."""
    study.set_user_attr(f"{CONFIRMATION} {number}", _recorded(evaluation))


def fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """End a trial whose map has no scores, with the reason."""
    trial.set_user_attr(FAILURE, reason)
    study.tell(trial, state=TrialState.FAIL)


def _context(
    problem: Problem,
    quality: Quality,
    constraint: SizeConstraint,
    reference_note: str,
    provenance: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    return {
        "schema": STUDY_SCHEMA,
        "model": problem.model,
        "data": problem.data,
        "fingerprint": problem.fingerprint,
        "codes": problem.codes,
        "layers": [asdict(layer) for layer in problem.layers],
        "kept": {key: list(shape) for key, shape in problem.footprint.kept.items()},
        "scheme": asdict(problem.footprint.scheme),
        "quality": quality,
        "size_axis": constraint.axis,
        "min_compression": constraint.min_compression,
        "labels": pack_array(problem.labels),
        "in_domain": None if problem.in_domain is None else pack_array(problem.in_domain),
        "fp32_log_odds": pack_array(problem.fp32_log_odds),
        "reference_note": reference_note,
        "held_back": "" if problem.holdout is None else problem.holdout.source,
        "provenance": [list(pair) for pair in provenance],
    }


def _recorded(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **asdict(evaluation.scores),
        "precision": evaluation.precision,
        "elapsed_s": round(evaluation.elapsed_s, 4),
        "log_odds": pack_array(evaluation.log_odds),
    }
