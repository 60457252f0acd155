"""Optuna samplers by name, wrapped so that a trial's parameters are the map that is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from objectives.layers import WIDTHS, BitMap, Layer
from search.allocation.constraint import SizeConstraint, repair
from search.study.trials import map_of, place_of, trials_of

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}


def search_space(layers: Sequence[Layer]) -> dict[str, BaseDistribution]:
    """Return one integer parameter for each layer, by the layer's name."""
    return {layer.name: IntDistribution(WIDTHS[0], WIDTHS[-1]) for layer in layers}


class FeasibleSampler(BaseSampler):
    """Lets another sampler propose, and repairs what it proposes before the trial takes it.

    Every trial gets a sampler with a seed of its own, derived from the run's seed and the trial's place, so that a run
    stopped and continued proposes what it would have proposed undisturbed.
    """

    def __init__(self, name: str, constraint: SizeConstraint, seed: int) -> None:
        """Propose with the sampler ``name`` of :data:`SAMPLERS`, within ``constraint``."""
        self._make = SAMPLERS[name]
        self._constraint = constraint
        self._seed = seed
        self._names = tuple(layer.name for layer in constraint.footprint.layers)
        self._space = search_space(constraint.footprint.layers)
        self._seen = SeenMaps(self._names)
        self._inner = self._make(seed)
        self._rng = np.random.default_rng(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed this trial's sampler."""
        self._rng = np.random.default_rng((self._seed, place_of(trial, trials_of(study))))
        self._inner = self._make(int(self._rng.integers(2**32)))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole map: all widths are proposed together, since repairing needs them all."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a map that meets the constraint and that no other trial has."""
        # TPE's own default for several objectives is to take one parameter at a time. The other samplers take what is
        # asked for; asking them to infer the space would have them read every trial again.
        relative = {} if isinstance(self._inner, TPESampler) else search_space
        proposed = self._inner.sample_relative(study, trial, relative)
        if "fixed_params" in trial.system_attrs:
            return {}  # an enqueued map; the call above made it a member of the population
        widths = [
            proposed[name] if name in proposed else self._inner.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        ]
        self._seen.update(trials_of(study))
        bit_map = repair(tuple(int(width) for width in widths), self._constraint, self._seen.maps, self._rng)
        return dict(zip(self._names, bit_map, strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse: a parameter outside the map is a mistake of the caller."""
        raise ValueError(f"{param_name!r} is not a layer of this study")

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Hand on to this trial's sampler."""
        self._inner.after_trial(study, trial, state, values)


class SeenMaps:
    """The maps of a study's trials, read once each."""

    def __init__(self, names: Sequence[str]) -> None:
        """Read maps of these layers."""
        self.maps: set[BitMap] = set()
        self._names = tuple(names)
        self._read = 0  # every trial below this number has been read in full

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in every trial of the study that has a whole map, enqueued and running ones too."""
        settled = True
        for trial in trials[self._read :]:
            bit_map = map_of(trial, self._names)
            if bit_map is not None:
                self.maps.add(bit_map)
            # One that is only beginning gets its map later and is looked at again.
            settled = settled and (bit_map is not None or trial.state.is_finished())
            self._read += settled
