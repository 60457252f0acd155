"""How often intervals of a difference of MCC are wrong where a map answers few sentences differently from FP32.

A harmful flip is a sentence that FP32 has right and the map wrong; a helpful flip is the opposite. All flips are of
one label. The chances of every number of flips are summed, so that no figure depends on luck. The twin is the bootstrap
that draws sentences with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from results.statistics.bootstrap import Floats
from results.statistics.confusion import DRAWS, Counts, Draws, difference, draws_of

SIZES = (20, 60, 160, 313, 527, 1043)
HARMFUL = (0.25, 0.5, 1.0, 2.0, 2.9, 3.1, 5.0, 10.0, 20.0)  # flips to expect
HELPFUL = (0.0, 0.5, 1.0)  # for each harmful one
MARGIN = 0.01
POWER_AT = (1.0, 5.0, 10.0)  # harmful flips, and as many helpful ones

Measure = Callable[[Counts], Draws]


def print_claims() -> None:
    """Print false claims, coverage and power by the number of sentences; each of our intervals, then of the twin's."""
    print("maps of up to 20 expected flips, the worst case of each; in brackets: of the bootstrap")
    print("  false: it is claimed with 95%, 99% confidence that no more is lost than the truth; at most 5%, 1%")
    print("  covered: 95% intervals hold the truth; at least 95%")
    print(f"  unflipped: the confidence that at most {MARGIN} MCC is lost if no answer differs")
    print("  power: with 2, 10, 20 flips and no true loss, that is claimed with 95% confidence; more is better")
    for size in SIZES:
        both = [[claims(size, label, measure) for label in (0, 1)] for measure in (draws_of, bootstrap)]
        unflipped = [measure(fp32_counts(size)).confidence_above(-MARGIN) for measure in (draws_of, bootstrap)]

        def words(figures: Iterable[float]) -> str:
            ours, twin = ("-" if np.isnan(figure) else f"{figure:.1%}" for figure in figures)
            return f"{ours} ({twin})"

        power = [words(min(found[3][at] for found in labels) for labels in both) for at in map(HARMFUL.index, POWER_AT)]
        print(
            f"  {size:5,} sentences: false {words(max(found[0].max() for found in labels) for labels in both)}, "
            f"{words(max(found[1].max() for found in labels) for labels in both)}; "
            f"covered {words(min(found[2].min() for found in labels) for labels in both)}; "
            f"unflipped {words(unflipped)}; power {', '.join(power)}",
            flush=True,
        )


def claims(size: int, label: int, measure: Measure) -> tuple[Floats, Floats, Floats, Floats]:
    """Return chances for maps of one label's flips.

    Returns:
        The chances, ``(n_cases,)`` each, that no more than the true loss is claimed with 95% and with 99% confidence
        (the claim is false), that the interval holds the truth, and, ``(n_harmful,)``, that a map of as many helpful
        flips is said with 95% confidence to lose at most ``MARGIN``; NaN if there are too few sentences for the flips.
    """
    base = fp32_counts(size)
    right, wrong = int(base[label, label, label]), int(base[label, 1 - label, 1 - label])
    cases = [(harmful, harmful * ratio) for harmful in HARMFUL for ratio in HELPFUL]
    possible = [harmful <= right and helpful <= wrong for harmful, helpful in cases]
    cases = [case for case, fits in zip(cases, possible, strict=True) if fits]
    chances = np.array(
        [
            np.outer(
                binom.pmf(np.arange(right + 1), right, harmful / right),
                binom.pmf(np.arange(wrong + 1), wrong, helpful / max(wrong, 1)),
            )
            for harmful, helpful in cases
        ]
    )
    truths = np.array([difference(flipped(base, label, *case)) for case in cases])
    sums = np.zeros((3, len(cases)))
    passed = np.zeros(len(cases))
    for harmful, helpful in np.argwhere(chances.max(axis=0) > 1e-5):
        drawn = measure(flipped(base, label, int(harmful), int(helpful)).astype(np.int64))
        interval, weight = drawn.interval(), chances[:, harmful, helpful]
        confidences = np.array([drawn.confidence_above(truth + 1e-9) for truth in truths])
        held = (interval.low <= truths + 1e-9) & (truths - 1e-9 <= interval.high)
        sums += weight * np.stack([confidences >= 0.95, confidences >= 0.99, held])
        passed += weight * (drawn.confidence_above(-MARGIN) >= 0.95)
    lossless = dict(zip(cases, passed, strict=True))
    return *sums, np.array([lossless.get((harmful, harmful), np.nan) for harmful in HARMFUL])


def bootstrap(counts: Counts) -> Draws:
    """Return the differences of draws of the sentences with replacement within each label."""
    random = np.random.default_rng(0)
    labels = [random.multinomial(own.sum(), own.ravel() / own.sum(), DRAWS) for own in counts]
    drawn = difference(np.stack(labels, axis=1).reshape(DRAWS, *counts.shape))[np.newaxis]
    return Draws(float(difference(counts)), drawn, drawn, smallest=-2.0, largest=2.0)


def fp32_counts(size: int) -> Counts:
    """Return counts (label, map, FP32) of a map without flips, at CoLA's balance and a BERT's rates of acceptance."""
    positive = round(0.69 * size)
    hits, alarms = round(0.88 * positive), round(0.43 * (size - positive))
    counts = np.zeros((2, 2, 2), dtype=np.int64)
    counts[1, 1, 1], counts[1, 0, 0] = hits, positive - hits
    counts[0, 1, 1], counts[0, 0, 0] = alarms, size - positive - alarms
    return counts


def flipped(counts: Counts, label: int, harmful: float, helpful: float) -> npt.NDArray[np.float64]:
    """Return the counts with some sentences of a label flipped."""
    changed = counts.astype(np.float64)
    right, wrong = label, 1 - label
    changed[label, [right, wrong], right] += (-harmful, harmful)
    changed[label, [wrong, right], wrong] += (-helpful, helpful)
    return changed
