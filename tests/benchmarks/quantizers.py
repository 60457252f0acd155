"""What each quantiser does to a real model at uniform widths.

`python -m tests.benchmarks quantizers` prints the damage on all validation sentences of the shared model, with all
layers at the same width and with the embeddings at 8 bits, and each as a share of affine's. Calibrated codes are made
for the widths that are asked for alone, and their time is told; `quick` leaves them out.
"""

from __future__ import annotations

import time

from objectives.bank import WeightBank
from objectives.evaluate import Evaluator
from objectives.layers import Bits, uniform
from objectives.problem import Problem, load_problem
from objectives.quantizers import calibrated_entries, load_quantizer
from objectives.schemes import Scheme
from objectives.scores import score
from tests.shared import COLA, MODEL, SHARED

WIDTHS = (2, 3, 4)
EMBEDDING_WIDTH = 8


def main(arguments: list[str]) -> None:
    """Print the table, or why there is none."""
    if not (MODEL.is_dir() and COLA.is_dir()):
        print(f"no shared model and sentences in {SHARED}; set BITFRONT_SHARED")
        return
    problem = load_problem(str(MODEL), str(COLA))
    codebook = WeightBank.of(problem.network, problem.layers, Scheme("codebook"))
    damages = {"affine": _damages(problem, problem.evaluator.bank), "codebook": _damages(problem, codebook)}
    if "quick" not in arguments:
        damages["calibrated"] = _damages(problem, _calibrated_bank(problem))
    print(f"damage, nats a sentence, {len(problem.labels)} sentences; in brackets the share of affine's")
    for map_name in damages["affine"]:
        cells = [
            f"{name} {of[map_name]:.4f} ({of[map_name] / damages['affine'][map_name]:.2f})"
            for name, of in damages.items()
        ]
        print(f"{map_name:32}" + "".join(f"{cell:>28}" for cell in cells))


def _calibrated_bank(problem: Problem) -> WeightBank:
    started = time.perf_counter()
    bank = WeightBank.of(problem.network, problem.layers)
    quantizer = load_quantizer("calibrated", problem.classifier, str(COLA))
    entries = calibrated_entries(quantizer, problem.network, problem.layers, (*WIDTHS, EMBEDDING_WIDTH))
    for layer, of_layer in entries:
        bank.fill(layer, of_layer)
    print(f"calibrated at {len(WIDTHS) + 1} widths in {time.perf_counter() - started:.0f} s")
    return bank


def _maps(problem: Problem) -> dict[str, Bits]:
    maps: dict[str, Bits] = {}
    for width in WIDTHS:
        maps[f"all layers {width} bits"] = uniform(problem.layers, width)
        maps[f"{width} bits, embeddings {EMBEDDING_WIDTH}"] = tuple(
            EMBEDDING_WIDTH if layer.kind == "embedding" else width for layer in problem.layers
        )
    return maps


def _damages(problem: Problem, bank: WeightBank) -> dict[str, float]:
    evaluator = Evaluator(problem.network, problem.layers, problem.token_ids, bank=bank)
    return {name: _damage(problem, evaluator, bits) for name, bits in _maps(problem).items()}


def _damage(problem: Problem, evaluator: Evaluator, bits: Bits) -> float:
    return score(evaluator.log_odds(bits), problem.labels, problem.fp32_log_odds).damage
