"""The Optuna study of a run: opening it, what it records, and reading it back as an outcome.

The study carries everything that results need (layers, labels, FP32 scores, each trial's log-odds), so that a front
and a report are made from the storage alone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from objectives.errors import InputError, all_faults
from objectives.layers import WIDTHS, Bits, Layer
from objectives.problem import Evaluation, Problem
from objectives.schemes import Scheme
from objectives.scores import LogOdds, Scores, score
from objectives.sizes import Footprint
from results.outcome import Origin, Outcome, Quality, Trial
from search.arrays import pack_array, unpack_array
from search.contenders import Contender
from search.feasible import NoMapLeftError, SizeConstraint
from search.opening import read_opening
from search.storage import STUDY_NAME, Place, journal_storage
from search.unseen import read_unseen

log = logging.getLogger("bitfront")
optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY_SCHEMA = "bitfront-study-1"
MOST_ATTEMPTS = 3
"""After so many workers have died of one map it counts as failed."""
_CONTEXT, _EVALUATION, _CONFIRMATION = "context", "evaluation", "confirmation of trial"
_ORIGIN, _LABEL, _FAILURE, _ATTEMPT, _MAP = "origin", "label", "failure", "attempt", "map"
_NO_MAP = "no map left"


class NoStudyError(InputError):
    """A run has no study yet, or one that is still being made."""


def open_study(
    storage: BaseStorage,
    problem: Problem,
    quality: Quality,
    constraint: SizeConstraint,
    sampler: BaseSampler,
    contenders: Sequence[Contender],
    reference_note: str = "",
    provenance: Sequence[tuple[str, str]] = (),
    name: str = STUDY_NAME,
    shared: bool = False,
) -> optuna.Study:
    """Open the run's study, making it when it is missing, and enqueue what must be evaluated first.

    A trial that a dead process left half-done is marked failed and enqueued again. Hold the study exclusively.

    Args:
        storage: where the study lies.
        problem: what is searched.
        quality: the first objective; size is the second.
        constraint: the size constraint.
        sampler: who proposes maps.
        contenders: the first trials, whether they meet the constraint or not.
        reference_note: why the documented configuration is not among them.
        provenance: further facts to show in the report.
        name: the study's name in the storage.
        shared: whether others may work on it now; else every running trial is a dead process's.

    Raises:
        InputError: the study is of another model, of other sentences or of another objective; the message says which.
    """
    context = _context(problem, quality, constraint, reference_note, provenance)
    try:
        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
    except KeyError:
        study = optuna.create_study(storage=storage, sampler=sampler, study_name=name, directions=directions(quality))
    if _CONTEXT not in study.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([quality, f"{constraint.axis}_bits_per_weight"])
        study.set_user_attr(_CONTEXT, context)
    recorded = study.user_attrs[_CONTEXT]
    _check_same(recorded, context, f"study {name!r}")
    warn_of_other_codes(recorded.get("codes"), problem, f"study {name!r}")

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not shared:
            study.tell(trial.number, state=TrialState.FAIL)
    names = [layer.name for layer in problem.layers]
    retry_lost(study, names)
    standing = [trial for trial in trials_of(study) if not _interrupted(trial)]
    labels = {trial.user_attrs.get(_LABEL) for trial in standing}
    maps = {map_of(trial, names) for trial in standing}
    for contender in contenders:  # a plain allocation can be a uniform map, and no map is evaluated twice
        if contender.label not in labels and contender.bits not in maps:
            maps.add(contender.bits)
            _enqueue(study, names, contender.bits, {_ORIGIN: contender.origin, _LABEL: contender.label})
    return study


def directions(quality: Quality) -> list[StudyDirection]:
    """Return which way a study's objectives go: the quality's, and that of the size."""
    first = StudyDirection.MINIMIZE if quality == "damage" else StudyDirection.MAXIMIZE
    return [first, StudyDirection.MINIMIZE]


def retry_lost(study: optuna.Study, names: Sequence[str], blamed: bool = False) -> int:
    """Enqueue again every map whose trial was interrupted and that no other trial has, and return how many.

    A pure function of what the study holds: it may itself be interrupted and repeated. Hold the study exclusively.

    Args:
        study: the study.
        names: its layers.
        blamed: the process died while others lived on, so that the map may be what killed it; after
            ``MOST_ATTEMPTS`` of these it is not tried again.
    """
    trials = trials_of(study)
    maps = {map_of(trial, names) for trial in trials if not _interrupted(trial)}
    lost: dict[Bits, FrozenTrial] = {}
    for trial in trials:
        bits = map_of(trial, names)
        if bits is not None and bits not in maps:
            lost[bits] = trial  # the last attempt counts
    for bits, trial in lost.items():
        attributes = {key: value for key, value in trial.user_attrs.items() if key in (_ORIGIN, _LABEL)}
        attempt = trial.user_attrs.get(_ATTEMPT, 1) + blamed
        _enqueue(study, names, bits, {**attributes, _ATTEMPT: attempt})
    return len(lost)


def _enqueue(study: optuna.Study, names: Sequence[str], bits: Bits, attributes: Mapping[str, object]) -> None:
    study.enqueue_trial(dict(zip(names, bits, strict=True)), user_attrs={**attributes, _MAP: list(bits)})


def map_of(trial: FrozenTrial, names: Sequence[str]) -> Bits | None:
    """Return a trial's map, claimed or enqueued; None where nobody has claimed one for it yet."""
    if claimed(trial):
        return tuple(trial.user_attrs[_MAP])
    widths = trial.params if len(trial.params) == len(names) else trial.system_attrs.get("fixed_params", {})
    return tuple(widths[name] for name in names) if len(widths) == len(names) else None


def claimed(trial: FrozenTrial) -> bool:
    """Return whether a trial has its map."""
    return _MAP in trial.user_attrs


def check_joinable(
    storage: BaseStorage, name: str, problem: Problem, quality: Quality, constraint: SizeConstraint
) -> None:
    """Check, before anything is written, that a study others may have made is of this very search.

    Raises:
        InputError: it is of another model, of other sentences or of another objective; the message says which.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return
    if recorded := study.user_attrs.get(_CONTEXT):
        _check_same(recorded, _context(problem, quality, constraint, "", ()), f"study {name!r}")


def _check_same(recorded: Mapping[str, Any], asked: Mapping[str, Any], subject: str) -> None:
    if recorded.get("schema") != STUDY_SCHEMA:
        raise InputError(f"{subject}: is of another version; give --run another directory")
    keys = ("quality", "size_axis", "min_compression")
    pairs = [(key.replace("_", " "), recorded.get(key), asked[key]) for key in keys]
    pairs += [(key, recorded["fingerprint"].get(key), value) for key, value in asked["fingerprint"].items()]
    faults = [f"{key} was {before!r} and is now {now!r}" for key, before, now in pairs if before != now]
    if faults:
        raise all_faults(f"{subject}: is another search; give --run another directory", faults)


def warn_of_other_codes(recorded: str | None, problem: Problem, subject: str) -> None:
    """Say so where maps were scored with codes that another machine calibrated: equal in all but some roundings."""
    if recorded and problem.codes and recorded != problem.codes:
        log.warning(
            "%s: its maps were scored with codes that were calibrated on another machine, or by another number of "
            "threads, and differ a little from those here; to have the very same, copy its cache's bank-* here",
            subject,
        )


def load_study(where: Path | Place) -> optuna.Study:
    """Open the study of a run for reading.

    Args:
        where: its journal, or wherever else it lies.

    Raises:
        NoStudyError: it has not been made yet.
        InputError: the journal is damaged, the study is none of ours, or the database cannot be reached.
    """
    place = where if isinstance(where, Place) else Place(where)
    if place.url:
        store = place.open()
        storage, subject = store.backend, f"study {place.study_name!r}"
    else:
        subject = str(place.journal)
        if not place.journal.is_file():
            raise NoStudyError(f"{subject}: the run has no study yet; start it again with `bitfront search`")
        storage = journal_storage(place.journal)
    try:
        study = optuna.load_study(study_name=place.study_name, storage=storage)
    except KeyError as error:
        raise NoStudyError(f"{subject}: cannot be read as a study ({error}); start another run") from None
    context = study.user_attrs.get(_CONTEXT)
    if context is None:
        raise NoStudyError(f"{subject}: the study is not complete yet; start the search again")
    if context.get("schema") != STUDY_SCHEMA:
        raise InputError(f"{subject}: the study is of another version; start another run")
    return study


def claim(
    study: optuna.Study, layers: Sequence[Layer], on_begin: Callable[[optuna.Trial], object] = lambda trial: None
) -> tuple[optuna.Trial, Bits]:
    """Begin a trial and claim a map for it, which no other trial has if the study is held exclusively.

    The map is written in one piece; :func:`write_widths` then does it as Optuna has it, a parameter at a time.
    ``on_begin`` is told of the trial before its map is proposed.

    Raises:
        NoMapLeftError: there is no such map; the trial has ended, and from then on the study is :func:`exhausted`.
    """
    with warnings.catch_warnings():  # Optuna takes only its own loop for able to keep hearts beating
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        trial = study.ask()
    on_begin(trial)
    try:
        proposed = trial.relative_params  # shows an enqueued map to the sampler too, which else never hears of it
    except NoMapLeftError:
        trial.set_user_attr(_NO_MAP, True)
        study.tell(trial, state=TrialState.FAIL)
        raise
    if _MAP in trial.user_attrs:
        return trial, tuple(trial.user_attrs[_MAP])
    if not proposed:  # enqueued before maps were written in one piece
        return trial, write_widths(trial, layers)
    bits = tuple(int(proposed[layer.name]) for layer in layers)
    trial.set_user_attr(_MAP, list(bits))
    return trial, bits


def write_widths(trial: optuna.Trial, layers: Sequence[Layer]) -> Bits:
    """Write a trial's map as its parameters and return it."""
    return tuple(trial.suggest_int(layer.name, WIDTHS[0], WIDTHS[-1]) for layer in layers)


def ask(study: optuna.Study, layers: Sequence[Layer]) -> tuple[optuna.Trial, Bits]:
    """Begin a trial and return it with its map, where nobody else asks at the same time."""
    trial, _ = claim(study, layers)
    return trial, write_widths(trial, layers)


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    bits: Bits,
    evaluation: Evaluation,
    constraint: SizeConstraint,
    quality: Quality,
) -> None:
    """Record what a map scored and end its trial."""
    trial.set_constraint("size", constraint.violation(bits))
    trial.set_user_attr(_EVALUATION, {**_recorded(evaluation), "packed_bytes": constraint.footprint.packed_bytes(bits)})
    elements = sum(layer.elements for layer in constraint.footprint.layers)
    study.tell(trial, [getattr(evaluation.scores, quality), constraint.size_bits(bits) / elements])


def confirm(study: optuna.Study, number: int, evaluation: Evaluation) -> None:
    """Record what a finished trial's map scores in FP32; from then on these are its scores in every outcome."""
    study.set_user_attr(f"{_CONFIRMATION} {number}", _recorded(evaluation))


def fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """End a trial whose map has no scores and say why."""
    trial.set_user_attr(_FAILURE, reason)
    study.tell(trial, state=TrialState.FAIL)


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Return the study's trials as its storage holds them; they are not to be changed.

    Those that have ended share one description of the widths they could have. Optuna makes an object for each layer of
    each trial, which is a third of what a trial takes in memory, in every process for a whole night.
    """
    trials = study.get_trials(deepcopy=False)
    ended = [trial for trial in trials if trial.state.is_finished()]
    if ended:
        shared = max((trial.distributions for trial in ended), key=len)  # one may have ended before it had any
        for trial in ended:
            if trial.distributions is not shared and trial.distributions == shared:
                trial.distributions = shared
    return trials


def origin_of(trial: FrozenTrial) -> Origin:
    """Return where a trial's map came from."""
    return cast(Origin, trial.user_attrs.get(_ORIGIN, "sampler"))


def recorded_log_odds(trial: FrozenTrial) -> LogOdds | None:
    """Return the log-odds ``(n_sentences,)`` of a trial's map; None where it has no scores."""
    recorded: dict[str, Any] | None = trial.user_attrs.get(_EVALUATION)
    return unpack_array(recorded["log_odds"], np.float32) if recorded and trial.state == TrialState.COMPLETE else None


def finished(study: optuna.Study) -> int:
    """Return how many maps have been evaluated, failed evaluations included and interrupted ones not."""
    return sum(_settled(trial) for trial in trials_of(study))


def begun(study: optuna.Study) -> int:
    """Return how many maps have been evaluated or are being evaluated now."""
    trials = trials_of(study)
    return sum(_settled(trial) or trial.state == TrialState.RUNNING for trial in trials)


def exhausted(study: optuna.Study) -> bool:
    """Return whether every map that meets the constraint has been evaluated or is being evaluated now."""
    trials = trials_of(study)
    waiting = any(trial.state == TrialState.WAITING for trial in trials)
    return not waiting and any(_NO_MAP in trial.user_attrs for trial in trials)


def outcome(study: optuna.Study, name: str) -> Outcome:
    """Return all that the study has found so far."""
    context = study.user_attrs[_CONTEXT]
    layers = tuple(Layer(**layer) for layer in context["layers"])
    labels = unpack_array(context["labels"], np.int8)
    fp32_log_odds = unpack_array(context["fp32_log_odds"], np.float32)
    kept = {key: tuple(shape) for key, shape in context["kept"].items()}
    footprint = Footprint(layers, kept, Scheme(**context.get("scheme", {})))  # studies of old have the default's
    constraint = SizeConstraint(footprint, context["size_axis"], context["min_compression"])
    names = [layer.name for layer in layers]
    frozen = trials_of(study)
    attributes = study.user_attrs  # one query, where the study is in a database
    began = min((trial.datetime_start for trial in frozen if trial.datetime_start), default=None)
    trials = []
    for trial in frozen:
        if not _settled(trial) or map_of(trial, names) is None:
            continue
        assert began is not None
        assert trial.datetime_complete is not None
        confirmation = attributes.get(f"{_CONFIRMATION} {trial.number}")
        finished_s = max(0.0, (trial.datetime_complete - began).total_seconds())  # clocks may be set back
        trials.append(_trial(trial, confirmation, constraint, finished_s))
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
        fp32_log_odds=fp32_log_odds,
        fp32=score(fp32_log_odds, labels, fp32_log_odds),
        reference_note=context["reference_note"],
        trials=tuple(trials),
        provenance=tuple((key, value) for key, value in context["provenance"]),
        held_back=context.get("held_back", ""),
        confirmation=read_opening(study, finished(study)),
        unseen=read_unseen(study),
    )


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
        "held_back": "" if problem.confirmation is None else problem.confirmation.source,
        "provenance": [list(pair) for pair in provenance],
    }


def _trial(
    trial: FrozenTrial, confirmation: dict[str, Any] | None, constraint: SizeConstraint, finished_s: float
) -> Trial:
    footprint = constraint.footprint
    bits = map_of(trial, [layer.name for layer in footprint.layers])
    assert bits is not None
    recorded: dict[str, Any] | None = trial.user_attrs.get(_EVALUATION) if trial.state == TrialState.COMPLETE else None
    packed_bytes = recorded["packed_bytes"] if recorded else footprint.packed_bytes(bits)
    size_bits = 8 * packed_bytes if constraint.axis == "packed" else footprint.nominal_bits(bits)
    elapsed_s = recorded["elapsed_s"] if recorded else 0.0
    recorded = confirmation or recorded
    return Trial(
        number=trial.number,
        origin=origin_of(trial),
        label=trial.user_attrs.get(_LABEL, f"trial {trial.number}"),
        bits=bits,
        nominal_compression=footprint.compression(bits, "nominal"),
        packed_compression=footprint.fp32_packed_bytes / packed_bytes,
        feasible=size_bits <= constraint.largest_bits,
        scores=Scores(**{field.name: recorded[field.name] for field in fields(Scores)}) if recorded else None,
        log_odds=unpack_array(recorded["log_odds"], np.float32) if recorded else None,
        elapsed_s=elapsed_s,
        finished_s=finished_s,
        precision=recorded["precision"] if recorded else "fp32",
        failure="" if recorded else trial.user_attrs.get(_FAILURE, f"its process died each of {MOST_ATTEMPTS} times"),
    )


def _recorded(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **asdict(evaluation.scores),
        "precision": evaluation.precision,
        "elapsed_s": round(evaluation.elapsed_s, 4),
        "log_odds": pack_array(evaluation.log_odds),
    }


def _settled(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and not _interrupted(trial)


def _interrupted(trial: FrozenTrial) -> bool:
    # A trial that fails in our hands says why; one that only failed was left behind by a dead process.
    given_up = trial.user_attrs.get(_ATTEMPT, 1) >= MOST_ATTEMPTS
    return trial.state == TrialState.FAIL and _FAILURE not in trial.user_attrs and not given_up
