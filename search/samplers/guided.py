"""The guided sampler: draws a surrogate of the damage (mean KL divergence from FP32) and searches it for a good map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from objectives.heads import TWO_CLASSES, Head
from objectives.layers import BitMap
from objectives.scores import LogOdds
from search.allocation.baselines import knapsack_budgets
from search.allocation.constraint import SizeConstraint, repair
from search.allocation.knapsack import Choice, Sizes, allocate, layer_sizes, to_bit_map, to_choice, widest
from search.allocation.sensitivity import Sensitivities
from search.samplers.common_mode import Floats
from search.samplers.local_search import search_locally
from search.samplers.optuna_samplers import MapSampler
from search.samplers.shrinkage import choose_shrinkage
from search.samplers.surrogate import Observations, Posterior, SurrogateModel
from search.study.trials import origin_of, position_of, recorded_log_odds, settled, trials_of

_UNBEATEN_SHARE = 0.25  # of trials go to a budget where a baseline is still best
_GREEDY_SHARE = 0.5  # of trials search the posterior mean, the others a sample
_INCUMBENT_SHARE = 0.5  # of trials start from the best map within the very budget
_NEIGHBOURHOOD = 0.25  # natural logarithm of the ratio of sizes up to which another budget's best map is a start
_ATTEMPTS = 4
_RUNGS_A_STEP = 4  # budgets from one knapsack baseline to the next
_NEAREST = 256  # maps that the surrogate is fitted to
_MOST_OUTPUTS = 2048  # of all sentences at once
_OUTPUTS_A_PART = 1024  # of a part of more, if that leaves it enough sentences
_FEWEST_SENTENCES = 500

# When a search is done.
SMALLEST_GAIN = 0.02
"""A share of the damage that is not worth searching for."""
CONFIDENCE = 0.9
JUDGED_EVERY = 25
"""Trials from one judgement to the next."""
_DRAWS = 30  # of the posterior, for each size


class GuidedSampler(MapSampler):
    """Proposes maps from sensitivities and from every finished trial of the study.

    Each trial takes a budget between the smallest map and the constraint. All budgets have their turn; those where the
    baselines are still unbeaten come more often. The trial draws a surrogate (:mod:`search.samplers.surrogate`): half
    of the time the posterior mean, half of the time a posterior sample. Local search then improves the best map
    evaluated at that budget, or at one nearby. A proposal meets the constraint, is new, and is determined by the seed
    and the trials before it.

    The surrogate of many sentences would take longer than a fast evaluation. So their parts take turns, one a trial;
    which map is best is always judged on all of them.

    Attributes:
        shrinkage: the weight of interactions between layers, 0 to 1; see :mod:`search.samplers.shrinkage`.
    """

    def __init__(
        self,
        constraint: SizeConstraint,
        sensitivities: Sensitivities,
        fp32_log_odds: LogOdds,
        seed: int,
        head: Head = TWO_CLASSES,
    ) -> None:
        """Propose within ``constraint``, with ``sensitivities`` at its widths as the prior."""
        super().__init__(constraint, seed)
        self._widths = constraint.widths
        self._sensitivities = sensitivities
        self._fp32_log_odds = fp32_log_odds.ravel()
        self._sizes, overhead = layer_sizes(constraint.footprint, constraint.axis, self._widths)
        smallest, largest = int(self._sizes.min(axis=1).sum()), int(self._sizes.max(axis=1).sum())
        # Sums of packed sizes can be a little too large (see `layer_sizes`), even for the smallest map.
        largest = min(largest, max(smallest, constraint.largest_bits - overhead))
        # A ladder of budgets, because only repeated work at one budget adds up. Its steps are even in logarithm, as the
        # same relative saving is worth the same anywhere. If a model is so small that scales are most of it, some
        # budgets leave nothing for codes.
        knapsacks = [max(smallest, budget - overhead) for budget in knapsack_budgets(constraint)]
        steps = zip(knapsacks, [*knapsacks[1:], smallest], strict=True)
        rungs = [np.geomspace(high, low, _RUNGS_A_STEP, endpoint=False) for high, low in steps]
        self._budgets = np.clip(np.concatenate(rungs).astype(np.int64), smallest, largest).tolist()
        tried = self._budgets[::_RUNGS_A_STEP]
        self.shrinkage = choose_shrinkage(sensitivities, fp32_log_odds, self._sizes, tried, head=head)
        self._model = SurrogateModel(sensitivities, fp32_log_odds, self.shrinkage, head)
        self._parts = _parts(len(fp32_log_odds), head)
        self._models = [self._model]
        if len(self._parts) > 1:
            self._models = [
                SurrogateModel(sensitivities.of(part, fp32_log_odds, head), fp32_log_odds[part], self.shrinkage, head)
                for part in self._parts
            ]
        self._finished = self._no_maps()
        self._judged_by, self._done = 0, False  # trials, and what they say
        self._doubtful = 0  # the size at which the last judgement failed

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a map that meets the constraint and that no other trial has."""
        if "fixed_params" in trial.system_attrs:
            return {}
        trials = trials_of(study)
        position = position_of(trial, trials)
        rng = np.random.default_rng((self._seed, position))
        self._seen.update(trials)
        self._finished.update(trials)
        bit_map = self._propose(self._budget(position, rng), rng)
        return dict(zip(self._names, repair(bit_map, self._constraint, self._seen.maps, rng), strict=True))

    def damage_elsewhere(self, bit_map: BitMap, log_odds: LogOdds) -> float:
        """Return the damage to expect on unseen sentences of a map with these outputs, in nats a sentence."""
        return self._model.damage_elsewhere(to_choice(bit_map, self._widths), log_odds)

    def is_done(self, study: Study) -> bool:
        """Return whether no size is likely to gain more than ``SMALLEST_GAIN`` of its damage on unseen sentences.

        At each size of the baselines, with ``CONFIDENCE`` at each, and not before all budgets have had a turn. It is
        judged by the first 25, 50, 75, ... trials (``JUDGED_EVERY``), so that a continued search of one worker ends
        where an undisturbed one does.
        """
        trials = [trial for trial in trials_of(study) if settled(trial)]
        count = len(trials) // JUDGED_EVERY * JUDGED_EVERY
        if count != self._judged_by:
            self._judged_by, self._done = count, self._nothing_left(trials[:count])
        return self._done

    def _nothing_left(self, trials: Sequence[FrozenTrial]) -> bool:
        if sum(origin_of(trial) == "sampler" for trial in trials) < len(self._budgets):
            return False
        sizes = len(self._budgets) // _RUNGS_A_STEP
        most = round((1.0 - CONFIDENCE) * _DRAWS)
        for step in range(sizes):
            size = (self._doubtful + step) % sizes  # a search that goes on is mostly told so at once
            gains = islice(self.possible_gains(trials, size), _DRAWS)
            if sum(1 for _ in islice((gain for gain in gains if gain > SMALLEST_GAIN), most + 1)) > most:
                self._doubtful = size
                return False
        return True

    def possible_gains(self, trials: Sequence[FrozenTrial], size: int) -> Iterator[float]:
        """Yield what share of the damage on unseen sentences the best map of a size may still lose, without end.

        Each is of one draw of the posterior: the best map that local search finds in it, against the best evaluated one
        (the distribution of simple regret; Russo et al., Foundations and Trends in Machine Learning 11 (2018)).
        Infinite if no evaluated map is small enough.

        Args:
            trials: those to judge by.
            size: the index of a baseline's size, from the constraint down.
        """
        budget = self._budgets[size * _RUNGS_A_STEP]
        finished = self._no_maps()
        finished.update(trials)
        rng = np.random.default_rng((self._seed, len(trials), size))
        part = int(rng.integers(len(self._parts)))
        (best,) = finished.best([budget])
        if best is None:
            yield from repeat(math.inf)
            return
        posterior = self._posterior(finished, budget, part)
        while True:
            surrogate = posterior.draw(rng, temperature=1.0).passing_through(best.chosen, self._shift(best, part))
            damage, _ = search_locally(surrogate, self._sizes, best.chosen, budget)
            now = surrogate.damage_elsewhere(best.chosen)
            yield 1.0 - damage / now if now > 0.0 else 0.0

    def _budget(self, position: int, rng: np.random.Generator) -> int:
        """Return the budget of the trial at a position: an unbeaten one, or the next of a shuffled round of all."""
        if rng.random() < _UNBEATEN_SHARE:
            best = zip(self._budgets, self._finished.best(self._budgets), strict=True)
            unbeaten = [budget for budget, leader in best if leader is None or leader.is_baseline]
            if unbeaten:
                return int(rng.choice(unbeaten))
        round_number, index = divmod(position, len(self._budgets))
        return int(np.random.default_rng((self._seed, round_number)).permutation(self._budgets)[index])

    def _propose(self, budget: int, rng: np.random.Generator) -> BitMap:
        if not self._finished:
            return to_bit_map(allocate(self._sensitivities.damages, self._sizes, budget), self._widths)
        (incumbent,) = self._finished.best([self._starting_budget(budget, rng)])
        start = allocate(self._sensitivities.damages, self._sizes, budget) if incumbent is None else incumbent.chosen
        temperature = 0.0 if rng.random() < _GREEDY_SHARE else rng.uniform(0.0, 1.0)
        # One part draws no number, so that proposals are as they were before there were parts.
        part = int(rng.integers(len(self._parts))) if len(self._parts) > 1 else 0
        posterior = self._posterior(self._finished, budget, part)
        for _ in range(_ATTEMPTS):
            surrogate = posterior.draw(rng, temperature)
            if incumbent is not None:
                surrogate = surrogate.passing_through(start, self._shift(incumbent, part))
            _, chosen = search_locally(surrogate, self._sizes, start, budget)
            if (bit_map := to_bit_map(widest(chosen, self._sizes), self._widths)) not in self._seen.maps:
                break
            temperature += 0.5  # the map is not new: explore more
        return bit_map

    def _posterior(self, finished: _FinishedMaps, budget: int, part: int) -> Posterior:
        """Return the posterior around a budget, given at least one finished map, on a part's sentences."""
        observations = finished.observations(budget, self._fp32_log_odds)
        observations = replace(observations, shifts=self._in_part(observations.shifts, part))
        return self._models[part].posterior(observations, budget)

    def _shift(self, finished: _FinishedMap, part: int) -> Floats:
        return self._in_part(finished.log_odds - self._fp32_log_odds, part)

    def _no_maps(self) -> _FinishedMaps:
        return _FinishedMaps(self._names, self._widths, self._sizes, self.damage_elsewhere)

    def _in_part(self, flat: Floats, part: int) -> Floats:
        """Return the outputs ``(..., n)`` of a part's sentences, from those of all."""
        if len(self._parts) == 1:
            return flat
        by_sentence = flat.reshape(*flat.shape[:-1], -1, self._model.head.n_outputs)
        return by_sentence[..., self._parts[part], :].reshape(*flat.shape[:-1], -1)

    def _starting_budget(self, budget: int, rng: np.random.Generator) -> int:
        """Return the budget itself or one nearby, whose best map may lie in a better basin."""
        nearby = [other for other in self._budgets if abs(math.log(other / budget)) <= _NEIGHBOURHOOD]
        return budget if rng.random() < _INCUMBENT_SHARE else int(rng.choice(nearby))


def _parts(n_sentences: int, head: Head) -> list[slice]:
    """Return the sentences of each part: every second one, every third, ..."""
    outputs = n_sentences * head.n_outputs
    wanted = -(-outputs // _OUTPUTS_A_PART) if outputs > _MOST_OUTPUTS else 1
    count = max(1, min(wanted, n_sentences // _FEWEST_SENTENCES))
    return [slice(part, None, count) for part in range(count)]


@dataclass(frozen=True)
class _FinishedMap:
    """A scored map.

    Attributes:
        chosen: the index of each layer's width, ``(n_layers,)``.
        log_odds: the outputs, flat.
        is_baseline: whether it is a baseline; if not, a sampler proposed it.
    """

    chosen: Choice
    log_odds: LogOdds
    is_baseline: bool


class _FinishedMaps:
    """The maps of a study's complete trials; each trial is read once.

    Those of other widths, as the reference may have, are left out: the surrogate knows nothing of these.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        widths: tuple[int, ...],
        sizes: Sizes,
        damage_elsewhere: Callable[[BitMap, LogOdds], float],
    ) -> None:
        self._names = names
        self._widths = widths
        self._layer_sizes = sizes
        self._damage_elsewhere = damage_elsewhere
        self._maps: list[_FinishedMap] = []
        self._damages: list[float] = []  # expected on unseen sentences
        self._sizes: list[int] = []
        self._read: set[int] = set()
        self._first_unread = 0

    def __len__(self) -> int:
        return len(self._maps)

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Read the study's trials that have ended since the last call."""
        for trial in trials[self._first_unread :]:
            if trial.number in self._read or not trial.state.is_finished():
                continue
            self._read.add(trial.number)
            log_odds = recorded_log_odds(trial)
            bit_map = tuple(trial.params[name] for name in self._names) if log_odds is not None else ()
            if log_odds is not None and set(bit_map) <= set(self._widths):
                chosen = to_choice(bit_map, self._widths)
                self._maps.append(_FinishedMap(chosen, log_odds, origin_of(trial) != "sampler"))
                self._damages.append(self._damage_elsewhere(bit_map, log_odds))
                self._sizes.append(int(self._layer_sizes[np.arange(len(chosen)), chosen].sum()))
        while self._first_unread in self._read:
            self._first_unread += 1

    def best(self, budgets: Sequence[int]) -> list[_FinishedMap | None]:
        """Return the map of least expected damage within each budget; None if no map is that small."""
        sizes, damages = np.array(self._sizes), np.array(self._damages)
        within = [np.flatnonzero(sizes <= budget) for budget in budgets]
        return [self._maps[fitting[np.argmin(damages[fitting])]] if len(fitting) else None for fitting in within]

    def observations(self, size: float, fp32_log_odds: LogOdds) -> Observations:
        """Return the at most ``_NEAREST`` maps whose sizes are nearest in ratio."""
        sizes = np.array(self._sizes, dtype=np.float64)
        nearest = np.argsort(np.abs(np.log(sizes / size)), kind="stable")[:_NEAREST]
        maps = [self._maps[index] for index in nearest]
        shifts = np.array([finished.log_odds for finished in maps]) - fp32_log_odds
        return Observations(np.array([finished.chosen for finished in maps]), shifts, sizes[nearest])
