"""Workers as forks of the test's own process: they start at once, while a real one imports for seconds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from objectives.problem import Problem
from search.allocation.baselines import uniform_maps
from search.allocation.constraint import SizeConstraint
from search.run.profile import Profile
from search.run.worker import Worker
from search.samplers.optuna_samplers import FeasibleSampler
from search.storage.stores import Place, Store
from search.study.study import open_study
from search.study.trials import finished
from tests.waiting import wait_until

PROFILE = Profile(model="tiny", data="tiny", sampler="random", sensitivity="none")


class OneIdea(FeasibleSampler):
    """Proposes the same map in every trial, so that workers which ignored each other would collide at once."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Forget which trial it is."""
        super().before_trial(study, trial)
        self._rng = np.random.default_rng(0)
        self._inner = self._make_sampler(0)


@dataclass(frozen=True)
class Search:
    """One search of a tiny problem, which any process can open."""

    place: Place
    problem: Problem
    trials: int = 0
    sampler: Callable[[str, SizeConstraint, int], BaseSampler] = OneIdea
    baselines: bool = True

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
                uniform_maps(self.problem.layers) if self.baselines else [],
                name=store.study_name,
                shared=store.shared,
            )
        return store, study

    def worker(self) -> Worker:
        """Open it as a worker does."""
        store = self.place.open()
        sampler = self.sampler("random", self._constraint, 0)
        study = optuna.load_study(study_name=store.study_name, storage=store.backend, sampler=sampler)
        profile = Profile(**{**PROFILE.to_dict(), "trials": self.trials})
        return Worker(store, study, self.problem, self._constraint, profile, lambda: False)

    def work(self) -> None:
        """Evaluate until the run has as many maps as were asked for."""
        worker = self.worker()

        def complete() -> bool:
            worker.evaluate_next()
            return worker.store.patiently(lambda: finished(worker.study), lambda: False) >= self.trials

        wait_until(complete, timeout_s=120)

    @property
    def _constraint(self) -> SizeConstraint:
        return SizeConstraint(self.problem.footprint, "nominal", 5.5)


def fork(action: Callable[[], object]) -> BaseProcess:
    """Start an action in a fork of this process."""

    def alone() -> None:
        torch.set_num_threads(1)  # torch's threads do not survive a fork
        action()
        os._exit(0)  # without the test's own clean-up

    process = get_context("fork").Process(target=alone, daemon=True)
    process.start()
    return process
