"""A worker: it claims a map, evaluates it and records the scores, in this process or in a process of a pool."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any, Literal, cast

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from objectives.cache import cache_directory
from objectives.errors import InputError, NotFiniteError, is_out_of_memory
from objectives.evaluation.precision import faster_precision
from objectives.layers import BitMap
from objectives.loading.fingerprint import Fingerprint
from objectives.loading.models import Classifier
from objectives.metrics import METRIC_NAMES
from objectives.packing.footprint import Footprint
from objectives.problem import Evaluation, Problem, load_problem
from objectives.scores import Precision
from results.export.onnx import check_onnx
from search.allocation.baselines import knapsack_maps
from search.allocation.constraint import NoMapLeftError, SizeConstraint
from search.allocation.sensitivity import Sensitivities, measure
from search.run.profile import GUIDED, Profile
from search.samplers.guided import GuidedSampler
from search.samplers.optuna_samplers import FeasibleSampler
from search.storage.stores import Place, Store
from search.study.study import claim, enqueue_baselines, fail, retry_lost, tell, write_widths
from search.study.trials import begun, claimed, enqueued, exhausted

log = logging.getLogger("bitfront")

_NO_MAP_PAUSE_S = 0.5


def make_sampler(
    name: str, problem: Problem, constraint: SizeConstraint, sensitivities: Sensitivities | None, seed: int
) -> BaseSampler:
    """Return a sampler by its name; the guided one needs sensitivities."""
    if name != GUIDED:
        return FeasibleSampler(name, constraint, seed)
    assert sensitivities is not None
    return GuidedSampler(constraint, sensitivities, problem.fp32_log_odds, seed, problem.head)


def load_searched_problem(
    profile: Profile,
    report_progress: Callable[[str], None],
    check: Callable[[Fingerprint], None] = lambda _: None,
    check_sizes: Callable[[Footprint], object] = lambda _: None,
) -> Problem:
    """Load the problem of a profile; several workers share its codes in files.

    ``check`` may refuse its fingerprint, and ``check_sizes`` its layers and how they are stored.

    Precision auto is FP32 here, until ``with_precision`` decides. The sizes of ONNX files are measured if these are
    what counts.

    Raises:
        InputError: the package that measures them is missing, the model cannot be used, or no map is small enough.
    """
    if profile.size == "onnx":
        check_onnx()

    def sized(classifier: Classifier, footprint: Footprint) -> Footprint:
        if profile.size == "onnx":
            from results.export.onnx.model_file import onnx_sizes

            footprint = replace(footprint, onnx=onnx_sizes(classifier, footprint.scheme))
        constraint_of(profile, footprint)  # refused before minutes of calibration
        check_sizes(footprint)
        return footprint

    return load_problem(
        profile.model,
        profile.data,
        "fp32" if profile.precision == "auto" else profile.precision,
        profile.device,
        profile.quantizer,
        report_progress=report_progress,
        bank_in_files=profile.workers > 1,
        confirm=profile.confirm,
        group_size=profile.group_size,
        known_scores=check,
        options=profile.data_options,
        metric=profile.metric,
        sized=sized,
    )


def with_precision(
    profile: Profile, problem: Problem, recorded: Precision | Literal["auto"]
) -> tuple[Profile, Problem]:
    """Return a profile and its problem with the precision that auto stands for: ``recorded``, else the faster one."""
    if profile.precision != "auto":
        return profile, problem
    problem = problem.searching_in(faster_precision(problem.network) if recorded == "auto" else recorded)
    return replace(profile, precision=problem.search_evaluator.precision), problem


def constraint_of(profile: Profile, footprint: Footprint) -> SizeConstraint:
    """Return the size constraint of a profile."""
    return SizeConstraint(footprint, profile.size, profile.min_compression, profile.widths)


@dataclass(frozen=True)
class Worker:
    """Evaluates maps of one study.

    Attributes:
        store: the study's storage.
        study: the study, with its sampler.
        problem: the model and its sentences.
        constraint: the size constraint.
        profile: the settings of the search.
        should_stop: once true, the worker claims no further map and does not wait for an unreachable storage.
    """

    store: Store
    study: optuna.Study
    problem: Problem
    constraint: SizeConstraint
    profile: Profile
    should_stop: Callable[[], bool]

    def evaluate_next(self, enqueued_only: bool = False) -> bool:
        """Evaluate one more map; return False if none is left, or the trial limit is reached.

        With ``enqueued_only`` the sampler proposes none.

        Raises:
            MemoryError: the evaluation runs out of memory.
            StorageLostError: the storage cannot be reached any more.
        """
        with ExitStack() as heartbeat:
            interrupted: list[int] = []
            try:
                claimed_trial = self.store.patiently(
                    lambda: self._claim(heartbeat, interrupted, enqueued_only), self.should_stop
                )
            except UpdateFinishedTrialError:
                return True  # this process lost the lock, and another one ended the trial
            if claimed_trial is None:
                return False
            trial, bit_map = claimed_trial
            name = trial.user_attrs.get("label", f"trial {trial.number}")
            if not self._record(trial, lambda: self._write_widths(trial)):
                return True
            try:
                evaluation = self._evaluate(bit_map)
            except NotFiniteError as error:  # it fails this map only
                reason = str(error)
                self._record(trial, lambda: fail(self.study, trial, reason))
                log.warning("%s failed: %s", name, error)
                return True
            quality = self.profile.quality
            self._record(trial, lambda: tell(self.study, trial, bit_map, evaluation, self.constraint, quality))
        log.debug(
            "%s: %.4fx nominal, damage %.5f, %s %.4f, %.2f s",
            name,
            self.problem.footprint.compression(bit_map, "nominal"),
            evaluation.scores.damage,
            METRIC_NAMES[self.problem.metric],
            evaluation.scores.metric,
            evaluation.elapsed_s,
        )
        return True

    def search_with(self, sensitivities: Sensitivities) -> None:
        """Enqueue the knapsack's maps; the sampler of the profile proposes from now on."""
        problem, profile = self.problem, self.profile
        self.study.sampler = make_sampler(profile.sampler, problem, self.constraint, sensitivities, profile.seed)
        if isinstance(self.study.sampler, GuidedSampler):
            log.info("interaction shrinkage %.2f (0 treats layers as independent)", self.study.sampler.shrinkage)
        baselines = knapsack_maps(sensitivities.damages, self.constraint)

        def enqueue() -> None:
            with self.store.exclusive():
                enqueue_baselines(self.study, [layer.name for layer in problem.layers], baselines)

        self.store.patiently(enqueue, self.should_stop)

    def _claim(
        self, heartbeat: ExitStack, interrupted: list[int], enqueued_only: bool
    ) -> tuple[optuna.Trial, BitMap] | None:
        """Begin a trial with a map that no other trial has; return None if no map is left or the search should end.

        The map is proposed and claimed in one step, while this process holds the study.

        Args:
            heartbeat: gets the context that shows other processes that this one is alive.
            interrupted: numbers of trials that this call began before the storage went away; extended in place.
            enqueued_only: whether to claim enqueued maps only.
        """
        names = [layer.name for layer in self.problem.layers]
        with self.store.exclusive():
            heartbeat.close()
            for number in interrupted:
                if self.study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
                    self.study.tell(number, state=TrialState.FAIL)
                    retry_lost(self.study, names)
            if self.store.fail_abandoned(self.study, claimed):
                retry_lost(self.study, names, blamed=True)
            limit_reached = self.profile.trials and begun(self.study) >= self.profile.trials
            if self.should_stop() or limit_reached or exhausted(self.study):
                return None
            if enqueued_only and not enqueued(self.study):
                return None

            def on_begin(trial: optuna.Trial) -> None:
                interrupted.append(trial.number)
                heartbeat.enter_context(self.store.living(trial))

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
            write_widths(trial, self.problem.layers, self.constraint.widths)

    def _record(self, trial: optuna.Trial, write: Callable[[], object]) -> bool:
        """Write to a trial's record; return False if another process has declared the trial dead."""
        attempts = 0

        def write_once() -> None:
            nonlocal attempts
            attempts += 1
            # The last attempt may have been written although its reply was lost; then the trial has ended.
            if attempts == 1 or self.study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
                write()

        try:
            self.store.patiently(write_once, self.should_stop)
        except UpdateFinishedTrialError:
            log.warning("trial %d: another process declared this one dead; the map is tried again", trial.number)
            return False
        return True


_OUT_OF_MEMORY = "the evaluation of a map ran out of memory; use fewer --workers"


@dataclass(frozen=True)
class Job:
    """What a worker's process needs to know.

    Attributes:
        profile: the settings of the search.
        place: where the study is stored.
        fingerprint: of the problem that the parent loaded.
        threads: number of threads for each worker.
    """

    profile: Profile
    place: Place
    fingerprint: Fingerprint
    threads: int


Message = logging.LogRecord | str | None
"""What a worker sends its parent: a log record, None after each map, or the reason of its exit."""


def work(job: Job, parent: Connection) -> None:
    """Evaluate maps until the parent asks to stop or dies; the main function of a worker's process."""
    should_stop, connected = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(parent, should_stop, connected), daemon=True).start()
    # Only the parent writes the log.
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


def _listen(parent: Connection, should_stop: threading.Event, connected: threading.Event) -> None:
    """Pass on the parent's request to stop; exit at once if no study is open yet, or if the parent dies."""
    with suppress(EOFError, OSError):
        parent.recv()
        should_stop.set()
        if not connected.is_set():
            os._exit(0)
        parent.recv()
    os._exit(1)  # without clean-up: nobody reads the pipe any more


def _connect(job: Job, should_stop: Callable[[], bool]) -> Worker:
    """Load the problem and open the study."""
    torch.set_num_threads(job.threads)
    profile = job.profile
    problem = load_searched_problem(profile, log.debug)
    if problem.fingerprint != job.fingerprint:
        raise InputError(f"{profile.model}: weights or sentences changed during the start; start the search again")
    sensitivities = None
    if profile.sensitivity != "none":
        sensitivities = measure(
            problem, cache_directory(), profile.sensitivity, widths=profile.widths
        )  # cached by the parent
    constraint = constraint_of(profile, problem.footprint)
    sampler = make_sampler(profile.sampler, problem, constraint, sensitivities, profile.seed)
    store = job.place.open_patiently(should_stop)
    study = store.patiently(
        lambda: optuna.load_study(study_name=store.study_name, storage=store.backend, sampler=sampler), should_stop
    )
    return Worker(store, study, problem, constraint, profile, should_stop)
