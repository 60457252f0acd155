"""What each quantiser does to a real model at uniform widths.

`python -m tests.benchmarks quantizers` prints the damage on all validation sentences of the shared model, with all
layers at the same width and with the embeddings at 8 bits, each as a share of affine's too and with its packed
compression. Calibrated codes are made for the widths that are asked for alone, and their time is told; `quick` leaves
them out. Numbers are group sizes to show as well.
"""

from __future__ import annotations

import time

from objectives.evaluation.evaluator import Evaluator
from objectives.layers import BitMap, uniform
from objectives.loading.layer_discovery import footprint_of
from objectives.packing.scheme import Scheme
from objectives.problem import Problem, load_problem
from objectives.quantization.bank import WeightBank
from objectives.quantization.bank_cache import calibrated_entries, load_quantizer
from objectives.scores import score
from tests.shared import ABSENT, COLA, MODEL

WIDTHS = (2, 3, 4)
EMBEDDING_WIDTH = 8


def main(arguments: list[str]) -> None:
    """Print the table, or why there is none."""
    if ABSENT:
        print(ABSENT)
        return
    problem = load_problem(str(MODEL), str(COLA))
    group_sizes = [0, *(int(argument) for argument in arguments if argument.isdigit())]
    calibrated = "quick" not in arguments
    columns = {}
    for group_size in group_sizes:
        grouped = f" in groups of {group_size}" if group_size else ""
        scheme = Scheme(group_size=group_size)
        columns[f"affine{grouped}"] = _scored(problem, WeightBank(problem.network, problem.layers, scheme))
        if not group_size:
            codebook = WeightBank(problem.network, problem.layers, Scheme("codebook"))
            columns["codebook"] = _scored(problem, codebook)
        if calibrated:
            columns[f"calibrated{grouped}"] = _scored(problem, _calibrated_bank(problem, group_size))
    print(f"damage, nats a sentence, {len(problem.labels)} sentences (share of affine's; packed compression)")
    for name, column in columns.items():
        print(name)
        for map_name, (damage, packed) in column.items():
            share = damage / columns["affine"][map_name][0]
            print(f"  {map_name:24} {damage:.4f} ({share:.2f}; {packed:.2f}x)")


def _calibrated_bank(problem: Problem, group_size: int) -> WeightBank:
    started = time.perf_counter()
    quantizer = load_quantizer("calibrated", problem.classifier, str(COLA), group_size)
    bank = WeightBank(problem.network, problem.layers, quantizer.scheme)
    entries = calibrated_entries(quantizer, problem.network, problem.layers, (*WIDTHS, EMBEDDING_WIDTH))
    for layer, of_layer in entries:
        bank.fill(layer, of_layer)
    print(f"calibrated at {len(WIDTHS) + 1} widths in {time.perf_counter() - started:.0f} s")
    return bank


def _maps(problem: Problem) -> dict[str, BitMap]:
    maps: dict[str, BitMap] = {}
    for width in WIDTHS:
        maps[f"all layers {width} bits"] = uniform(problem.layers, width)
        maps[f"{width} bits, embeddings {EMBEDDING_WIDTH}"] = tuple(
            EMBEDDING_WIDTH if layer.kind == "embedding" else width for layer in problem.layers
        )
    return maps


def _scored(problem: Problem, bank: WeightBank) -> dict[str, tuple[float, float]]:
    """Return the damage and the packed compression of each map."""
    evaluator = Evaluator(problem.network, problem.layers, problem.token_ids, bank=bank)
    sizes = footprint_of(problem.network, bank.scheme)
    return {
        name: (_damage(problem, evaluator, bit_map), sizes.compression(bit_map, "packed"))
        for name, bit_map in _maps(problem).items()
    }


def _damage(problem: Problem, evaluator: Evaluator, bit_map: BitMap) -> float:
    return score(evaluator.log_odds(bit_map), problem.labels, problem.fp32_log_odds).damage
