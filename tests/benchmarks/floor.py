"""The least damage that there is to find at 12.8x, and what a map with so little of it does on other sentences.

    python -m tests.benchmarks floor                   the shared model, 50,000 maps
    python -m tests.benchmarks floor miniature 200     the miniature, 200 maps

Guided search of 300 evaluations, all above that compression, against simulated annealing (Kirkpatrick et al., Science
220 (1983)) by the damage itself, which every map is scored for. What both find is then scored on training sentences,
4,000 of them. Meant for a GPU, where 50,000 maps of the shared model take two minutes: two cores need days.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from objectives.evaluation.cuda_graphs import multiplies_bf16
from objectives.heads import TWO_CLASSES
from objectives.problem import Problem, load_problem
from objectives.scores import Precision
from objectives.training_sentences import unseen_sentences
from search.allocation.knapsack import Choice, Sizes, layer_sizes, to_bit_map, to_choice
from tests.benchmarks.search import GUIDED_COST, TAIL, best_map, search, source_of
from tests.shared import ABSENT

MAPS = 50_000
UNSEEN = 4_000
HOTTEST, COLDEST = 2e-2, 6e-4  # of the knapsack's damage


def main(arguments: list[str]) -> None:
    """Print the shares of the knapsack's damage."""
    which = arguments[0] if arguments else "shared"
    count = int(arguments[1]) if len(arguments) > 1 else MAPS
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and len(arguments) < 2:
        print("takes days without a GPU; say how many maps")
        return
    if which == "shared" and ABSENT:
        print(ABSENT)
        return
    precision: Precision = "bf16" if multiplies_bf16(torch.device(device)) else "fp32"
    problem = load_problem(*source_of(which), precision, device, report_progress=print)
    found = list(search(problem, TAIL, "guided", GUIDED_COST, 0))
    plain, guided = (best_map(found, origin, TAIL) for origin in ("plain", "sampler"))
    sizes, _ = layer_sizes(problem.footprint, "nominal")
    budget = int(sum(layer.elements for layer in problem.layers) * 32 / TAIL)
    annealed = anneal(lambda chosen: damage(problem, chosen), sizes, to_choice(plain), budget, count)
    show(problem, {"plain": plain, "guided": guided, f"annealed, {count} maps": to_bit_map(annealed)})


def damage(problem: Problem, chosen: Choice) -> float:
    """Return a map's damage on the sentences that are searched with, in nats a sentence."""
    return problem.evaluate(to_bit_map(chosen)).scores.damage


def anneal(damage: Callable[[Choice], float], sizes: Sizes, start: Choice, budget: int, count: int) -> Choice:
    """Return the map of least damage within the budget among ``count`` that are scored, from a start within it."""
    rng = np.random.default_rng(0)
    current, current_damage = start, damage(start)
    best, least = start, current_damage
    hottest = HOTTEST * current_damage
    known = {start.tobytes(): current_damage}
    while len(known) < count:
        temperature = hottest * (COLDEST / HOTTEST) ** (len(known) / count)
        proposed = neighbour(current, sizes, budget, rng)
        if (key := proposed.tobytes()) not in known:
            known[key] = damage(proposed)
        if known[key] < current_damage or rng.random() < math.exp((current_damage - known[key]) / temperature):
            current, current_damage = proposed, known[key]
        if current_damage < least:
            best, least = current, current_damage
    return best


def neighbour(chosen: Choice, sizes: Sizes, budget: int, rng: np.random.Generator) -> Choice:
    """Return a map within the budget with a layer or two widened and as many narrowed as that takes."""
    layers = np.arange(len(chosen))
    near = chosen.copy()
    for layer in rng.choice(layers, size=rng.integers(1, 3), replace=False):
        near[layer] = min(near[layer] + rng.choice((1, 1, 1, 1, 2)), sizes.shape[1] - 1)
    if rng.random() < 0.25:
        layer = rng.choice(layers)
        near[layer] = max(near[layer] - 1, 0)
    while sizes[layers, near].sum() > budget:
        near[rng.choice(np.flatnonzero(near))] -= 1
    return near


def show(problem: Problem, maps: dict[str, tuple[int, ...]]) -> None:
    """Print each map's damage as a share of the first's, on the sentences searched with and on others, in FP32."""
    others = problem.evaluator_on(unseen_sentences(problem, UNSEEN))
    fp32_elsewhere = others.fp32_log_odds()
    here = {name: problem.confirm(bit_map).scores.damage for name, bit_map in maps.items()}
    elsewhere = {
        name: TWO_CLASSES.divergences(others.log_odds(bit_map), fp32_elsewhere) for name, bit_map in maps.items()
    }
    first = next(iter(maps))
    print(f"share of {first} allocation's damage at {TAIL}x, on the search's own sentences and on others:")
    for name in maps:
        ratio = elsewhere[name].mean() / elsewhere[first].mean()
        # Of a ratio of means, to first order.
        errors = (elsewhere[name] - ratio * elsewhere[first]) / elsewhere[first].mean()
        half_width = 1.96 * errors.std() / math.sqrt(len(errors))
        print(f"  {name:24} {here[name] / here[first]:6.1%}   {ratio:6.1%} +- {half_width:.1%} of {len(errors)}")
