"""Whether the best map before distillation is the best one after it.

`python -m tests.benchmarks trained_allocation RUN [EPOCHS [SIZE...]]`: at each size, maps of the run's model are
distilled alike, with `--train weights`: the knapsack's; one whose bits are spread evenly over the layers; the
knapsack's with all embeddings at 2 bits; with word embeddings a bit wider, where that fits; and the knapsack's by
sensitivities after distillation. These are measured on the knapsack's map of 1.2 times the size, distilled, with one
of its layers quantised further at a time. Damage is in nats a sentence, on validation sentences and on unseen ones,
with the paired difference from the knapsack's map and its 95% interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import nn

from objectives.cache import cache_directory
from objectives.evaluation.evaluator import Evaluator
from objectives.layers import WIDTHS, BitMap
from objectives.problem import Problem
from objectives.quantization.bank import FP32_WIDTH
from search.allocation.knapsack import BudgetTooSmallError, Damages, allocate_bit_map
from search.allocation.sensitivity import measure
from search.run.checkpoints import problem_of_run
from search.run.run_directory import RunDirectory
from tests.benchmarks.distilled import Distillery

EPOCHS, SIZES = 2, (12.8, 14.2)
_LARGER = 1.2
_EVERY = 3  # of the validation sentences; those that sensitivities after distillation are measured on
_NEVER = 1e3  # nats; keeps the knapsack from a width


def main(arguments: list[str]) -> None:
    """Distil and compare the maps."""
    if not arguments:
        print(__doc__)
        return
    directory, *numbers = arguments
    epochs, sizes = int(numbers[0]) if numbers else EPOCHS, [float(number) for number in numbers[1:]] or SIZES
    problem = problem_of_run(RunDirectory(Path(directory)).read_settings())
    sensitivities = measure(problem, cache_directory())
    assert sensitivities is not None
    comparison = Comparison(problem, sensitivities.damages, epochs)
    heads = ("size", "map", "layers that differ", "searched: validation", "unseen", "distilled: validation", "unseen")
    print(f"{epochs} epochs\n| {' | '.join(heads)} | against the knapsack's |\n|{' --- |' * (len(heads) + 1)}")
    for size in sizes:
        comparison.at_size(size)


class Comparison:
    """Maps of one model, distilled alike."""

    def __init__(self, problem: Problem, damages: Damages, epochs: int) -> None:
        """``damages`` are those of the layers alone, before distillation."""
        self.problem, self.damages = problem, damages
        self.distillery = Distillery(problem, epochs)
        self.sizes = np.array([layer.elements for layer in problem.layers])
        self.words = max(
            (index for index, layer in enumerate(problem.layers) if layer.kind == "embedding"),
            key=lambda index: self.sizes[index],
        )

    def at_size(self, size: float) -> None:
        """Print the table of a size."""
        knapsack = self.knapsack(size)
        embeddings = [index for index, layer in enumerate(self.problem.layers) if layer.kind == "embedding"]
        wider = {self.words: knapsack[self.words] + 1}
        larger = self.distillery.distilled(self.knapsack(size / _LARGER)).decoded(self.problem.network)
        maps: dict[str, Callable[[], BitMap]] = {
            "the knapsack's": lambda: knapsack,
            "spread evenly": lambda: self.spread(size),
            "embeddings at 2 bits": lambda: self.knapsack(size, pinned=dict.fromkeys(embeddings, 2)),
            "word embeddings wider": lambda: self.knapsack(size, pinned=wider),
            "sensitivities after": lambda: self.knapsack(size, self.damages_in(larger)),
        }
        first = None
        for name, make in maps.items():
            try:
                bit_map = make()
            except BudgetTooSmallError:
                print(f"| {size:g}x | {name} | no map is that small |", flush=True)
                continue
            damage = self.distillery.damage(self.distillery.distilled(bit_map))
            first = first or damage
            differing = sum(own != other for own, other in zip(bit_map, knapsack, strict=True))
            before = self.distillery.damage(self.distillery.searched(bit_map))
            print(f"| {size:g}x | {name} | {differing} | {before} | {damage} | {damage.against(first)} |", flush=True)

    def knapsack(self, size: float, damages: Damages | None = None, pinned: Mapping[int, int] | None = None) -> BitMap:
        """Return the knapsack's map of a nominal size, with the widths of some layers given."""
        table = np.array(self.damages if damages is None else damages)
        for index, width in (pinned or {}).items():
            table[index] = _NEVER
            table[index, WIDTHS.index(width)] = 0.0
        footprint, budget = self.problem.footprint, int(32 * self.sizes.sum() / size)
        bit_map = allocate_bit_map(table, footprint, "nominal", budget)
        if any(bit_map[index] != width for index, width in (pinned or {}).items()):
            raise BudgetTooSmallError(f"no map with these widths is {size:g} times smaller")
        return bit_map

    def spread(self, size: float) -> BitMap:
        """Return a map of neighbouring widths, the wider ones spread evenly over the layers in the model's order."""
        budget = 32 * self.sizes.sum() / size
        width = int(budget // self.sizes.sum())
        for wider in range(len(self.sizes), -1, -1):
            counts = np.arange(len(self.sizes) + 1) * wider // len(self.sizes)
            bit_map = tuple(int(width + more) for more in np.diff(counts))
            if (self.sizes * bit_map).sum() <= budget:
                return bit_map
        raise AssertionError("the narrower width alone fits")

    def damages_in(self, network: nn.Module) -> Damages:
        """Return the damages of the layers alone in another network, whose own outputs are the measure."""
        evaluator = Evaluator(network, self.problem.layers, self.problem.token_ids[::_EVERY])
        fp32 = (FP32_WIDTH,) * len(self.sizes)
        wanted = evaluator.log_odds(fp32, remember=True)
        damages = np.zeros((len(self.sizes), len(WIDTHS)))
        for index in reversed(range(len(self.sizes))):
            for column, width in enumerate(WIDTHS):
                outputs = evaluator.log_odds((*fp32[:index], width, *fp32[index + 1 :]))
                damages[index, column] = self.problem.head.divergences(outputs, wanted).mean()
        evaluator.forget()
        return np.asarray(np.maximum.accumulate(damages[:, ::-1], axis=1)[:, ::-1])
