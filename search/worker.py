"""One worker: claims a map that nobody else has, evaluates it, records it; in this process or in one of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any, Literal

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from objectives.errors import InputError, is_out_of_memory
from objectives.fingerprint import Fingerprint
from objectives.layers import Bits
from objectives.problem import Evaluation, Problem, cache_directory, load_problem
from search.feasible import NoMapLeftError, SizeConstraint
from search.guided import GuidedSampler
from search.profile import GUIDED, Profile
from search.samplers import FeasibleSampler
from search.sensitivity import Sensitivities, measure
from search.storage import Place, Store
from search.study import claim, fail, retry_lost, tell, write_widths
from search.trials import begun, claimed, exhausted

log = logging.getLogger("bitfront")

_NO_ROOM_PAUSE_S = 0.5


def make_sampler(
    name: str, problem: Problem, constraint: SizeConstraint, sensitivities: Sensitivities | None, seed: int
) -> BaseSampler:
    """Return a sampler by its name; the guided one needs sensitivities."""
    if name != GUIDED:
        return FeasibleSampler(name, constraint, seed)
    assert sensitivities is not None
    return GuidedSampler(constraint, sensitivities, problem.fp32_log_odds, seed)


def load_searched_problem(profile: Profile, say: Callable[[str], None]) -> Problem:
    """Load what a profile searches; where there are several workers, its codes lie in files that they share."""
    return load_problem(
        profile.model,
        profile.data,
        profile.precision,
        profile.device,
        profile.quantizer,
        say=say,
        bank_in_files=profile.workers > 1,
        confirm=profile.confirm,
        group_size=profile.group_size,
    )


def constraint_of(profile: Profile, problem: Problem) -> SizeConstraint:
    """Return the size constraint that a profile asks for."""
    return SizeConstraint(problem.footprint, profile.size, profile.min_compression)


@dataclass(frozen=True)
class Worker:
    """What evaluates maps of one study.

    Attributes:
        store: the study's storage.
        study: the study, with the sampler that proposes.
        problem: the model and its sentences.
        constraint: the size constraint.
        profile: what was asked for.
        should_stop: whether the search is to end; then nobody waits for a storage that is away.
        announce: told a trial's number once its map is claimed, before others may claim theirs.
    """

    store: Store
    study: optuna.Study
    problem: Problem
    constraint: SizeConstraint
    profile: Profile
    should_stop: Callable[[], bool]
    announce: Callable[[int], object] = lambda number: None

    def evaluate_next(self) -> bool:
        """Evaluate one more map; False where the run has, or will have, as many as were asked for or as there are.

        Raises:
            MemoryError: the evaluation needs more memory than there is.
            StorageLostError: the storage stayed away.
        """
        with ExitStack() as life:
            broken_off: list[int] = []
            try:
                found = self.store.patiently(lambda: self._claim(life, broken_off), self.should_stop)
            except UpdateFinishedTrialError:
                return True  # the lock was lost on the way, and another process has ended the trial
            if found is None:
                return False
            trial, bits = found
            name = trial.user_attrs.get("label", f"trial {trial.number}")
            if not self._record(trial, lambda: self._write_widths(trial)):
                return True
            try:
                evaluation = self._evaluate(bits)
            except ValueError as error:  # scores that are not finite: the map is useless, the search is not
                reason = str(error)
                self._record(trial, lambda: fail(self.study, trial, reason))
                log.warning("%s failed: %s", name, error)
                return True
            quality = self.profile.quality
            self._record(trial, lambda: tell(self.study, trial, bits, evaluation, self.constraint, quality))
        log.debug(
            "%s: %.4fx nominal, damage %.5f, MCC %.4f, %.2f s",
            name,
            self.problem.footprint.compression(bits, "nominal"),
            evaluation.scores.damage,
            evaluation.scores.mcc,
            evaluation.elapsed_s,
        )
        return True

    def _claim(self, life: ExitStack, broken_off: list[int]) -> tuple[optuna.Trial, Bits] | None:
        """Begin a trial with a map that no other trial has; None where there shall be, or is, no further map.

        Whoever looks for a map and takes it does both while nobody else does.

        Args:
            life: takes what shows that the trial's process lives.
            broken_off: numbers of trials that were begun in vain, before the storage went away.
        """
        names = [layer.name for layer in self.problem.layers]
        with self.store.exclusive():
            life.close()
            for number in broken_off:
                if self.study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
                    self.study.tell(number, state=TrialState.FAIL)
                    retry_lost(self.study, names)
            if self.store.shared:
                self.store.fail_abandoned(self.study, claimed)
                retry_lost(self.study, names, blamed=True)
            if (self.profile.trials and begun(self.study) >= self.profile.trials) or exhausted(self.study):
                return None

            def on_begin(trial: optuna.Trial) -> None:
                broken_off.append(trial.number)
                life.enter_context(self.store.living(trial))

            try:
                begun_trial, bits = claim(self.study, self.problem.layers, on_begin)
            except NoMapLeftError:
                return None
            self.announce(begun_trial.number)
        return begun_trial, bits

    def _evaluate(self, bits: Bits) -> Evaluation:
        try:
            return self.problem.evaluate(bits)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise MemoryError(_OUT_OF_MEMORY) from error
            raise

    def _write_widths(self, trial: optuna.Trial) -> None:
        with self.store.together():
            write_widths(trial, self.problem.layers)

    def _record(self, trial: optuna.Trial, write: Callable[[], object]) -> bool:
        """Write something of a trial, and return False where others have given it up meanwhile."""

        attempts = 0

        def write_once() -> None:
            nonlocal attempts
            attempts += 1
            # Where only the answer to the last attempt was lost, the trial has ended already.
            if attempts == 1 or self.study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
                write()

        try:
            self.store.patiently(write_once, self.should_stop)
        except UpdateFinishedTrialError:
            log.warning("trial %d was given up as dead meanwhile; its map is tried again", trial.number)
            return False
        return True


_OUT_OF_MEMORY = "the evaluation of a map needs more memory than there is; use fewer --workers"


@dataclass(frozen=True)
class Job:
    """What a worker's process is told.

    Attributes:
        profile: what was asked for.
        sampler: who proposes.
        place: where the study lies.
        fingerprint: of the problem as the parent loaded it.
        threads: how many threads it may use.
    """

    profile: Profile
    sampler: str
    place: Place
    fingerprint: Fingerprint
    threads: int


Message = tuple[Literal["log", "claimed", "done", "failed"], Any]
"""What a worker tells its parent: ``log`` with a record's time, level and text; ``claimed`` with a trial's number;
``done`` after it; ``failed`` with why the worker ends."""


def work(job: Job, parent: Connection) -> None:
    """Evaluate maps until the parent says a word, or is gone; what a worker's process runs."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log.setLevel(logging.DEBUG)
    log.handlers = [_ToParent(parent)]
    log.propagate = False
    try:
        worker = _hired(job, parent)
        while not parent.poll():
            if worker.evaluate_next():
                parent.send(("done", None))
            elif parent.poll(_NO_ROOM_PAUSE_S):
                break
    except (InputError, OSError) as error:
        parent.send(("failed", str(error) or type(error).__name__))
        raise SystemExit(1) from None
    except Exception as error:
        if is_out_of_memory(error):
            parent.send(("failed", _OUT_OF_MEMORY))
            raise SystemExit(1) from None
        # A mistake of ours: its traceback goes to the terminal.
        parent.send(("failed", f"{type(error).__name__}: {error}"))
        raise


def _hired(job: Job, parent: Connection) -> Worker:
    torch.set_num_threads(job.threads)
    profile = job.profile
    problem = load_searched_problem(profile, log.debug)
    if problem.fingerprint != job.fingerprint:
        raise InputError(f"{profile.model}: its weights or sentences changed while the search was starting")
    sensitivities = None
    if profile.sensitivity != "none":
        sensitivities = measure(problem, cache_directory(), profile.sensitivity)  # the parent's, out of the cache
    constraint = constraint_of(profile, problem)
    sampler = make_sampler(job.sampler, problem, constraint, sensitivities, profile.seed)
    store = job.place.open_patiently(parent.poll)
    study = store.patiently(
        lambda: optuna.load_study(study_name=store.study_name, storage=store.backend, sampler=sampler), parent.poll
    )
    return Worker(
        store, study, problem, constraint, profile, parent.poll, lambda number: parent.send(("claimed", number))
    )


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # at once: whoever starts the run again takes this process for dead


class _ToParent(logging.Handler):
    """Sends lines to the parent, which alone writes the log."""

    def __init__(self, parent: Connection) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        self._parent.send(("log", (record.created, record.levelno, record.getMessage())))
