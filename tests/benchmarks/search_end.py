"""Whether a search that ends by itself has really hardly anything left to gain.

`python -m tests.benchmarks search_end [RUNS] [TRIALS]` simulates searches on made-up models of bert-base-uncased's 76
layers. The outputs of a map are the damped sum of its layers' shifts, plus a correction of each layer and width, plus
noise; all of it for as many sentences again, which no search sees. Each search goes on to TRIALS trials. What it gained
after its end, at each size, is printed for the search's sentences, as the sampler judges a map, and for the others.

`python -m tests.benchmarks search_end RUN...` replays finished runs: after 25, 50, 100, 200, ... trials, what the rule
said that might still be gained at each size (the 90% quantile), and what the rest of the run did gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from objectives.cache import cache_directory
from objectives.heads import TWO_CLASSES
from objectives.layers import WIDTHS, BitMap
from objectives.problem import Evaluation
from objectives.scores import LogOdds, score
from search.allocation.baselines import knapsack_maps, uniform_maps
from search.allocation.constraint import SizeConstraint
from search.allocation.knapsack import to_bit_map
from search.allocation.sensitivity import Sensitivities, measure
from search.run.profile import checked_profile
from search.run.run_directory import RunDirectory
from search.run.worker import constraint_of, load_searched_problem
from search.samplers import guided
from search.samplers.guided import CONFIDENCE, JUDGED_EVERY, SMALLEST_GAIN, GuidedSampler
from search.study.reading import load_study
from search.study.study import open_study, tell
from search.study.trials import settled, trials_of
from tests.benchmarks.overhead import made_up_problem
from tests.objectives.random_models import bert_base_shapes
from tests.search.tiny_problem import ask

SENTENCES = 400  # of the search, and as many others
RUNS, TRIALS = 8, 500
_SATURATION, _CORRECTION, _NOISE, _DIRECTIONS = 0.2, 0.3, 0.05, 24
_DRAWS = 30


def main(arguments: list[str]) -> None:
    """Print what is left to gain, in simulation or in the runs named by ``arguments``."""
    if arguments and not arguments[0].isdecimal():
        for directory in arguments:
            replay(RunDirectory(Path(directory)))
        return
    runs, trials = [*map(int, arguments), *(RUNS, TRIALS)[len(arguments) :]]
    simulate(runs, trials)


def simulate(runs: int, trials: int) -> None:
    """Print when made-up searches end, and what they gain in the rest of so many trials."""
    print(f"{runs} made-up searches of {trials} trials, {SENTENCES} sentences; gains after the end, at each size")
    within = []
    for seed in range(runs):
        made_up = MadeUpModel(seed)
        sampler, finished = made_up.search(trials)
        counts = range(JUDGED_EVERY, trials + 1, JUDGED_EVERY)
        ended = next((count for count in counts if sampler._nothing_left(finished[:count])), None)
        if ended is None:
            print(f"  seed {seed}: goes on to the end")
            continue
        here = gains(sampler, finished, ended)
        there = gains(sampler, finished, ended, made_up.damage_elsewhere)
        within += here
        print(
            f"  seed {seed}: ended after {ended}; expected {percents(here)}; on the other sentences {percents(there)}"
        )
    if not within:
        return
    print(f"expected gains above {SMALLEST_GAIN:.0%}: {np.mean(np.array(within) > SMALLEST_GAIN):.0%} of the sizes")


class MadeUpModel:
    """A model whose outputs follow a formula, on the sentences of a search and on as many others."""

    def __init__(self, seed: int) -> None:
        """Draw the shifts of its layers and their corrections: half of each along a few directions, half alone."""
        rng = np.random.default_rng(seed)
        both = made_up_problem(bert_base_shapes(), 2 * SENTENCES)
        mine, effects = slice(0, None, 2), (len(both.layers), len(WIDTHS))
        self._outputs = both.fp32_log_odds
        scales = rng.lognormal(-2.5, 0.8, (effects[0], 1, 1)) * 2.0 ** -np.arange(len(WIDTHS))[:, None]
        directions = rng.standard_normal((_DIRECTIONS, len(self._outputs))) / np.sqrt(_DIRECTIONS)
        along, correcting = rng.standard_normal((2, *effects, _DIRECTIONS))
        alone = rng.standard_normal((*effects, len(self._outputs)))
        self._shifts = (scales * (along @ directions + alone) / np.sqrt(2)).astype(np.float32)
        self._corrections = _CORRECTION * scales * (correcting @ directions)
        measured = np.ones(effects, dtype=np.bool_)
        self._sensitivities = Sensitivities.from_shifts(self._shifts, measured, self._outputs).of(mine, self._outputs)
        outputs, labels = self._outputs[mine], both.labels[mine]
        fp32 = score(outputs, labels, outputs, both.head, both.metric)
        self._problem = replace(both, fp32_log_odds=outputs, labels=labels, fp32=fp32)
        self._seed = seed

    def search(self, trials: int) -> tuple[GuidedSampler, list[FrozenTrial]]:
        """Search with so many trials."""
        problem = self._problem
        constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
        sampler = GuidedSampler(constraint, self._sensitivities, problem.fp32_log_odds, self._seed)
        baselines = [*uniform_maps(problem.layers), *knapsack_maps(self._sensitivities.damages, constraint)]
        study = open_study(InMemoryStorage(), problem, "damage", constraint, sampler, baselines)
        for _ in range(trials):
            trial, bit_map = ask(study, problem.layers)
            outputs = self.outputs(bit_map)[::2]
            scores = score(outputs, problem.labels, problem.fp32_log_odds, problem.head, problem.metric)
            tell(study, trial, bit_map, Evaluation(scores, outputs, "fp32", elapsed_s=1.0), constraint, "damage")
        return sampler, trials_of(study)

    def outputs(self, bit_map: BitMap) -> LogOdds:
        """Return the outputs of a map on all sentences, those of the search at every second place."""
        chosen = np.arange(len(bit_map)), np.array(bit_map) - WIDTHS[0]
        summed = self._shifts[chosen].sum(axis=0)
        damping = 1.0 / np.sqrt(1.0 + _SATURATION * np.mean(summed**2))
        noise = np.random.default_rng(bit_map).standard_normal(len(summed)) * _NOISE * np.sqrt(np.mean(summed**2))
        moved = self._outputs + damping * summed + self._corrections[chosen].sum(axis=0) + noise
        return np.asarray(moved, dtype=np.float32)

    def damage_elsewhere(self, bit_map: BitMap) -> float:
        """Return the damage of a map on the sentences that the search does not see, in nats a sentence."""
        divergences = TWO_CLASSES.divergences(self.outputs(bit_map)[1::2], self._outputs[1::2])
        return float(divergences.mean())


def replay(run: RunDirectory) -> None:
    """Print what might be gained at each size of a finished run, and what its rest did gain, as the run goes on."""
    settings = run.read_settings()
    profile = checked_profile(settings["profile"] | {"precision": "fp32"}, run.name)
    problem = load_searched_problem(profile, print)
    sensitivities = measure(problem, cache_directory(), profile.sensitivity, widths=profile.widths)  # type: ignore[arg-type]
    constraint = constraint_of(profile, problem.footprint)
    sampler = GuidedSampler(constraint, sensitivities, problem.fp32_log_odds, profile.seed, problem.head)  # type: ignore[arg-type]
    trials = [trial for trial in trials_of(load_study(run.place())) if settled(trial)]
    print(f"{run.path}: {len(trials)} trials; of each size: what may be gained (90%) / what the rest of the run gained")
    held = []
    for count in takewhile(lambda count: count < len(trials), (JUDGED_EVERY * 2**step for step in range(20))):
        may = [
            float(np.quantile(list(islice(sampler.possible_gains(trials[:count], size), _DRAWS)), CONFIDENCE))
            for size in sizes_of(sampler)
        ]
        did = gains(sampler, trials, count)
        held += [real <= bound for real, bound in zip(did, may, strict=True)]
        print(f"  {count:5}: " + "  ".join(f"{bound:.1%} / {real:.1%}" for bound, real in zip(may, did, strict=True)))
    print(f"the gain was within the bound in {np.mean(held):.0%} of the cases (90% is the claim)")


def sizes_of(sampler: GuidedSampler) -> range:
    """Return the indices of the sizes that the rule judges."""
    return range(len(sampler._budgets) // guided._RUNGS_A_STEP)


def gains(
    sampler: GuidedSampler,
    trials: list[FrozenTrial],
    count: int,
    damage: Callable[[BitMap], float] | None = None,
) -> list[float]:
    """Return what share of its damage each size's best map lost after the first ``count`` trials.

    The best is that of least expected damage on unseen sentences, as the sampler judges; ``damage`` then measures it.
    """
    lost = []
    for size in sizes_of(sampler):
        budget = sampler._budgets[size * guided._RUNGS_A_STEP]
        damages = []
        for shown in (trials[:count], trials):
            finished = sampler._no_maps()
            finished.update(shown)
            (best,) = finished.best([budget])
            assert best is not None
            bit_map = to_bit_map(best.chosen, sampler._widths)
            damages.append(damage(bit_map) if damage else sampler.damage_elsewhere(bit_map, best.log_odds))
        lost.append(1 - damages[1] / damages[0])
    return lost


def percents(shares: list[float]) -> str:
    """Return shares as ``0.1% 2.3%``."""
    return " ".join(f"{share:.1%}" for share in shares)
