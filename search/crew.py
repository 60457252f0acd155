"""A crew: workers in processes of their own, watched by the one that started them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import torch

from search.signals import deaf_children
from search.storage import Store
from search.study import retry_lost
from search.trials import claimed
from search.worker import Job, Message, work

log = logging.getLogger("bitfront")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LISTEN_S = 0.05


@dataclass
class _Member:
    """A worker's process as its parent sees it: what it evaluates and how much it has done."""

    name: str
    process: BaseProcess
    pipe: Connection
    holds: int | None = None
    done: int = 0
    last_words: str = ""


class Crew:
    """Workers that share a study.

    A worker that dies does not stop the others: its map is tried again, and another takes its place where it had
    finished anything.
    """

    def __init__(self, job: Job, store: Store, study: optuna.Study, names: Sequence[str]) -> None:
        """Start the processes.

        Args:
            job: what each of them is told; its profile says how many they are.
            store: the study's storage, as the parent has it open.
            study: the study.
            names: its layers.
        """
        self._job = job
        self._store = store
        self._study = study
        self._names = names
        self._members: list[_Member] = []
        try:
            for number in range(1, job.profile.workers + 1):
                self._members.append(self._start(f"worker {number}"))
        except BaseException:
            self.kill()
            raise

    def watch(self, timeout_s: float) -> int:
        """Wait until something has happened, at most so long, and return how many maps were finished meanwhile.

        Raises:
            OSError: the last worker has died; it says of what.
        """
        wait([member.pipe for member in self._members], timeout_s)
        before = {id(member): member.done for member in self._members}
        members = list(self._members)
        for member in members:
            if not self._listen(member):
                self._bury(member)
        return sum(member.done - before[id(member)] for member in members)

    def dismiss(self) -> None:
        """Let every worker finish its evaluation, and wait for that; who has none in hand leaves now."""
        for member in self._members:
            with suppress(OSError):  # it is dead already
                member.pipe.send("stop")
        if not self._store.shared:
            with self._alone():  # nobody is taking a map now
                for member in list(self._members):
                    if self._listen(member) and member.holds is None:
                        self._members.remove(member)
                        _kill(member)
        while self._members:
            wait([member.pipe for member in self._members])
            for member in list(self._members):
                if not self._listen(member):
                    self._members.remove(member)
                    member.process.join()
                    if member.last_words:
                        log.warning("%s: %s", member.name, member.last_words)

    def kill(self) -> None:
        """End what is left of them at once."""
        for member in self._members:
            _kill(member)
        self._members = []

    def _start(self, name: str) -> _Member:
        context = _context()
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self._job, theirs), name=name, daemon=True)
        resource_tracker.ensure_running()  # the first process starts it else, which lets signals through
        with _environment(_variables(self._job.threads)), deaf_children():
            if isinstance(context, SpawnContext):
                process.start()
            else:
                forkserver.ensure_running()  # all that it forks is as deaf as it, and has its environment
        if process.pid is None:
            try:
                process.start()
            except EOFError as error:
                why = "what starts workers died while it started, perhaps for want of memory"
                raise OSError(why) from error
        theirs.close()
        return _Member(name, process, ours)

    def _listen(self, member: _Member) -> bool:
        """Take in what a worker has said, and return whether it lives."""
        try:
            while member.pipe.poll():
                message: Message = member.pipe.recv()
                match message:
                    case "log", (created, level, text):
                        _log_anew(created, level, f"{member.name}: {text}")
                    case "claimed", number:
                        member.holds = number
                    case "done", _:
                        member.holds = None
                        member.done += 1
                    case "failed", why:
                        member.last_words = why
        except (EOFError, OSError):
            return False
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the study for this process alone.

        A worker that holds it may wait for room in its pipe to say what it has claimed, so a thread listens until then.
        """
        held = threading.Event()

        def listen() -> None:
            while not held.wait(_LISTEN_S):
                for member in self._members:
                    self._listen(member)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        with ExitStack() as stack:
            try:
                stack.enter_context(self._store.exclusive())
            finally:
                held.set()
                listener.join()
            yield

    def _bury(self, dead: _Member) -> None:
        """Give a dead worker's map to the others, and its place to a new one."""
        dead.process.join()
        self._members.remove(dead)
        why = dead.last_words or _cause(dead.process.exitcode)
        if not self._store.shared:  # there, hearts tell who lives
            with self._alone():
                # Whoever claims a map says so before others may; so all that the living have claimed is known now.
                held = {member.holds for member in self._members if self._listen(member)}
                self._store.fail_abandoned(self._study, claimed, held)
                retry_lost(self._study, self._names, blamed=True)
        log.warning("%s died: %s; what it had in hand is tried again", dead.name, why)
        if dead.done:
            self._members.append(self._start(dead.name))
        if not self._members:
            raise OSError(f"the last of the workers died: {why}")


def _log_anew(created: float, level: int, text: str) -> None:
    record = log.makeRecord(log.name, level, "", 0, text, (), None)
    record.created, record.msecs = created, created % 1 * 1000
    log.handle(record)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        hint = ", perhaps for want of memory" if -exit_code == signal.SIGKILL else ""
        return f"{signal.Signals(-exit_code).name}{hint}"
    return f"exit status {exit_code}"


def _kill(member: _Member) -> None:
    member.process.kill()
    member.process.join()


def _context() -> ForkServerContext | SpawnContext:
    """Return what starts processes: where possible as forks of a server that has imported what they need.

    They start at once then, and share the memory that the imports take. They are no forks of this process, whose
    threads would not survive that.
    """
    # Elsewhere a fork may crash in the system's own libraries; and a GPU is lost to the forks of a process that has
    # looked at it, as torchao does where it is imported.
    if sys.platform != "linux" or torch.cuda.is_available():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["search.worker", "search.cli"])
    return context


def _variables(threads: int) -> dict[str, str]:
    """Return what the environment of a started process has beside ours."""
    # A server would look for what it imports in the current directory first, whatever lies there (CPython 117378).
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
