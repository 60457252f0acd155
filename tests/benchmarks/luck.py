"""Coverage of intervals, and winner's luck naive and corrected, on simulated maps whose truth is known.

`python -m tests.benchmarks luck` draws maps on CoLA's 1,043 validation sentences with known chances of being right.
Every figure comes with what it should be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from results.statistics.bootstrap import Bootstrapped, Resamples
from results.statistics.cross_fitting import FOLDS, REPEATS, corrected
from tests.results.simulated import best_mcc, candidates_of, cola_like

MAPS = 1000
DATASETS = 200


def main(arguments: list[str]) -> None:
    """Print coverage, then bias and spread of the best of equal maps."""
    truth = cola_like()
    resamples = Resamples.draw(truth.labels, truth.in_domain)
    single, paired, confident = [], [], []
    for seed in range(10):
        random = np.random.default_rng(seed)
        one = truth.draw(random, MAPS)
        other = np.where(random.random(one.shape) < 0.1, truth.draw(random, MAPS), one)
        mccs = resamples.mcc(one)
        difference = resamples.mcc(other) - mccs
        single.append(covered(mccs, truth.mcc))
        paired.append(covered(difference, 0.0))
        confident.append(float(np.mean(difference.confidence_above(0.0) > 0.95)))
    standard_error = float(mccs.standard_errors().mean())
    print(f"{truth.labels.size} sentences, MCC {truth.mcc:.3f}, standard error {standard_error:.4f}")
    print(f"  95% intervals of one MCC cover it in {np.mean(single):.1%} of {10 * MAPS:,} cases")
    print(f"  95% intervals of a paired difference cover it in {np.mean(paired):.1%}")
    print(f"  95% confident of no loss where there is neither loss nor gain: {np.mean(confident):.1%}, should be 5%")
    print(f"the best of {MAPS:,} equal maps, {DATASETS} times; in standard errors of one MCC:")
    for shared, words in ((1.0, "independent maps"), (0.1, "maps that differ on a tenth of the sentences")):
        for folds, repeats in ((FOLDS, REPEATS), (10, 1)):
            random = np.random.default_rng(0)
            naive, honest, held = [], [], []
            for _ in range(DATASETS):
                base = truth.draw(random, 1)
                maps = np.where(random.random((MAPS, base.size)) < shared, truth.draw(random, MAPS), base)
                candidates = replace(candidates_of(truth, maps), resamples=500)
                [found] = corrected(candidates, [best_mcc], 0.01, folds=folds, repeats=repeats)
                assert found is not None
                naive.append(candidates.mccs.max() - truth.mcc)
                honest.append(found.mcc - truth.mcc)
                held.append(found.mcc_interval.low <= truth.mcc <= found.mcc_interval.high)
            print(
                f"  {words}, {folds} folds {repeats} times: naive bias {np.mean(naive) / standard_error:+.2f}, "
                f"corrected {np.mean(honest) / standard_error:+.2f}, its spread {np.std(honest) / standard_error:.2f}; "
                f"its intervals cover the truth in {np.mean(held):.1%}"
            )


def covered(found: Bootstrapped, truth: float) -> float:
    """Return the share of maps whose interval holds the truth."""
    return float(np.mean([interval.low <= truth <= interval.high for interval in found.intervals()]))
