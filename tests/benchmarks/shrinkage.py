"""How far the search may count on what layers do together on the sentences at hand.

`python -m tests.benchmarks shrinkage` takes half of the validation sentences of the shared model and of the miniature,
improves knapsack maps on them with each weight (0: only what layers do to all sentences alike may cancel, 1: all
that is seen to cancel counts), and prints the damage that the maps do on the other half as a share of plain
allocation's, for each quantiser, with the shrinkage that a search would take. Damages are predicted from sensitivities,
which are measured first where the cache has none.
"""

from __future__ import annotations

from objectives.cache import cache_directory
from objectives.packing.scheme import QuantizerName
from objectives.problem import MINIATURE, load_problem
from search.allocation.baselines import knapsack_budgets
from search.allocation.constraint import SizeConstraint
from search.allocation.knapsack import layer_sizes
from search.allocation.sensitivity import measure
from search.samplers.shrinkage import SHRINKAGES, choose_shrinkage, damages_elsewhere
from tests.shared import COLA, MODEL

_QUANTIZERS: tuple[QuantizerName, ...] = ("affine", "calibrated")


def main(arguments: list[str]) -> None:
    """Print a line for each model and quantiser."""
    shared = [(str(MODEL), str(COLA))] if MODEL.is_dir() and COLA.is_dir() else []
    print(
        f"damage on the other half, the knapsack's 1, for weights {', '.join(f'{weight:g}' for weight in SHRINKAGES)}"
    )
    for model, data in [*shared, (MINIATURE, MINIATURE)]:
        for quantizer in _QUANTIZERS:
            problem = load_problem(model, data, quantizer=quantizer)
            sensitivities = measure(problem, cache_directory())
            assert sensitivities is not None
            constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
            sizes, _ = layer_sizes(problem.footprint, "nominal")
            known = (sensitivities, problem.fp32_log_odds, sizes, knapsack_budgets(constraint))
            found = damages_elsewhere(*known)
            ratios = " ".join(f"{ratio:.3f}" for ratio in found)
            print(f"  {model}, {quantizer}: {ratios}; taken: {choose_shrinkage(*known):g}", flush=True)
