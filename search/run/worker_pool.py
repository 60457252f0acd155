"""A pool of worker processes, watched by the process that started them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import torch

from search.run.signals import blocked_signals
from search.run.worker import Job, Message, Worker, work
from search.storage.stores import Store
from search.study.study import retry_lost
from search.study.trials import claimed

log = logging.getLogger("bitfront")

_PAUSE_S = 0.5
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class _WorkerProcess:
    """A worker as its parent sees it: how many maps it has finished, and the reason of its exit if it gave one."""

    name: str
    process: BaseProcess
    pipe: Connection
    done: int = 0
    exit_reason: str = ""

    def receive(self) -> bool:
        """Handle the messages that the worker has sent; return whether it is alive."""
        try:
            while self.pipe.poll():
                message: Message = self.pipe.recv()
                match message:
                    case logging.LogRecord():
                        log.handle(message)
                    case str():
                        self.exit_reason = message
                    case None:
                        self.done += 1
        except (EOFError, OSError):
            self.process.join()
            return False
        return True


class WorkerPool:
    """Worker processes that share a study.

    If a worker dies, another tries its map again. If it had finished any map, a new worker replaces it.
    """

    def __init__(self, job: Job, store: Store, study: optuna.Study, names: Sequence[str]) -> None:
        """Start the processes.

        Args:
            job: passed to every worker; its profile has the number of workers.
            store: the study's storage, opened by this process.
            study: the study.
            names: the names of the layers.
        """
        self._job = job
        self._store = store
        self._study = study
        self._names = names
        self._workers: list[_WorkerProcess] = []
        try:
            for number in range(1, job.profile.workers + 1):
                self._workers.append(self._start(f"worker {number}"))
        except BaseException:
            self.kill()
            raise

    def watch(self, timeout_s: float) -> int:
        """Wait up to ``timeout_s`` for a message; return how many maps were finished.

        Raises:
            OSError: the last worker has died; the message says why.
        """
        wait([worker.pipe for worker in self._workers], timeout_s)
        workers = list(self._workers)
        before = sum(worker.done for worker in workers)
        dead = [worker for worker in workers if not worker.receive()]
        for worker in dead:
            self._replace_dead(worker)
        return sum(worker.done for worker in workers) - before

    def shutdown(self) -> None:
        """Let every worker finish its current map, and wait until all have exited."""
        for worker in self._workers:
            with suppress(OSError):  # it is dead already
                worker.pipe.send("stop")
        while self._workers:
            wait([worker.pipe for worker in self._workers])
            for worker in list(self._workers):
                if not worker.receive():
                    self._workers.remove(worker)
                    if worker.exit_reason:
                        log.warning("%s: %s", worker.name, worker.exit_reason)
        self._retry_lost()

    def kill(self) -> None:
        """Kill the remaining workers."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
        self._workers = []

    def _start(self, name: str) -> _WorkerProcess:
        context = _context()
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self._job, theirs), name=name, daemon=True)
        resource_tracker.ensure_running()  # else the first process starts it, with signals unblocked
        with _environment(_variables(self._job.threads)), blocked_signals():
            if isinstance(context, SpawnContext):
                process.start()
            else:
                forkserver.ensure_running()  # workers inherit its blocked signals and environment
        if process.pid is None:
            try:
                process.start()
            except EOFError as error:
                raise OSError(
                    "the server that starts workers died, perhaps because memory ran out; use fewer --workers"
                ) from error
        theirs.close()
        return _WorkerProcess(name, process, ours)

    def _replace_dead(self, dead: _WorkerProcess) -> None:
        self._workers.remove(dead)
        reason = dead.exit_reason or _exit_reason(dead.process.exitcode)
        log.warning("%s died: %s; its map is tried again", dead.name, reason)
        if dead.done:
            self._workers.append(self._start(dead.name))
        if not self._workers:
            self._retry_lost()
            raise OSError(f"the last worker died: {reason}")

    def _retry_lost(self) -> None:
        """Enqueue the maps of dead workers again; while workers live, they do this as they claim maps.

        Call it only when no worker is alive: a worker that holds the study may wait until this process reads its pipe.
        """
        if not self._store.shared:
            with self._store.exclusive():
                if self._store.fail_abandoned(self._study, claimed):
                    retry_lost(self._study, self._names, blamed=True)


@contextmanager
def evaluating(worker: Worker, job: Job, needed: bool) -> Iterator[Callable[[], bool]]:
    """Yield a function that waits for an evaluation and returns whether the study may have changed.

    A worker pool starts only if ``needed`` and the profile has several workers.
    """
    if job.profile.workers == 1 or not needed:

        def evaluate_here() -> bool:
            if worker.evaluate_next():
                return True
            time.sleep(_PAUSE_S)  # other processes evaluate the last maps
            return worker.store.shared

        yield evaluate_here
        return
    log.info("%d workers with %d threads each", job.profile.workers, job.threads)
    pool = WorkerPool(job, worker.store, worker.study, [layer.name for layer in worker.problem.layers])
    try:
        yield lambda: bool(pool.watch(_PAUSE_S)) or worker.store.shared
        pool.shutdown()
    finally:
        pool.kill()


def _exit_reason(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        hint = ", perhaps because memory ran out" if -exit_code == signal.SIGKILL else ""
        return f"{signal.Signals(-exit_code).name}{hint}"
    return f"exit status {exit_code}"


def _context() -> ForkServerContext | SpawnContext:
    """Return the way to start processes: if possible, a server that imports their modules once and forks.

    Workers then start quickly and share the memory of the imports. This process has threads, so it cannot fork safely.
    """
    # Outside Linux, system libraries may crash after a fork. Nor can a process fork once it has used a GPU, and
    # importing torchao uses it.
    if sys.platform != "linux" or torch.cuda.is_available():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["search.run.worker", "search.cli.app"])
    return context


def _variables(threads: int) -> dict[str, str]:
    """Return the environment variables to add for a worker."""
    # Without them the server would import from the current directory first (CPython issue 117378).
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    return {**{name: str(threads) for name in _THREAD_VARIABLES}, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
