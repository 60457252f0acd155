"""Optuna's samplers by name, wrapped so that they propose only new maps within the size constraint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from objectives.layers import WIDTHS, BitMap, Layer
from search.allocation.constraint import SizeConstraint, repair
from search.study.trials import map_of, position_of, trials_of, width_distribution

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}


def search_space(layers: Sequence[Layer], widths: Sequence[int] = WIDTHS) -> dict[str, BaseDistribution]:
    """Return one integer parameter for each layer, by the layer's name."""
    return {layer.name: width_distribution(widths) for layer in layers}


class MapSampler(BaseSampler):
    """The base of our samplers, which propose all widths of a map together."""

    def __init__(self, constraint: SizeConstraint, seed: int) -> None:
        """Propose within ``constraint``."""
        self._constraint = constraint
        self._seed = seed
        self._names = tuple(layer.name for layer in constraint.footprint.layers)
        self._space = search_space(constraint.footprint.layers, constraint.widths)
        self._seen = SeenMaps(self._names)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole map."""
        return self._space

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise ValueError: only layers are parameters, and ``sample_relative`` proposes all of them."""
        raise ValueError(f"{param_name!r} is not a layer of this study")


class FeasibleSampler(MapSampler):
    """Repairs the proposals of one of Optuna's samplers.

    Each trial gets a new sampler, seeded by the run's seed and the trial's position, so that a continued run proposes
    the same maps as an undisturbed one.
    """

    def __init__(self, name: str, constraint: SizeConstraint, seed: int) -> None:
        """Propose with the sampler ``name`` of :data:`SAMPLERS`, within ``constraint``."""
        super().__init__(constraint, seed)
        self._make_sampler = SAMPLERS[name]
        self._inner = self._make_sampler(seed)
        self._rng = np.random.default_rng(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed this trial's sampler."""
        self._rng = np.random.default_rng((self._seed, position_of(trial, trials_of(study))))
        self._inner = self._make_sampler(int(self._rng.integers(2**32)))
        self._inner.before_trial(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a map that meets the constraint and that no other trial has."""
        # By default TPE samples one parameter at a time if there are several objectives. The other samplers take the
        # space as given; to infer it they would read every trial again.
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

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Call this trial's sampler."""
        self._inner.after_trial(study, trial, state, values)


class SeenMaps:
    """The maps of a study's trials; each trial is read once."""

    def __init__(self, names: Sequence[str]) -> None:
        """Read maps of these layers."""
        self.maps: set[BitMap] = set()
        self._names = tuple(names)
        self._read = 0  # every trial below this number has been read in full

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Add the maps of all trials that have one, enqueued and running trials included."""
        complete = True
        for trial in trials[self._read :]:
            bit_map = map_of(trial, self._names)
            if bit_map is not None:
                self.maps.add(bit_map)
            # A trial that has just begun gets its map later, so it is read again.
            complete = complete and (bit_map is not None or trial.state.is_finished())
            self._read += complete
