"""What a study's storage costs at 76 parameters: a journal, SQLite and PostgreSQL, with few and many trials recorded.

`python -m tests.benchmarks storage [TRIALS ...]` fills each of them with copies of one real trial (76 widths and the
log-odds of 1,043 sentences), opens it anew, and times claiming a map, writing its widths and recording its scores, all
by the search's own functions and without an evaluation. Then four processes do so at the same time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import optuna
import sqlalchemy
import torch
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage, get_storage
from transformers import BertConfig, BertForSequenceClassification

from objectives.problem import Evaluation, Problem
from objectives.scores import LogOdds, score
from search.allocation.constraint import SizeConstraint
from search.samplers.optuna_samplers import FeasibleSampler
from search.storage.journal import JournalFile
from search.storage.stores import STUDY_NAME, Place
from search.study.study import claim, open_study, tell, write_widths
from tests.benchmarks.overhead import made_up_problem
from tests.search.postgresql import server_url

SIZES = (10, 1000, 10_000)
MEASURED = 10
WRITERS = 4
SENTENCES = 1043


@dataclass(frozen=True)
class Kind:
    """A storage that can be opened in any process, with the lock under which maps are claimed."""

    name: str
    open: Callable[[], tuple[BaseStorage, Callable[[], AbstractContextManager[None]], str]]
    copy: Callable[[int], None]


def main(arguments: list[str]) -> None:
    """Print seconds to open and milliseconds a trial, by storage and number of trials."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    problem = unscored_problem()
    sizes = [int(argument) for argument in arguments] or list(SIZES)
    print("open and work: CPU time of this process; the rest by the clock")
    heads = f"{'storage':12} {'trials':>7} {'open':>8} {'work':>9} {'a trial':>9} {'held':>8} {'1 writer':>9}"
    print(f"{heads} {WRITERS} writers")
    for size in sizes:
        for kinds in (journal, sqlite, postgresql):
            with kinds() as kind:
                if kind is not None:
                    measure(kind, problem, size)


def measure(kind: Kind, problem: Problem, size: int) -> None:
    """Fill one storage and print its row."""
    Client.of(kind, problem).run(1)
    kind.copy(size - 1)
    started = time.process_time()
    client = Client.of(kind, problem)
    opened_s = time.process_time() - started
    client.run(1)  # reads all that is there
    started = time.process_time()
    taken, held = client.run(MEASURED)
    worked_s = (time.process_time() - started) / MEASURED
    alone, together = (rate(kind, problem, writers) for writers in (1, WRITERS))
    trial_ms, held_ms = (1000 * statistics.median(seconds) for seconds in (taken, held))
    print(
        f"{kind.name:12} {size:7,} {opened_s:6.2f} s {1000 * worked_s:6.0f} ms {trial_ms:6.0f} ms {held_ms:5.0f} ms "
        f"{alone:6.1f} /s {together:6.1f} /s",
        flush=True,
    )


@dataclass(frozen=True)
class Client:
    """A process's own view of a storage."""

    problem: Problem
    constraint: SizeConstraint
    study: optuna.Study
    exclusive: Callable[[], AbstractContextManager[None]]

    @classmethod
    def of(cls, kind: Kind, problem: Problem) -> Client:
        """Open a storage as a search does."""
        constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
        storage, exclusive, name = kind.open()
        sampler: BaseSampler = FeasibleSampler("random", constraint, seed=time.time_ns() % 2**32)
        with exclusive():
            study = open_study(storage, problem, "damage", constraint, sampler, [], name=name, shared=True)
        return cls(problem, constraint, study, exclusive)

    def run(self, trials: int) -> tuple[list[float], list[float]]:
        """Do so many trials; return the seconds of each, and those in which nobody else could claim a map."""
        taken, held = [], []
        for _ in range(trials):
            started = time.perf_counter()
            with self.exclusive():
                trial, bit_map = claim(self.study, self.problem.layers)
            claimed = time.perf_counter()
            write_widths(trial, self.problem.layers)
            tell(self.study, trial, bit_map, made_up_evaluation(self.problem), self.constraint, "damage")
            taken.append(time.perf_counter() - started)
            held.append(claimed - started)
        return taken, held


def rate(kind: Kind, problem: Problem, writers: int) -> float:
    """Return how many trials a second so many processes record, until the last has done all of its own."""
    context = get_context("fork")
    ready = context.Barrier(writers + 1)

    def work() -> None:
        client = Client.of(kind, problem)
        client.run(1)
        ready.wait()
        client.run(MEASURED)

    processes = [context.Process(target=work) for _ in range(writers)]
    for process in processes:
        process.start()
    ready.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    return writers * MEASURED / (time.perf_counter() - started)


@contextmanager
def journal() -> Iterator[Kind]:
    """Give a journal file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "study.journal"

        def opened() -> tuple[BaseStorage, Callable[[], AbstractContextManager[None]], str]:
            store = Place(path).open()
            return store.backend, store.exclusive, store.study_name

        def copy(times: int) -> None:
            file = JournalFile(path)
            lines = list(file.read_logs(0))
            first = next(index for index, line in enumerate(lines) if "datetime_start" in line)
            for number in range(1, times + 1):
                changed = [{**line, "trial_id": number} if "trial_id" in line else line for line in lines[first:]]
                file.append_logs(changed)

        yield Kind("journal", opened, copy)


@contextmanager
def sqlite() -> Iterator[Kind]:
    """Give a SQLite file, which the search does not offer."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/study.db"

        def opened() -> tuple[BaseStorage, Callable[[], AbstractContextManager[None]], str]:
            rdb = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
            return get_storage(rdb), nullcontext, STUDY_NAME

        yield Kind("SQLite", opened, lambda times: copy_rows(url, times))


@contextmanager
def postgresql() -> Iterator[Kind | None]:
    """Give a PostgreSQL server on loopback; None where there is none."""
    with server_url() as url:
        if url is None:
            yield None
            return
        place = Place(Path(), url, STUDY_NAME)

        def opened() -> tuple[BaseStorage, Callable[[], AbstractContextManager[None]], str]:
            store = place.open()
            return store.backend, store.exclusive, store.study_name

        yield Kind("PostgreSQL", opened, lambda times: copy_rows(place.url, times))


_TABLES = {
    "trial_params": "param_name, param_value, distribution_json",
    "trial_values": "objective, value, value_type",
    "trial_user_attributes": "key, value_json",
    "trial_system_attributes": "key, value_json",
}


def copy_rows(url: str, times: int) -> None:
    """Copy the first trial so many times within Optuna's own tables."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {times}) "
    trials = "number, study_id, state, datetime_start, datetime_complete"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        execute = connection.exec_driver_sql
        execute(
            f"{numbers} INSERT INTO trials (trial_id, {trials}) "  # constants
            f"SELECT trial_id + i, number + i, {trials.removeprefix('number, ')} FROM n, trials WHERE number = 0"
        )
        for table, columns in _TABLES.items():
            execute(
                f"{numbers} INSERT INTO {table} (trial_id, {columns}) "  # constants
                f"SELECT trial_id + i, {columns} FROM n, {table} WHERE trial_id = 1"
            )
        if engine.name == "postgresql":
            execute("SELECT setval('trials_trial_id_seq', (SELECT max(trial_id) FROM trials))")
            execute("ANALYZE")
    engine.dispose()


def unscored_problem() -> Problem:
    """Return a problem with bert-base-uncased's layers that scores nothing."""
    with torch.device("meta"):
        return made_up_problem(BertForSequenceClassification(BertConfig()), SENTENCES)


def made_up_evaluation(problem: Problem) -> Evaluation:
    """Return scores like those of a real map."""
    log_odds: LogOdds = problem.fp32_log_odds + np.random.default_rng().normal(0, 0.1, SENTENCES).astype(np.float32)
    return Evaluation(score(log_odds, problem.labels, problem.fp32_log_odds), log_odds, "fp32", elapsed_s=1.0)
