"""How little damage a map of a size can do on the search's own sentences, whatever it costs to find.

`python -m tests.benchmarks floor [COMPRESSION]` (12.8), shared model, `affine`: from the plain allocation, and from all
linear layers at 2 bits, the shifts of every layer and width are taken to first order by a backward pass at the map
itself, and changes and exchanges between layers are made on them until none helps. Where the map found is truly better
the next backward pass is made there, else smaller steps are tried; it ends where none is better. Trust is full: what
cancels on these sentences counts, though little of it does elsewhere. A pass costs about a dozen evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from objectives.bank import FP32_WIDTH, WeightBank
from objectives.gradient import first_order_shifts
from objectives.layers import WIDTHS, Layer
from objectives.problem import Problem, cache_directory, load_problem
from objectives.quantized import QuantizedModel
from search.allocation import Choice, Sizes, allocate, layer_sizes, to_bits
from search.common import CommonShifts, Floats, sigmoid
from search.descent import descend
from search.landscape import Landscape
from search.sensitivity import measure
from tests.shared import COLA, MODEL, SHARED

CAUTIONS = (0.05, 0.2, 0.6, 2.0)
"""What a change is doubted by: so many times its own first-order damage."""
MOST_PASSES = 12


class BankAround(WeightBank):
    """A bank to which a map's own weights are those of FP32, so that what it says is relative to the map."""

    def __init__(self, bank: WeightBank, bits: dict[str, int]) -> None:
        """Take a bank and the width of each layer, by its name."""
        self._bank = bank
        self._bits = bits

    def write_weight(self, layer: Layer, width: int, out: Tensor, rows: Tensor | None = None) -> None:
        """Write a layer's weight."""
        self._bank.write_weight(layer, self._bits[layer.name] if width == FP32_WIDTH else width, out, rows)


@dataclass(frozen=True)
class Scored:
    """A map, its shift of the log-odds ``(n_sentences,)`` and its damage."""

    chosen: Choice
    shift: Floats
    damage: float


def main(arguments: list[str]) -> None:
    """Print the damage after each pass, and as a share of the plain allocation's."""
    if not (MODEL.is_dir() and COLA.is_dir()):
        print(f"no shared model and sentences in {SHARED}; set BITFRONT_SHARED")
        return
    compression = float(arguments[0]) if arguments else 12.8
    problem = load_problem(str(MODEL), str(COLA), quantizer="affine", say=print)
    sensitivities = measure(problem, cache_directory())
    assert sensitivities is not None
    sizes, _ = layer_sizes(problem.footprint, "nominal")
    budget = int(problem.footprint.fp32_nominal_bits / compression)
    narrow = sensitivities.damages.copy()
    narrow[[layer.kind == "linear" for layer in problem.layers], 1:] = 1e3
    plain = scored(problem, allocate(sensitivities.damages, sizes, budget))
    starts = {"plain allocation": plain, "linear layers at 2 bits": scored(problem, allocate(narrow, sizes, budget))}
    for name, start in starts.items():
        print(f"from {name}: {start.damage:.4f}, {start.damage / plain.damage:.0%} of plain allocation's", flush=True)
        known = start
        for number in range(1, MOST_PASSES + 1):
            better = improved(problem, sizes, budget, known)
            if better is None:
                print(f"  pass {number}: nothing better", flush=True)
                break
            known = better
            print(f"  pass {number}: {known.damage:.4f}, {known.damage / plain.damage:.0%}", flush=True)


def scored(problem: Problem, chosen: Choice) -> Scored:
    """Evaluate a map."""
    found = problem.evaluate(to_bits(chosen))
    return Scored(chosen, found.log_odds - problem.fp32_log_odds, found.scores.damage)


def improved(problem: Problem, sizes: Sizes, budget: int, known: Scored) -> Scored | None:
    """Return a better map than one that is known, by the shifts of changes around it; None where none is found."""
    bank, bits = problem.evaluator.bank, to_bits(known.chosen)
    network = QuantizedModel.of(problem.network, bank, bits).decoded(problem.network)
    widths = {layer.name: width for layer, width in zip(problem.layers, bits, strict=True)}
    shifts = first_order_shifts(network, problem.layers, problem.token_ids, BankAround(bank, widths))
    assert shifts is not None
    shifts = shifts.reshape(len(problem.layers) * len(WIDTHS), -1)
    probability = sigmoid(problem.fp32_log_odds)
    doubt = np.mean(probability * (1 - probability)) * np.mean(shifts**2, axis=1)
    for caution in CAUTIONS:
        landscape = Landscape(
            fp32_log_odds=problem.fp32_log_odds,
            sums=np.zeros_like(shifts),
            saturation=0.0,
            corrections=shifts,
            trend=known.shift,
            doubt=np.diag(caution * doubt).astype(np.float32),
            specific=np.zeros(len(shifts), dtype=np.float32),
            common=CommonShifts(problem.fp32_log_odds),
            trust=1.0,
        )
        _, chosen = descend(landscape, sizes, known.chosen, budget)
        if not np.array_equal(chosen, known.chosen):
            found = scored(problem, chosen)
            if found.damage < known.damage:
                return found
    return None
