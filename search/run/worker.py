"""One worker: claims a map that nobody else has, evaluates and records it; in this process or in one of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any, cast

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from objectives.errors import InputError, is_out_of_memory
from objectives.layers import BitMap
from objectives.loading.fingerprint import Fingerprint
from objectives.problem import Evaluation, Problem, cache_directory, load_problem
from search.allocation.constraint import NoMapLeftError, SizeConstraint
from search.allocation.sensitivity import Sensitivities, measure
from search.run.profile import GUIDED, Profile
from search.samplers.guided import GuidedSampler
from search.samplers.optuna_samplers import FeasibleSampler
from search.storage.stores import Place, Store
from search.study.study import claim, fail, retry_lost, tell, write_widths
from search.study.trials import begun, claimed, exhausted

log = logging.getLogger("bitfront")

_NO_MAP_PAUSE_S = 0.5


def make_sampler(
    name: str, problem: Problem, constraint: SizeConstraint, sensitivities: Sensitivities | None, seed: int
) -> BaseSampler:
    """Return a sampler by its name; the guided one needs sensitivities."""
    if name != GUIDED:
        return FeasibleSampler(name, constraint, seed)
    assert sensitivities is not None
    return GuidedSampler(constraint, sensitivities, problem.fp32_log_odds, seed)


def load_searched_problem(profile: Profile, report_progress: Callable[[str], None]) -> Problem:
    """Load what a profile searches; several workers share its codes in files."""
    return load_problem(
        profile.model,
        profile.data,
        profile.precision,
        profile.device,
        profile.quantizer,
        report_progress=report_progress,
        bank_in_files=profile.workers > 1,
        confirm=profile.confirm,
        group_size=profile.group_size,
    )


def constraint_of(profile: Profile, problem: Problem) -> SizeConstraint:
    """Return the size constraint that a profile asks for."""
    return SizeConstraint(problem.footprint, profile.size, profile.min_compression)


@dataclass(frozen=True)
class Worker:
    """Evaluates maps of one study.

    Attributes:
        store: the study's storage.
        study: the study, with the sampler that proposes.
        problem: the model and its sentences.
        constraint: the size constraint.
        profile: what was asked for.
        should_stop: whether the search is to end; then no further map is claimed, and no absent storage waited for.
    """

    store: Store
    study: optuna.Study
    problem: Problem
    constraint: SizeConstraint
    profile: Profile
    should_stop: Callable[[], bool]

    def evaluate_next(self) -> bool:
        """Evaluate one more map; return False if there is none to evaluate, or as many as were asked for are begun.

        Raises:
            MemoryError: the evaluation needs more memory than there is.
            StorageLostError: the storage stayed away.
        """
        with ExitStack() as life:
            broken_off: list[int] = []
            try:
                begun_trial = self.store.patiently(lambda: self._claim(life, broken_off), self.should_stop)
            except UpdateFinishedTrialError:
                return True  # the lock was lost meanwhile, and another process has ended the trial
            if begun_trial is None:
                return False
            trial, bit_map = begun_trial
            name = trial.user_attrs.get("label", f"trial {trial.number}")
            if not self._record(trial, lambda: self._write_widths(trial)):
                return True
            try:
                evaluation = self._evaluate(bit_map)
            except ValueError as error:  # scores that are not finite: only this map is useless
                reason = str(error)
                self._record(trial, lambda: fail(self.study, trial, reason))
                log.warning("%s failed: %s", name, error)
                return True
            quality = self.profile.quality
            self._record(trial, lambda: tell(self.study, trial, bit_map, evaluation, self.constraint, quality))
        log.debug(
            "%s: %.4fx nominal, damage %.5f, MCC %.4f, %.2f s",
            name,
            self.problem.footprint.compression(bit_map, "nominal"),
            evaluation.scores.damage,
            evaluation.scores.mcc,
            evaluation.elapsed_s,
        )
        return True

    def _claim(self, life: ExitStack, broken_off: list[int]) -> tuple[optuna.Trial, BitMap] | None:
        """Begin a trial with a map that no other trial has; None if no further map is wanted or left.

        Proposing a map and claiming it happen in one piece, while this process holds the study.

        Args:
            life: takes what shows others that the trial's process is alive.
            broken_off: numbers of the trials that were begun before the storage went away; this adds to them.
        """
        names = [layer.name for layer in self.problem.layers]
        with self.store.exclusive():
            life.close()
            for number in broken_off:
                if self.study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
                    self.study.tell(number, state=TrialState.FAIL)
                    retry_lost(self.study, names)
            if self.store.fail_abandoned(self.study, claimed):
                retry_lost(self.study, names, blamed=True)
            enough = self.profile.trials and begun(self.study) >= self.profile.trials
            if self.should_stop() or enough or exhausted(self.study):
                return None

            def on_begin(trial: optuna.Trial) -> None:
                broken_off.append(trial.number)
                life.enter_context(self.store.living(trial))

            try:
                return claim(self.study, self.problem.layers, on_begin)
            except NoMapLeftError:
                return None

    def _evaluate(self, bit_map: BitMap) -> Evaluation:
        try:
            return self.problem.evaluate(bit_map)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise MemoryError(_OUT_OF_MEMORY) from error
            raise

    def _write_widths(self, trial: optuna.Trial) -> None:
        with self.store.together():
            write_widths(trial, self.problem.layers)

    def _record(self, trial: optuna.Trial, write: Callable[[], object]) -> bool:
        """Write something of a trial; return False if others have taken it for dead meanwhile."""
        attempts = 0

        def write_once() -> None:
            nonlocal attempts
            attempts += 1
            # If only the answer to the last attempt was lost, the trial has ended already.
            if attempts == 1 or self.study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
                write()

        try:
            self.store.patiently(write_once, self.should_stop)
        except UpdateFinishedTrialError:
            log.warning("trial %d: another process took this one for dead; the map is tried again", trial.number)
            return False
        return True


_OUT_OF_MEMORY = "the evaluation of a map needs more memory than there is; use fewer --workers"


@dataclass(frozen=True)
class Job:
    """What a worker's process needs to know.

    Attributes:
        profile: what was asked for.
        sampler: the sampler's name.
        place: where the study is stored.
        fingerprint: of the problem as the parent loaded it.
        threads: how many threads it may use.
    """

    profile: Profile
    sampler: str
    place: Place
    fingerprint: Fingerprint
    threads: int


Message = logging.LogRecord | str | None
"""What a worker sends its parent: a log record; None after each map; or, as text, why it ends."""


def work(job: Job, parent: Connection) -> None:
    """Evaluate maps until the parent asks to stop, or dies; this is what a worker's process runs."""
    should_stop, connected = threading.Event(), threading.Event()
    threading.Thread(target=_obey, args=(parent, should_stop, connected), daemon=True).start()
    # The parent alone writes the log.
    handler = QueueHandler(cast(Any, SimpleNamespace(put_nowait=parent.send)))
    handler.setFormatter(logging.Formatter("%(processName)s: %(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        worker = _connect(job, should_stop.is_set)
        connected.set()
        while not should_stop.is_set():
            if worker.evaluate_next():
                parent.send(None)
            else:
                should_stop.wait(_NO_MAP_PAUSE_S)
    except (InputError, OSError) as error:
        parent.send(str(error) or type(error).__name__)
        raise SystemExit(1) from None
    except Exception as error:
        if is_out_of_memory(error):
            parent.send(_OUT_OF_MEMORY)
            raise SystemExit(1) from None
        # A bug: its traceback goes to the terminal.
        parent.send(f"{type(error).__name__}: {error}")
        raise


def _obey(parent: Connection, should_stop: threading.Event, connected: threading.Event) -> None:
    """Stop when the parent says so: at once if no map can be in hand yet. Exit when the parent dies."""
    with suppress(EOFError, OSError):
        parent.recv()
        should_stop.set()
        if not connected.is_set():
            os._exit(0)
        parent.recv()
    os._exit(1)  # at once: nobody reads what this process would send


def _connect(job: Job, should_stop: Callable[[], bool]) -> Worker:
    """Load the problem and open the study."""
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
    store = job.place.open_patiently(should_stop)
    study = store.patiently(
        lambda: optuna.load_study(study_name=store.study_name, storage=store.backend, sampler=sampler), should_stop
    )
    return Worker(store, study, problem, constraint, profile, should_stop)
