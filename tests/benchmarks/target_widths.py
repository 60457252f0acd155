"""What a search within a runtime's widths gains over rounding up the maps of a search of all widths.

    bitfront search --model .. --data .. --hours 1 --run FREE
    bitfront search --model .. --data .. --hours 1 --widths 2,4,8 --size onnx --run TARGET
    python -m tests.benchmarks target_widths FREE TARGET

Each map that FREE scored on unseen sentences is rounded up to TARGET's widths and scored on TARGET's unseen sentences.
It is compared with TARGET's best map of at most its bytes, chosen and scored on different halves of the sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from objectives.layers import BitMap
from objectives.training_sentences import unseen_sentences
from results.statistics.unseen import gain_over_knapsack, unseen_damages
from search.run.profile import checked_profile
from search.run.reporting import read_outcome
from search.run.run_directory import RunDirectory
from search.run.worker import constraint_of, load_searched_problem


def main(arguments: list[str]) -> None:
    """Compare two runs."""
    if len(arguments) != 2:
        print(__doc__)
        return
    free, target = (RunDirectory(Path(argument)) for argument in arguments)
    profile = checked_profile(target.read_settings()["profile"] | {"precision": "fp32"}, target.name)
    problem = load_searched_problem(profile, print)
    constraint = constraint_of(profile, problem.footprint)
    narrow, wide = read_outcome(target), read_outcome(free)
    assert narrow.unseen is not None and wide.unseen is not None, "both runs need scores on unseen sentences"
    searched = [trial.bit_map for trial in wide.trials if trial.number in wide.unseen.log_odds]
    rounded = dict.fromkeys(map(rounding_up_to(narrow.widths), searched))
    maps = [bit_map for bit_map in rounded if constraint.violation(bit_map) <= 0]
    evaluator = problem.evaluator_on(unseen_sentences(problem, profile.unseen))
    assert np.array_equal(evaluator.fp32_log_odds(), narrow.unseen.fp32_log_odds), "the unseen sentences differ"
    footprint, first = problem.footprint, 1 + max(trial.number for trial in narrow.trials)
    known = [
        replace(trial, origin="sampler") for trial in narrow.trials if trial.number in narrow.unseen.log_odds
    ]  # all that the run has to offer, its baselines too
    added = [
        replace(
            known[0],
            number=number,
            origin="plain",
            bit_map=bit_map,
            feasible=True,
            nominal_compression=footprint.compression(bit_map, "nominal"),
            packed_compression=footprint.compression(bit_map, "packed"),
            onnx_compression=footprint.compression(bit_map, "onnx"),
        )
        for number, bit_map in enumerate(maps, first)
    ]
    log_odds = {trial.number: evaluator.log_odds(trial.bit_map) for trial in added}
    unseen = replace(narrow.unseen, log_odds={**narrow.unseen.log_odds, **log_odds})
    damages = unseen_damages(unseen, narrow.head)

    print(
        f"{len(maps)} maps of {wide.name}, rounded up; {len(known)} maps of {narrow.name}; damage on unseen sentences"
    )
    print("ONNX bytes, damage rounded up | bytes, damage of the least damaging map of at most that size")
    for trial in sorted(added, key=lambda trial: footprint.size(trial.bit_map, "onnx")):
        size, damage = footprint.size(trial.bit_map, "onnx"), damages[trial.number].damage
        rivals = [other for other in known if footprint.size(other.bit_map, "onnx") <= size]
        if not rivals:
            continue
        best = min(rivals, key=lambda other: damages[other.number].damage)
        best_size = footprint.size(best.bit_map, "onnx")
        print(f"{size:11,}  {damage:.5f} | {best_size:11,}  {damages[best.number].damage:.5f}  {best.label}")
    gain = gain_over_knapsack(replace(narrow, trials=(*known, *added), unseen=unseen))
    assert gain is not None, "the runs have no size in common"
    within = f"{gain.interval.low:.0%} to {gain.interval.high:.0%}"
    print(f"{narrow.name} does {gain.ratio:.0%} of the damage (95% interval {within}), {gain.sizes} sizes")


def rounding_up_to(widths: tuple[int, ...]) -> Callable[[BitMap], BitMap]:
    """Return a function that gives each layer the next of some widths."""
    return lambda bit_map: tuple(next((w for w in widths if w >= width), widths[-1]) for width in bit_map)
