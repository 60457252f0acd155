"""The guided sampler: takes a plausible landscape of damage and looks for the best map of a size on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from objectives.layers import BitMap
from objectives.scores import LogOdds
from search.allocation.baselines import knapsack_budgets
from search.allocation.constraint import SizeConstraint, repair
from search.allocation.knapsack import Choice, Sizes, allocate, layer_sizes, to_bits, to_choice
from search.allocation.sensitivity import Sensitivities
from search.samplers.local_search import search_locally
from search.samplers.optuna_samplers import SeenMaps, search_space
from search.samplers.shrinkage import choose_shrinkage
from search.samplers.surrogate import Observations, SurrogateModel
from search.study.trials import origin_of, place_of, recorded_log_odds, trials_of

_UNBEATEN_SHARE = 0.25
_GREEDY_SHARE = 0.5
_INCUMBENT_SHARE = 0.5
_NEIGHBOURHOOD = 0.25  # natural logarithm of size: how far away another budget's best map is worth starting from
_ATTEMPTS = 4
_RUNGS_A_STEP = 4  # budgets from one plain allocation to the next
_NEAREST = 256


class GuidedSampler(BaseSampler):
    """Proposes maps from sensitivities and from every finished trial of the study.

    Each budget between the smallest map and the constraint has its turn; those where it has found nothing better than
    the baselines yet come more often. It takes a surrogate (:mod:`search.samplers.surrogate`), half of the time the
    posterior mean and half of the time a posterior sample, and improves the best map known there, or at a
    budget nearby, by exchanges between layers until none helps. Feasible by construction, never a map that was proposed
    before, and reproduced by its seed and the trials before it.

    Attributes:
        shrinkage: the weight of interactions between layers, 0 to 1; see :mod:`search.samplers.shrinkage`.
    """

    def __init__(
        self, constraint: SizeConstraint, sensitivities: Sensitivities, fp32_log_odds: LogOdds, seed: int
    ) -> None:
        """Propose within ``constraint``, with ``sensitivities`` as the prior."""
        self._constraint = constraint
        self._sensitivities = sensitivities
        self._seed = seed
        self._fp32_log_odds = fp32_log_odds
        self._names = tuple(layer.name for layer in constraint.footprint.layers)
        self._space = search_space(constraint.footprint.layers)
        self._seen = SeenMaps(self._names)
        self._sizes, overhead = layer_sizes(constraint.footprint, constraint.axis)
        smallest, largest = (int(self._sizes[:, width].sum()) for width in (0, -1))
        # Sums of packed sizes can be a little too large, see `layer_sizes`: then the smallest map may seem to be.
        largest = min(largest, max(smallest, constraint.largest_bits - overhead))
        # A ladder rather than any size: work at one budget adds up only where it is come back to. Even in logarithm,
        # as the same relative saving is worth the same anywhere.
        # Of a model so small that what decodes it is most of it, some budgets leave nothing for codes.
        plain = [max(smallest, budget - overhead) for budget in knapsack_budgets(constraint)]
        steps = zip(plain, [*plain[1:], smallest], strict=True)
        rungs = [np.geomspace(high, low, _RUNGS_A_STEP, endpoint=False) for high, low in steps]
        self._budgets = np.clip(np.concatenate(rungs).astype(np.int64), smallest, largest).tolist()
        self.shrinkage = choose_shrinkage(sensitivities, fp32_log_odds, self._sizes, self._budgets[::_RUNGS_A_STEP])
        self._model = SurrogateModel(sensitivities, fp32_log_odds, self.shrinkage)
        self._finished = _FinishedMaps(self._names, self._sizes, self.damage_elsewhere)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole map: all widths are proposed together."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a map that meets the constraint and that no other trial has."""
        if "fixed_params" in trial.system_attrs:
            return {}
        trials = trials_of(study)
        place = place_of(trial, trials)
        rng = np.random.default_rng((self._seed, place))
        self._seen.update(trials)
        self._finished.update(trials)
        bit_map = self._propose(self._budget(place, rng), rng)
        return dict(zip(self._names, repair(bit_map, self._constraint, self._seen.maps, rng), strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse: a parameter outside the map is a mistake of the caller."""
        raise ValueError(f"{param_name!r} is not a layer of this study")

    def damage_elsewhere(self, bit_map: BitMap, log_odds: LogOdds) -> float:
        """Return the damage to expect on other sentences of a map with these log-odds here, in nats a sentence."""
        return self._model.damage_elsewhere(to_choice(bit_map), log_odds)

    def _budget(self, place: int, rng: np.random.Generator) -> int:
        """Return the budget of the trial in a place: all have their turn, in an order drawn anew each time round."""
        if rng.random() < _UNBEATEN_SHARE:
            best = zip(self._budgets, self._finished.best(self._budgets), strict=True)
            unbeaten = [budget for budget, found in best if found is None or not found.is_own]
            if unbeaten:
                return int(rng.choice(unbeaten))
        turn, at = divmod(place, len(self._budgets))
        return int(np.random.default_rng((self._seed, turn)).permutation(self._budgets)[at])

    def _propose(self, budget: int, rng: np.random.Generator) -> BitMap:
        observations = self._finished.observations(budget, self._fp32_log_odds)
        if observations is None:
            return to_bits(allocate(self._sensitivities.damages, self._sizes, budget))
        (known,) = self._finished.best([self._starting_budget(budget, rng)])
        start = allocate(self._sensitivities.damages, self._sizes, budget) if known is None else known.chosen
        temperature = 0.0 if rng.random() < _GREEDY_SHARE else rng.uniform(0.0, 1.0)
        posterior = self._model.given(observations, budget)
        for _ in range(_ATTEMPTS):
            surrogate = posterior.surrogate(rng, temperature)
            if known is not None:
                surrogate = surrogate.through(start, known.log_odds - self._fp32_log_odds)
            _, chosen = search_locally(surrogate, self._sizes, start, budget)
            if (bit_map := to_bits(chosen)) not in self._seen.maps:
                break
            temperature += 0.5  # all that looks plausible here is known: look further
        return bit_map

    def _starting_budget(self, budget: int, rng: np.random.Generator) -> int:
        """Return the budget itself or one nearby: a good map may lie in a basin that is known at another size only."""
        others = [other for other in self._budgets if abs(math.log(other / budget)) <= _NEIGHBOURHOOD]
        return budget if rng.random() < _INCUMBENT_SHARE else int(rng.choice(others))


@dataclass(frozen=True)
class _FinishedMap:
    """A map that was scored.

    Attributes:
        chosen: the map.
        log_odds: what it scored, ``(n_sentences,)``.
        is_own: whether the sampler proposed it; else it is a contender.
    """

    chosen: Choice
    log_odds: LogOdds
    is_own: bool


class _FinishedMaps:
    """The maps of a study's complete trials, read once each."""

    def __init__(
        self, names: tuple[str, ...], sizes: Sizes, damage_elsewhere: Callable[[BitMap, LogOdds], float]
    ) -> None:
        self._names = names
        self._layer_sizes = sizes
        self._damage_elsewhere = damage_elsewhere
        self._maps: list[_FinishedMap] = []
        self._damages: list[float] = []  # to be expected on other sentences
        self._sizes: list[int] = []
        self._read: set[int] = set()
        self._first_unread = 0

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Read those of the study's trials that have ended since."""
        for trial in trials[self._first_unread :]:
            if trial.number in self._read or not trial.state.is_finished():
                continue
            self._read.add(trial.number)
            log_odds = recorded_log_odds(trial)
            if log_odds is not None:
                bit_map = tuple(trial.params[name] for name in self._names)
                chosen = to_choice(bit_map)
                self._maps.append(_FinishedMap(chosen, log_odds, origin_of(trial) == "sampler"))
                self._damages.append(self._damage_elsewhere(bit_map, log_odds))
                self._sizes.append(int(self._layer_sizes[np.arange(len(chosen)), chosen].sum()))
        while self._first_unread in self._read:
            self._first_unread += 1

    def best(self, budgets: Sequence[int]) -> list[_FinishedMap | None]:
        """Return the map of least expected damage within each of some budgets; None where there is none."""
        sizes, damages = np.array(self._sizes), np.array(self._damages)
        within = [np.flatnonzero(sizes <= budget) for budget in budgets]
        return [self._maps[found[np.argmin(damages[found])]] if len(found) else None for found in within]

    def observations(self, size: float, fp32_log_odds: LogOdds) -> Observations | None:
        """Return the maps whose sizes are nearest in ratio, at most ``_NEAREST`` of them; None where there are none."""
        if not self._maps:
            return None
        sizes = np.array(self._sizes, dtype=np.float64)
        nearest = np.argsort(np.abs(np.log(sizes / size)), kind="stable")[:_NEAREST]
        maps = [self._maps[index] for index in nearest]
        shifts = np.array([found.log_odds for found in maps]) - fp32_log_odds
        return Observations(np.array([found.chosen for found in maps]), shifts, sizes[nearest])
