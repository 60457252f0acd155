"""Guided search against NSGA-II and TPE at many times its cost, and against plain allocation and uniform maps.

`python -m tests.benchmarks search` runs the miniature with three seeds, or with the seeds behind it; with `shared`
behind it, the shared model. Every cost is counted in full-evaluation equivalents, sensitivities included.
Hypervolume: nominal bits a weight from 2 to 32 / 5.5 against log10 of damage clipped to [1e-5, 1], reference point
(32 / 5.5, 0).
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from objectives.problem import Problem, load_problem
from results.outcome import Outcome, Trial
from results.pareto import hypervolume_2d
from search.contenders import Contender, plain_allocations, reference, uniform_maps
from search.feasible import SizeConstraint
from search.guided import GuidedSampler
from search.samplers import FeasibleSampler
from search.sensitivity import measure
from search.study import ask, open_study, outcome, tell
from tests.shared import COLA, MODEL

MIN_COMPRESSION = 5.5
GUIDED_COST = 300
COMPRESSIONS = (5.5, 8.0, 9.2, 10.67, 11.6, 12.8)


@dataclass(frozen=True)
class Searched:
    """What one search found and what it cost, in full-evaluation equivalents and in seconds a proposal."""

    outcome: Outcome
    cost: float
    proposal_s: float


def main(arguments: list[str]) -> None:
    """Compare on the miniature, or on the shared model."""
    if arguments == ["shared"]:
        compare(load_problem(str(MODEL), str(COLA), say=print), seeds=(0,), rival_cost=1000)
    else:
        seeds = tuple(int(seed) for seed in arguments) or (0, 1, 2)
        compare(load_problem("miniature", "miniature", say=print), seeds, rival_cost=2000)


def compare(problem: Problem, seeds: tuple[int, ...], rival_cost: int) -> None:
    """Print one table a seed."""
    for seed in seeds:
        guided = search(problem, "guided", GUIDED_COST, seed)
        show("guided", guided, seed)
        show_damages(guided.outcome)
        for rival in ("nsga2", "tpe"):
            found = search(problem, rival, rival_cost, seed)
            show(rival, found, seed)
            ratio = hypervolume(guided.outcome) / hypervolume(found.outcome)
            print(
                f"  guided / {rival}: hypervolume {ratio:.3f} at {guided.cost / found.cost:.2f} of the cost", flush=True
            )


def search(problem: Problem, sampler: str, cost: int, seed: int) -> Searched:
    """Search in memory until the cost is spent."""
    constraint = SizeConstraint(problem.footprint, "nominal", MIN_COMPRESSION)
    contenders: list[Contender] = [*reference(problem.layers)[0], *uniform_maps(problem.layers)]
    evaluation_s = one_evaluation_s(problem)
    spent = 0.0
    proposer: BaseSampler
    if sampler == "guided":
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as empty:
            sensitivities = measure(problem, Path(empty))
        assert sensitivities is not None
        damages = sensitivities.damages
        spent = (time.perf_counter() - started) / evaluation_s
        contenders += plain_allocations(damages, constraint)
        proposer = GuidedSampler(constraint, damages, seed)
    else:
        proposer = FeasibleSampler(sampler, constraint, seed)
    study = open_study(optuna.storages.InMemoryStorage(), problem, "damage", constraint, proposer, contenders)
    proposing_s = []
    while spent < cost:
        started = time.perf_counter()
        trial, bits = ask(study, problem.layers)
        proposing_s.append(time.perf_counter() - started)
        tell(study, trial, bits, problem.evaluate(bits), constraint, "damage")
        spent += 1
    return Searched(outcome(study, sampler), spent, float(np.median(proposing_s[len(contenders) :])))


def one_evaluation_s(problem: Problem) -> float:
    """Return the median seconds of a full evaluation, once the bank holds what it needs."""
    rng = np.random.default_rng(0)
    maps = [tuple(int(width) for width in rng.choice(range(2, 9), size=len(problem.layers))) for _ in range(3)]
    for bits in maps:
        problem.evaluate(bits)
    return float(np.median([problem.evaluate(bits).elapsed_s for bits in maps]))


def hypervolume(found: Outcome) -> float:
    """Return the hypervolume of the feasible maps; larger is better."""
    costs = [
        (32 / trial.nominal_compression, math.log10(min(max(trial.scores.damage, 1e-5), 1.0)))
        for trial in found.trials
        if trial.feasible and trial.scores is not None
    ]
    return hypervolume_2d(np.array(costs), (32 / MIN_COMPRESSION, 0.0))


def show(name: str, searched: Searched, seed: int) -> None:
    """Print one search's hypervolume and cost."""
    print(
        f"seed {seed}, {name}: hypervolume {hypervolume(searched.outcome):.3f} after {searched.cost:.0f} evaluations, "
        f"{1000 * searched.proposal_s:.0f} ms a proposal",
        flush=True,
    )


def show_damages(found: Outcome) -> None:
    """Print the least damage at some compressions, of each origin."""
    for compression in COMPRESSIONS:
        plain, guided, uniform = (best(found, origin, compression) for origin in ("plain", "sampler", "uniform"))
        ratio = guided / plain if plain else math.nan
        print(f"  {compression:5.2f}x: plain {plain:.4f}, guided {guided:.4f} ({ratio:.0%}), uniform {uniform:.4f}")


def best(found: Outcome, origin: str, compression: float) -> float:
    """Return the least damage among an origin's maps of at least a compression."""

    def reaches(trial: Trial) -> bool:
        return trial.origin == origin and round(trial.nominal_compression, 2) >= compression

    return min((t.scores.damage for t in found.trials if t.scores is not None and reaches(t)), default=math.nan)
