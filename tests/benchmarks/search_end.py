"""Whether a search that ends by itself has really hardly anything left to gain.

`python -m tests.benchmarks search_end [RUNS] [TRIALS]` simulates searches on made-up models of bert-base-uncased's 76
layers. The outputs of a map are the damped sum of its layers' shifts, plus a correction of each layer and width, plus
noise; all of it for as many sentences again, which no search sees. Each search goes on to TRIALS trials. What it gained
after its end, at each size, is printed for the search's sentences, as the sampler judges a map, and for the others.
Then, as of the trials at which finished runs are replayed, in how many cases the rule's bound held.

`python -m tests.benchmarks search_end RUN...` replays finished runs: after 25, 50, 100, 200, ... trials, what the rule
said that might still be gained at each size (the 90% quantile), and what the rest of the run did gain.

`python -m tests.benchmarks search_end likeness RUN...` compares what runs and made-up models are like, after as many
trials: how far the surrogate's prior is from the maps' outputs, how much of that is linear in layers and widths, and
what decides how much can cancel. The made-up models' constants are chosen by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
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
from search.samplers.common_mode import Floats
from search.samplers.guided import CONFIDENCE, JUDGED_EVERY, SMALLEST_GAIN, GuidedSampler
from search.study.reading import load_study
from search.study.study import open_study, tell
from search.study.trials import settled, trials_of
from tests.benchmarks.overhead import made_up_problem
from tests.objectives.random_models import bert_base_shapes
from tests.search.tiny_problem import ask

SENTENCES = 400  # of the search, and as many others
RUNS, TRIALS = 8, 300
_SATURATION, _CORRECTION, _NOISE = 0.2, 0.4, 0.1
_MEDIAN, _SPREAD = -3.5, 1.4  # of the layers' shifts at 2 bits, log rms
_DIRECTIONS, _SHARED = 24, 0.22  # the share of a shift's variance along them
_UNDECIDED, _SENTENCES_SPREAD = 0.8, 0.5  # how sentences differ in what moves them
_DRAWS = 30
_REPLAYED = tuple(JUDGED_EVERY * 2**step for step in range(20))
_LIKENED = 300


def main(arguments: list[str]) -> None:
    """Print what is left to gain, in simulation or in the runs named by ``arguments``, or what both are like."""
    if arguments and not arguments[0].isdecimal():
        if arguments[0] == "likeness":
            compare([RunDirectory(Path(directory)) for directory in arguments[1:]])
            return
        for directory in arguments:
            replay(RunDirectory(Path(directory)))
        return
    runs, trials = [*map(int, arguments), *(RUNS, TRIALS)[len(arguments) :]]
    simulate(runs, trials)


def simulate(runs: int, trials: int) -> None:
    """Print when made-up searches end, and what they gain in the rest of so many trials."""
    print(f"{runs} made-up searches of {trials} trials, {SENTENCES} sentences; gains after the end, at each size")
    within, beyond, held = [], [], []
    for seed in range(runs):
        made_up = MadeUpModel(seed)
        sampler, finished = made_up.search(trials)
        cases = []
        for count in takewhile(lambda count: count < trials, _REPLAYED):
            bounds, did = bounds_of(sampler, finished[:count]), gains(sampler, finished, count)
            cases += [real <= bound for real, bound in zip(did, bounds, strict=True)]
        held += cases
        replayed = f"bound held in {sum(cases)} of {len(cases)} cases"
        counts = range(JUDGED_EVERY, trials, JUDGED_EVERY)
        ended = next((count for count in counts if sampler._nothing_left(finished[:count])), None)
        if ended is None:
            print(f"  seed {seed}: {replayed}; goes on to the end", flush=True)
            continue
        here = gains(sampler, finished, ended)
        there = gains(sampler, finished, ended, made_up.damage_elsewhere)
        within += here
        beyond += there
        ending = f"ended after {ended}; expected {percents(here)}; on the other sentences {percents(there)}"
        print(f"  seed {seed}: {replayed}; {ending}", flush=True)
    print(f"the gain was within the bound in {np.mean(held):.0%} of {len(held)} cases (90% is the claim)")
    if within:
        above = np.mean(np.array(within) > SMALLEST_GAIN)
        print(f"after the end, gains above {SMALLEST_GAIN:.0%}: {above:.0%} of {len(within)} cases (10% is the claim)")
        print(f"mean gain {np.mean(within):.2%}; on the other sentences {np.mean(beyond):.2%}")


class MadeUpModel:
    """A model whose outputs follow a formula, on the sentences of a search and on as many others."""

    def __init__(self, seed: int) -> None:
        """Draw the shifts of its layers and their corrections: a part of each along a few directions, the rest alone.

        Undecided sentences move most, as they do in real models.
        """
        rng = np.random.default_rng(seed)
        both = made_up_problem(bert_base_shapes(), 2 * SENTENCES)
        mine, effects = slice(0, None, 2), (len(both.layers), len(WIDTHS))
        self._outputs = both.fp32_log_odds
        moves = TWO_CLASSES.curvature(TWO_CLASSES.means(self._outputs)).pivots ** _UNDECIDED
        moves *= rng.lognormal(0.0, _SENTENCES_SPREAD, len(moves))
        self._moves = moves / rms(moves)
        scales = rng.lognormal(_MEDIAN, _SPREAD, (effects[0], 1, 1)) * 2.0 ** -np.arange(len(WIDTHS))[:, None]
        directions = rng.standard_normal((_DIRECTIONS, len(self._outputs))) / np.sqrt(_DIRECTIONS)

        def drawn() -> Floats:
            alone = rng.standard_normal((*effects, len(self._outputs)))
            along = rng.standard_normal((*effects, _DIRECTIONS)) @ directions
            shifts = scales * self._moves * (np.sqrt(_SHARED) * along + np.sqrt(1.0 - _SHARED) * alone)
            return np.asarray(shifts, dtype=np.float32)

        self._shifts, self._corrections = drawn(), _CORRECTION * drawn()
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
        damping = 1.0 / np.sqrt(1.0 + _SATURATION * rms(summed) ** 2)
        noise = np.random.default_rng(bit_map).standard_normal(len(summed)) * _NOISE * rms(summed) * self._moves
        moved = self._outputs + damping * summed + self._corrections[chosen].sum(axis=0) + noise
        return np.asarray(moved, dtype=np.float32)

    def damage_elsewhere(self, bit_map: BitMap) -> float:
        """Return the damage of a map on the sentences that the search does not see, in nats a sentence."""
        divergences = TWO_CLASSES.divergences(self.outputs(bit_map)[1::2], self._outputs[1::2])
        return float(divergences.mean())


def replay(run: RunDirectory) -> None:
    """Print what might be gained at each size of a finished run, and what its rest did gain, as the run goes on."""
    sampler, trials = searched(run)
    print(f"{run.path}: {len(trials)} trials; of each size: what may be gained (90%) / what the rest of the run gained")
    held = []
    for count in takewhile(lambda count: count < len(trials), _REPLAYED):
        may, did = bounds_of(sampler, trials[:count]), gains(sampler, trials, count)
        held += [real <= bound for real, bound in zip(did, may, strict=True)]
        print(f"  {count:5}: " + "  ".join(f"{bound:.1%} / {real:.1%}" for bound, real in zip(may, did, strict=True)))
    print(f"the gain was within the bound in {np.mean(held):.0%} of the cases (90% is the claim)")


def searched(run: RunDirectory) -> tuple[GuidedSampler, list[FrozenTrial]]:
    """Return the sampler of a finished run, and its trials."""
    settings = run.read_settings()
    profile = checked_profile(settings["profile"] | {"precision": "fp32"}, run.name)
    problem = load_searched_problem(profile, print)
    sensitivities = measure(problem, cache_directory(), profile.sensitivity, widths=profile.widths)  # type: ignore[arg-type]
    constraint = constraint_of(profile, problem.footprint)
    sampler = GuidedSampler(constraint, sensitivities, problem.fp32_log_odds, profile.seed, problem.head)  # type: ignore[arg-type]
    return sampler, [trial for trial in trials_of(load_study(run.place())) if settled(trial)]


def bounds_of(sampler: GuidedSampler, trials: list[FrozenTrial]) -> list[float]:
    """Return what the rule says that may still be gained at each size: the quantile of its confidence."""
    draws = (list(islice(sampler.possible_gains(trials, size), _DRAWS)) for size in sizes_of(sampler))
    return [float(np.quantile(gains, CONFIDENCE)) for gains in draws]


def compare(runs: list[RunDirectory]) -> None:
    """Print what made-up models and runs are like, one column each."""
    columns = {f"made-up {seed}": likeness(*MadeUpModel(seed).search(_LIKENED)) for seed in range(2)}
    for run in runs:
        sampler, trials = searched(run)
        columns[run.path.name] = likeness(sampler, trials[:_LIKENED])
    print(f"after at most {_LIKENED} trials\n{'':44}" + "".join(f"{name:>12}" for name in columns))
    for row in next(iter(columns.values())):
        print(f"{row:44}" + "".join(f"{column[row]:12.4f}" for column in columns.values()))


def likeness(sampler: GuidedSampler, trials: list[FrozenTrial]) -> dict[str, float]:
    """Return what a search's model is like; the first two rows at the largest and the smallest budget.

    What is linear in layers and widths is predicted as the surrogate predicts it, of each map from the others.
    """
    model, finished = sampler._model, sampler._no_maps()
    finished.update(trials)
    rows: dict[str, float] = {}
    for name, budget in (("largest", sampler._budgets[0]), ("smallest", sampler._budgets[-1])):
        observed = finished.observations(budget, sampler._fp32_log_odds)
        posterior = model.posterior(observed, budget)
        sums = model.sums.reshape(*sampler._sizes.shape, -1)
        summed = np.array([sums[np.arange(len(chosen)), chosen].sum(axis=0) for chosen in observed.choices])
        residual = observed.shifts - summed / np.sqrt(1.0 + posterior.saturation * rms(summed) ** 2)[:, None]
        inverse = posterior.half.T @ posterior.half
        unpredicted = inverse @ residual / np.diag(inverse)[:, None]  # of each map, by all others
        shares = [float(np.mean(rms(part) / rms(observed.shifts))) for part in (residual, unpredicted)]
        rows[f"{name}: shift that the prior misses"], rows[f"{name}: and a linear fit too"] = shares
    weighted = model.curvature.mixed(model.sums) * np.sqrt(model.curvature.pivots)
    of_layers = weighted.reshape(*sampler._sizes.shape, -1)
    rows["spread of layers, log rms"] = float(np.log(rms(of_layers)).std(axis=0).mean())
    by_sentence = np.sort((of_layers**2).sum(axis=(0, 1)))[::-1]
    rows["damage of the worst tenth of sentences"] = float(
        by_sentence[: len(by_sentence) // 10].sum() / by_sentence.sum()
    )
    rows["squared correlation of layers, carried over"] = shared_correlation(of_layers)
    rows["interaction shrinkage"] = sampler.shrinkage
    return rows


def shared_correlation(of_layers: Floats) -> float:
    """Return the mean squared correlation of two layers' shifts ``(n_layers, n_widths, n)``, as it carries over.

    It is the mean product of the correlations on two halves of the sentences, to which luck adds nothing.
    """
    rng, products = np.random.default_rng(0), []
    first, second = np.triu_indices(len(of_layers), 1)
    for _ in range(10):
        correlations = []
        for half in np.array_split(rng.permutation(of_layers.shape[-1]), 2):
            unit = of_layers[:, :, half] / np.linalg.norm(of_layers[:, :, half], axis=-1, keepdims=True)
            correlations.append((unit[first] * unit[second]).sum(axis=-1))
        products.append(float(np.mean(correlations[0] * correlations[1])))
    return float(np.mean(products))


def rms(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the root mean square over the last axis."""
    return np.asarray(np.sqrt(np.mean(vectors**2, axis=-1)))


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
