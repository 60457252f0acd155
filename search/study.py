"""The Optuna study of a run: opening it, what it records, and reading it back as an outcome.

The study carries everything that results need (layers, labels, FP32 scores, each trial's log-odds), so that a front
and a report are made from the storage alone.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import optuna
from filelock import FileLock
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from objectives.errors import InputError
from objectives.layers import WIDTHS, Bits, Layer
from objectives.problem import Evaluation, Problem
from objectives.scores import LogOdds, Scores, score
from objectives.sizes import Footprint
from results.outcome import Origin, Outcome, Quality, Trial
from search.contenders import Contender
from search.feasible import SizeConstraint

optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY_SCHEMA = "bitfront-study-1"
STUDY_NAME = "bitfront"
_CONTEXT, _EVALUATION, _CONFIRMATION = "context", "evaluation", "confirmation of trial"
_ORIGIN, _LABEL, _FAILURE = "origin", "label", "failure"


class _ProcessLock(JournalFileOpenLock):
    """A journal lock that the system releases when its process dies; Optuna's own stalls the next start for 30 s."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def journal_storage(path: Path) -> BaseStorage:
    """Return the storage of a journal file, made when it is missing."""
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_ProcessLock(path.with_name(f".{path.name}.lock"))))


def open_study(
    storage: BaseStorage,
    problem: Problem,
    quality: Quality,
    constraint: SizeConstraint,
    sampler: BaseSampler,
    contenders: Sequence[Contender],
    reference_note: str = "",
    provenance: Sequence[tuple[str, str]] = (),
) -> optuna.Study:
    """Open the run's study, making it when it is missing, and enqueue what must be evaluated first.

    A trial that a dead process left half-done is marked failed and enqueued again.

    Args:
        storage: where the study lies.
        problem: what is searched.
        quality: the first objective; size is the second.
        constraint: the size constraint.
        sampler: who proposes maps.
        contenders: the first trials, whether they meet the constraint or not.
        reference_note: why the documented configuration is not among them.
        provenance: further facts to show in the report.
    """
    direction: Literal["minimize", "maximize"] = "minimize" if quality == "damage" else "maximize"
    study = optuna.create_study(
        storage=storage,
        sampler=sampler,
        study_name=STUDY_NAME,
        directions=[direction, "minimize"],
        load_if_exists=True,
    )
    if _CONTEXT not in study.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([quality, f"{constraint.axis}_bits_per_weight"])
        study.set_user_attr(_CONTEXT, _context(problem, quality, constraint, reference_note, provenance))

    trials = study.get_trials(deepcopy=False)
    names = [layer.name for layer in problem.layers]
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            if len(trial.params) == len(names) and trial.user_attrs.get(_ORIGIN, "sampler") == "sampler":
                study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
    settled = {
        trial.user_attrs.get(_LABEL)
        for trial in trials
        if trial.state == TrialState.WAITING or (trial.state.is_finished() and not _interrupted(trial))
    }
    distinct: dict[Bits, Contender] = {}  # a plain allocation can be a uniform map, and no map is evaluated twice
    for contender in contenders:
        distinct.setdefault(contender.bits, contender)
    for contender in distinct.values():
        if contender.label not in settled:
            widths = dict(zip(names, contender.bits, strict=True))
            study.enqueue_trial(widths, user_attrs={_ORIGIN: contender.origin, _LABEL: contender.label})
    return study


def load_study(path: Path) -> optuna.Study:
    """Open the study of a run for reading.

    Raises:
        InputError: the journal is missing, damaged, or holds no study of ours.
    """
    if not path.is_file():
        raise InputError(f"{path}: the run has no study yet; start it again with `bitfront search`")
    try:
        study = optuna.load_study(study_name=STUDY_NAME, storage=journal_storage(path))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a study ({error}); start another run") from None
    if study.user_attrs.get(_CONTEXT, {}).get("schema") != STUDY_SCHEMA:
        raise InputError(f"{path}: the study is of another version or not complete yet; start the search again")
    return study


def ask(study: optuna.Study, layers: Sequence[Layer]) -> tuple[optuna.Trial, Bits]:
    """Begin a trial and return it with its map."""
    trial = study.ask()
    trial.relative_params  # noqa: B018  # shows an enqueued map to the sampler too, which else never hears of it
    return trial, tuple(trial.suggest_int(layer.name, WIDTHS[0], WIDTHS[-1]) for layer in layers)


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


def recorded_log_odds(trial: FrozenTrial) -> LogOdds | None:
    """Return the log-odds ``(n_sentences,)`` of a trial's map; None where it has no scores."""
    recorded: dict[str, Any] | None = trial.user_attrs.get(_EVALUATION)
    return _unpack(recorded["log_odds"], np.float32) if recorded and trial.state == TrialState.COMPLETE else None


def finished(study: optuna.Study) -> int:
    """Return how many maps have been evaluated, failed evaluations included and interrupted ones not."""
    return sum(trial.state.is_finished() and not _interrupted(trial) for trial in study.get_trials(deepcopy=False))


def outcome(study: optuna.Study, name: str) -> Outcome:
    """Return all that the study has found so far."""
    context = study.user_attrs[_CONTEXT]
    layers = tuple(Layer(**layer) for layer in context["layers"])
    labels = _unpack(context["labels"], np.int8)
    fp32_log_odds = _unpack(context["fp32_log_odds"], np.float32)
    footprint = Footprint(layers=layers, kept={key: tuple(shape) for key, shape in context["kept"].items()})
    constraint = SizeConstraint(footprint, context["size_axis"], context["min_compression"])
    frozen = study.get_trials(deepcopy=False)
    began = min((trial.datetime_start for trial in frozen if trial.datetime_start), default=None)
    trials = []
    for trial in frozen:
        if not trial.state.is_finished() or _interrupted(trial) or len(trial.params) != len(layers):
            continue
        assert began is not None
        assert trial.datetime_complete is not None
        confirmation = study.user_attrs.get(f"{_CONFIRMATION} {trial.number}")
        finished_s = (trial.datetime_complete - began).total_seconds()
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
        in_domain=None if context["in_domain"] is None else _unpack(context["in_domain"], np.bool_),
        fp32_log_odds=fp32_log_odds,
        fp32=score(fp32_log_odds, labels, fp32_log_odds),
        reference_note=context["reference_note"],
        trials=tuple(trials),
        provenance=tuple((key, value) for key, value in context["provenance"]),
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
        "layers": [asdict(layer) for layer in problem.layers],
        "kept": {key: list(shape) for key, shape in problem.footprint.kept.items()},
        "quality": quality,
        "size_axis": constraint.axis,
        "min_compression": constraint.min_compression,
        "labels": _pack(problem.labels),
        "in_domain": None if problem.in_domain is None else _pack(problem.in_domain),
        "fp32_log_odds": _pack(problem.fp32_log_odds),
        "reference_note": reference_note,
        "provenance": [list(pair) for pair in provenance],
    }


def _trial(
    trial: FrozenTrial, confirmation: dict[str, Any] | None, constraint: SizeConstraint, finished_s: float
) -> Trial:
    footprint = constraint.footprint
    bits = tuple(int(trial.params[layer.name]) for layer in footprint.layers)
    recorded: dict[str, Any] | None = trial.user_attrs.get(_EVALUATION) if trial.state == TrialState.COMPLETE else None
    packed_bytes = recorded["packed_bytes"] if recorded else footprint.packed_bytes(bits)
    elapsed_s = recorded["elapsed_s"] if recorded else 0.0
    recorded = confirmation or recorded
    return Trial(
        number=trial.number,
        origin=cast(Origin, trial.user_attrs.get(_ORIGIN, "sampler")),
        label=trial.user_attrs.get(_LABEL, f"trial {trial.number}"),
        bits=bits,
        nominal_compression=footprint.compression(bits, "nominal"),
        packed_compression=footprint.fp32_packed_bytes / packed_bytes,
        feasible=constraint.excess_bits(bits) <= 0,
        scores=Scores(**{field.name: recorded[field.name] for field in fields(Scores)}) if recorded else None,
        log_odds=_unpack(recorded["log_odds"], np.float32) if recorded else None,
        elapsed_s=elapsed_s,
        finished_s=finished_s,
        precision=recorded["precision"] if recorded else "fp32",
        failure="" if recorded else trial.user_attrs.get(_FAILURE, "no scores were recorded"),
    )


def _recorded(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **asdict(evaluation.scores),
        "precision": evaluation.precision,
        "elapsed_s": round(evaluation.elapsed_s, 4),
        "log_odds": _pack(evaluation.log_odds),
    }


def _interrupted(trial: FrozenTrial) -> bool:
    # A trial that fails in our hands says why; one that only failed was left behind by a dead process.
    return trial.state == TrialState.FAIL and _FAILURE not in trial.user_attrs


def _pack(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _unpack(text: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    array = np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
    array.flags.writeable = False
    return array
