"""Workers as forks of the test's own process: they start at once, where a real one imports for seconds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from objectives.problem import Problem
from search.contenders import uniform_maps
from search.feasible import SizeConstraint
from search.profile import Profile
from search.samplers import FeasibleSampler
from search.storage import Place, Store
from search.study import open_study
from search.trials import finished
from search.worker import Worker
from tests.waiting import wait_until

PROFILE = Profile(model="tiny", data="tiny", sampler="random", sensitivity="none")


class OneIdea(FeasibleSampler):
    """Has the same idea in every trial, so that workers who did not look at each other would collide at once."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Forget which trial it is."""
        super().before_trial(study, trial)
        self._rng = np.random.default_rng(0)
        self._inner = self._make(0)


@dataclass(frozen=True)
class Search:
    """One search of a tiny problem, to be opened in any process."""

    place: Place
    problem: Problem
    trials: int = 0
    sampler: Callable[[str, SizeConstraint, int], BaseSampler] = OneIdea
    contenders: bool = True

    def open(self) -> tuple[Store, optuna.Study]:
        """Open it as a parent does."""
        store = self.place.open()
        sampler = self.sampler("random", self._constraint, 0)
        with store.exclusive():
            study = open_study(
                store.backend,
                self.problem,
                "damage",
                self._constraint,
                sampler,
                uniform_maps(self.problem.layers) if self.contenders else [],
                name=store.study_name,
                shared=store.shared,
            )
        return store, study

    def worker(self, **changes: Any) -> Worker:
        """Open it as a worker does."""
        store = self.place.open()
        sampler = self.sampler("random", self._constraint, 0)
        study = optuna.load_study(study_name=store.study_name, storage=store.backend, sampler=sampler)
        profile = Profile(**{**PROFILE.to_dict(), "trials": self.trials})
        return Worker(store, study, self.problem, self._constraint, profile, lambda: False, **changes)

    def work(self) -> None:
        """Evaluate until the run has what it was asked for."""
        worker = self.worker()

        def done() -> bool:
            return worker.store.patiently(lambda: finished(worker.study), lambda: False) >= self.trials

        while not done():
            wait_until(lambda: worker.evaluate_next() or done(), timeout_s=120, pause_s=0.05)

    @property
    def _constraint(self) -> SizeConstraint:
        return SizeConstraint(self.problem.footprint, "nominal", 5.5)


def fork(action: Callable[[], object]) -> BaseProcess:
    """Start an action in a process that shares nothing but what there was."""

    def alone() -> None:
        torch.set_num_threads(1)  # the pool of threads does not survive a fork
        action()
        os._exit(0)  # the test's own clean-up is not the child's

    process = get_context("fork").Process(target=alone, daemon=True)
    process.start()
    return process
