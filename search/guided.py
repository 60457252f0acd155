"""The guided sampler: draws a plausible landscape of damage and lets the allocator solve it where it promises most."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from objectives.layers import Bits
from search.allocation import Damages, allocate, layer_sizes, to_bits, to_choice
from search.contenders import plain_budgets
from search.feasible import SizeConstraint, repair
from search.landscape import Observations, landscape_at
from search.samplers import SeenMaps, search_space
from search.study import recorded_damage

_BUDGETS_A_PROPOSAL = 4
_LOCAL_SHARE = 0.6


class GuidedSampler(BaseSampler):
    """Proposes maps from sensitivities and from every finished trial of the study.

    For a few budgets between the smallest map and the constraint it draws a landscape from the model of
    :mod:`search.landscape` and allocates it exactly. More often than not layers are charged for departing from the best
    map known at that budget, which makes the proposal a size-conserving exchange around it: what additivity misses is
    found there. Of the budgets' maps it proposes the one that promises most. Feasible by construction, never a map that
    was proposed before, and reproduced by its seed and the trials before it.
    """

    def __init__(self, constraint: SizeConstraint, sensitivities: Damages, seed: int) -> None:
        """Propose within ``constraint``, with ``sensitivities`` ``(n_layers, n_widths)`` as the prior."""
        self._constraint = constraint
        self._sensitivities = sensitivities
        self._seed = seed
        self._names = tuple(layer.name for layer in constraint.footprint.layers)
        self._space = search_space(constraint.footprint.layers)
        self._seen = SeenMaps(self._names)
        self._sizes, overhead = layer_sizes(constraint.footprint, constraint.axis)
        smallest, largest = int(self._sizes[:, 0].sum()), constraint.largest_bits - overhead
        # A ladder rather than any size: work at one budget adds up only where it is come back to. Even in logarithm,
        # as the same relative saving is worth the same anywhere.
        plain = [budget - overhead for budget in plain_budgets(constraint)]
        between = np.sqrt(np.multiply(plain, [*plain[1:], smallest], dtype=np.float64)).astype(np.int64)
        self._budgets = np.clip([*plain, *between], smallest, largest)
        self._finished = _FinishedMaps(self._names)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole map: all widths are proposed together."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a map that meets the constraint and that no other trial has."""
        if "fixed_params" in trial.system_attrs:
            return {}
        rng = np.random.default_rng((self._seed, trial.number))
        self._seen.update(study)
        self._finished.update(study)
        bits = self._propose(rng)
        return dict(zip(self._names, repair(bits, self._constraint, self._seen.maps, rng), strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse: a parameter outside the map is a mistake of the caller."""
        raise ValueError(f"{param_name!r} is not a layer of this study")

    def _propose(self, rng: np.random.Generator) -> Bits:
        budgets = rng.choice(self._budgets, size=_BUDGETS_A_PROPOSAL, replace=False)
        if not self._finished.maps:
            return to_bits(allocate(self._sensitivities, self._sizes, int(budgets[0])))
        observations = self._finished.observations(self._sizes)
        proposals = [self._propose_at(int(budget), observations, rng) for budget in budgets]
        return max(proposals, key=lambda proposal: proposal[0])[1]

    def _propose_at(self, budget: int, observations: Observations, rng: np.random.Generator) -> tuple[float, Bits]:
        """Return the drawn gain of a map at a budget, in natural logarithms of damage, and the map."""
        drawn = landscape_at(budget, self._sensitivities, observations).draw(rng, temperature=rng.uniform(0.0, 0.6))
        within = np.flatnonzero(observations.sizes <= budget)
        layers = np.arange(len(drawn))
        if not len(within):
            chosen = allocate(drawn, self._sizes, budget)
            return np.inf, to_bits(chosen)
        best = within[np.argmin(observations.damages[within])]
        known, known_damage = observations.choices[best], observations.damages[best]
        charged = drawn
        if rng.random() < _LOCAL_SHARE:
            departing = np.ones_like(drawn)
            departing[layers, known] = 0.0
            charged = drawn + departing * known_damage * 10.0 ** rng.uniform(-4.0, -1.5)
        chosen = allocate(charged, self._sizes, budget)
        # Against the known map in the same landscape: what the landscape gets wrong about both cancels out.
        gain = np.log(drawn[layers, known].sum() / drawn[layers, chosen].sum())
        bits = to_bits(chosen)
        return (-np.inf if bits in self._seen.maps else float(gain)), bits


class _FinishedMaps:
    """Maps and damages of a study's complete trials, read once each."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.maps: list[npt.NDArray[np.int64]] = []
        self._damages: list[float] = []
        self._names = names
        self._read: set[int] = set()
        self._first_unread = 0

    def update(self, study: Study) -> None:
        trials = study.get_trials(deepcopy=False)
        for trial in trials[self._first_unread :]:
            if trial.number in self._read or not trial.state.is_finished():
                continue
            self._read.add(trial.number)
            damage = recorded_damage(trial)
            if damage is not None:
                self.maps.append(to_choice(tuple(trial.params[name] for name in self._names)))
                self._damages.append(damage)
        while self._first_unread in self._read:
            self._first_unread += 1

    def observations(self, sizes: npt.NDArray[np.int64]) -> Observations:
        choices = np.array(self.maps)
        summed = sizes[np.arange(sizes.shape[0]), choices].sum(axis=1)
        return Observations(choices, np.array(self._damages), summed.astype(np.float64))
