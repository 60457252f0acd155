"""How often `smallest@margin` claims too small a map, and how small its claims are, on simulated searches.

A sentence flips if its difficulty, partly shared by all maps and partly a map's own, is below the map's chance of a
flip. The chance grows with compression. A claim is false if its map truly loses more than the margin. The twin tests
every map of the front, as a fixed sequence too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from results.statistics.bootstrap import CONFIDENCE
from results.statistics.candidates import Candidates, smallest_rule
from results.statistics.confusion import Counts, difference
from results.statistics.picks import LADDER
from tests.benchmarks.flips import fp32_counts
from tests.results.simulated import Truth, candidates_of

RUNS = 300
MARGIN = 0.02
SENTENCES = 1043
MAPS = 300
SMALLEST, LARGEST = 5.5, 16.0
FP32_SIZE = 10**6
UNIT = 1.0  # nats of a flip; other sentences do next to no damage


@dataclass(frozen=True)
class Case:
    """One kind of search.

    Attributes:
        words: what it is.
        harmful: the harmful flips to expect among all sentences at the lowest compression, and at the highest.
        helpful: helpful flips for each harmful one.
        shared: the share of a difficulty's variance that all maps have in common.
        unseen: whether maps are chosen on other sentences than those with labels.
    """

    words: str
    harmful: tuple[float, float]
    helpful: float
    shared: float
    unseen: bool


CASES = (
    Case("chosen on unseen sentences", (0.3, 60.0), 0.5, 0.5, True),
    Case("the same, maps err independently", (0.3, 60.0), 0.5, 0.0, True),
    Case("the same, no map loses anything", (0.3, 6.0), 1.0, 0.5, True),
    Case("the same, every map loses just more than the margin", (9.4, 9.4), 0.0, 0.5, True),
    Case("chosen on the sentences with labels", (0.3, 60.0), 0.5, 0.5, False),
    Case("the same, every map loses just more than the margin", (9.4, 9.4), 0.0, 0.5, False),
)


def print_smallest() -> None:
    """Print false claims and the median claim of each rule, case by case."""
    print(f"smallest@{MARGIN}: {RUNS} searches of {MAPS} maps, {SENTENCES:,} sentences; in brackets: every map tested")
    limits = [int(FP32_SIZE / float(text)) for text in LADDER]
    rules = (smallest_rule(MARGIN, limits), every_map_of_the_front)
    for case in CASES:
        random = np.random.default_rng(0)
        claims = np.array([claimed(case, random, rules) for _ in range(RUNS)])
        false = (claims[..., 1] > MARGIN).mean(axis=0)
        median = np.median(claims[..., 0], axis=0)
        mean = claims[..., 0].mean(axis=0)
        print(
            f"  {case.words}: too small in {false[0]:.1%} ({false[1]:.1%}), at most 5%; claims {median[0]:.1f}x "
            f"({median[1]:.1f}x) in the median, {mean[0]:.1f}x ({mean[1]:.1f}x) in the mean; 1x if none",
            flush=True,
        )


def claimed(
    case: Case, random: np.random.Generator, rules: tuple[Callable[[Candidates], int | None], ...]
) -> list[tuple[float, float]]:
    """Return the compression that each rule claims in one simulated search, and the loss there; 1 and 0 if none."""
    truth, fp32, base = population()
    compressions = random.uniform(SMALLEST, LARGEST, MAPS)
    compressions[0] = LARGEST  # every run scores the lowest width everywhere
    place = (compressions - SMALLEST) / (LARGEST - SMALLEST)
    harmful = case.harmful[0] * (case.harmful[1] / case.harmful[0]) ** place
    if case.harmful[0] < case.harmful[1]:  # of maps of a size some are better than others
        harmful *= 2 ** random.uniform(0, 1, MAPS)
    right = fp32 == truth.labels
    chances = np.where(right, harmful[:, None] / right.sum(), case.helpful * harmful[:, None] / (~right).sum())

    def flips() -> npt.NDArray[np.bool_]:
        common = np.sqrt(case.shared) * random.standard_normal(SENTENCES)
        own = np.sqrt(1 - case.shared) * random.standard_normal((MAPS, SENTENCES))
        below: npt.NDArray[np.bool_] = ndtr(common + own) < chances
        return below

    flipped = flips()
    losses = UNIT * (flips() if case.unseen else flipped) + 1e-6 * harmful[:, None]
    candidates = replace(
        candidates_of(
            truth, fp32 ^ flipped, sizes=(FP32_SIZE / compressions).astype(np.int64), losses=losses, fp32_accepted=fp32
        ),
        metric_draws=2000,
    )
    found = []
    for rule in rules:
        at = rule(candidates)
        loss = 0.0 if at is None else -true_difference(base, harmful[at], case.helpful * harmful[at])
        found.append((1.0 if at is None else compressions[at], loss))
    return found


def every_map_of_the_front(candidates: Candidates) -> int | None:
    """The twin: test the front from its largest map to its smallest."""
    smallest = None
    for at in candidates.front(candidates.feasible).tolist():
        if candidates.no_worse(at, MARGIN) < CONFIDENCE:
            break
        smallest = at
    return smallest


def population() -> tuple[Truth, npt.NDArray[np.bool_], Counts]:
    """Return sentences, the FP32 model's answers and their counts, at CoLA's balance and a BERT's rates."""
    counts = fp32_counts(SENTENCES)
    kinds = [(label, answer) for label in (0, 1) for answer in (0, 1)]
    sizes = [int(counts[label, answer, answer]) for label, answer in kinds]
    labels = np.repeat(np.array([label for label, _ in kinds], dtype=np.int8), sizes)
    answers = np.repeat(np.array([answer == 1 for _, answer in kinds]), sizes)
    return Truth(labels, np.ones(labels.size, dtype=np.bool_), np.zeros(labels.size)), answers, counts


def true_difference(base: Counts, harmful: float, helpful: float) -> float:
    """Return the map's MCC less FP32's if the flips are spread evenly over the sentences that they may hit."""
    counts = base.astype(np.float64)
    right = sum(base[label, label, label] for label in (0, 1))
    wrong = sum(base[label, 1 - label, 1 - label] for label in (0, 1))
    for label in (0, 1):
        lost = harmful * base[label, label, label] / right
        won = helpful * base[label, 1 - label, 1 - label] / wrong
        counts[label, label, label] -= lost
        counts[label, 1 - label, label] += lost
        counts[label, 1 - label, 1 - label] -= won
        counts[label, label, 1 - label] += won
    return float(difference(counts))
