"""False claims, coverage and power of intervals, and winner's luck, on simulated maps whose truth is known.

`python -m tests.benchmarks luck` takes some minutes. Every figure comes with what it should be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from results.statistics.cross_fitting import FOLDS, REPEATS, corrected
from results.statistics.metric_draws import MCC
from tests.benchmarks.flips import print_claims
from tests.benchmarks.ladder import print_smallest
from tests.results.simulated import best_mcc, candidates_of, cola_like

MAPS = 1000
DATASETS = 200


def main(arguments: list[str]) -> None:
    """Print false claims and power, claims of the smallest map, coverage, then bias of the best of equal maps."""
    print_claims()
    print_smallest()
    print_coverage()
    print_winners_luck()


def print_coverage() -> None:
    """Print how often intervals of one MCC and of a difference hold the truth, on sentences of CoLA's size."""
    truth = cola_like()
    random = np.random.default_rng(0)
    one = truth.draw(random, MAPS)
    other = np.where(random.random(one.shape) < 0.1, truth.draw(random, MAPS), one)
    single = [MCC.draws(truth.labels, answers).interval() for answers in one]
    paired = [MCC.draws(truth.labels, *answers) for answers in zip(other, one, strict=True)]
    differences = [drawn.interval() for drawn in paired]
    confident = np.mean([drawn.confidence_above(0.0) > 0.95 for drawn in paired])
    print(f"{truth.labels.size:,} sentences, MCC {truth.mcc:.3f}, {MAPS:,} maps")
    print(f"  95% intervals of one MCC cover it in {np.mean([i.low <= truth.mcc <= i.high for i in single]):.1%}")
    print(f"  95% intervals of a difference cover it in {np.mean([i.low <= 0 <= i.high for i in differences]):.1%}")
    print(f"  95% confident of no loss where there is neither loss nor gain: {confident:.1%}, at most 5%")


def print_winners_luck() -> None:
    """Print bias and spread of the best of equal maps, naive and corrected."""
    truth = cola_like()
    error = MCC.standard_error(truth.labels, truth.draw(np.random.default_rng(0), 1)[0])
    print(f"the best of {MAPS:,} equal maps, {DATASETS} times; in standard errors of one MCC, {error:.4f}:")
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
                naive.append(candidates.metrics.max() - truth.mcc)
                honest.append(found.metric - truth.mcc)
                held.append(found.metric_interval.low <= truth.mcc <= found.metric_interval.high)
            print(
                f"  {words}, {folds} folds {repeats} times: naive bias {np.mean(naive) / error:+.2f}, "
                f"corrected {np.mean(honest) / error:+.2f}, its spread {np.std(honest) / error:.2f}; "
                f"its intervals cover the truth in {np.mean(held):.1%}"
            )
