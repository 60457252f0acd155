"""What stopping hopeless candidates early would save, worked out from a finished run.

`python -m tests.benchmarks screening runs/real` goes through the run's trials in order. Each is looked at in
stratified blocks of sentences, as if scored block by block: it is stopped where its damage is above that of the best
map of no greater size known by then, at a one-sided risk of 1% over all looks (paired by sentence, corrected for the
finite number of them). All trials were really scored in full, so every stop can be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from objectives.heads import TWO_CLASSES
from results.outcome import Outcome
from search.study.reading import load_study, outcome

BLOCKS = 8
RISK = 0.01


@dataclass(frozen=True)
class Screened:
    """What became of a run's candidates.

    Attributes:
        saved: share of its evaluation that each candidate was spared, ``(n_candidates,)``.
        belonged: whether it was on the front when it was evaluated in full, ``(n_candidates,)``.
    """

    saved: npt.NDArray[np.float64]
    belonged: npt.NDArray[np.bool_]


def main(arguments: list[str]) -> None:
    """Print what screening would have saved in the runs named, and whom it would have stopped wrongly."""
    if not arguments:
        print("name one or more finished runs: python -m tests.benchmarks screening runs/real")
    for run in arguments:
        found = outcome(load_study(Path(run) / "study.journal"), run)
        screened = screen(found)
        wrongly = int(((screened.saved > 0) & screened.belonged).sum())
        own, all_trials = screened.saved.mean(), screened.saved.sum() / len(found.trials)
        print(f"{run}: {len(screened.saved)} candidates of the sampler, {BLOCKS} blocks, risk {RISK:.0%}")
        print(f"  saved: {own:.1%} of their cost, {all_trials:.1%} of that of all trials")
        print(f"  belonged on the front: {screened.belonged.sum()}; of these stopped: {wrongly}")


def screen(found: Outcome) -> Screened:
    """Return what stopping early would have done to each of the sampler's trials."""
    complete = [trial for trial in found.trials if trial.scores is not None and trial.log_odds is not None]
    harm = np.array(
        [
            TWO_CLASSES.divergences(trial.log_odds, found.fp32_log_odds)
            for trial in complete
            if trial.log_odds is not None
        ]
    )
    compression = np.array([trial.compression(found.size_axis) for trial in complete])
    damage = harm.mean(axis=1)
    block = stratified_blocks(found)
    look = NormalDist().inv_cdf(1 - RISK / (BLOCKS - 1))
    saved, belonged = [], []
    for at, trial in enumerate(complete):
        if trial.origin != "sampler":
            continue
        rivals = np.flatnonzero(compression[:at] >= compression[at])
        if not len(rivals):
            continue
        worse = harm[at] - harm[rivals[np.argmin(damage[rivals])]]
        belonged.append(worse.mean() < 0)
        saved.append(0.0)
        for done in range(1, BLOCKS):
            seen = worse[block < done]
            error = seen.std(ddof=1) / np.sqrt(len(seen)) * np.sqrt(1 - len(seen) / len(worse))
            if seen.mean() - look * error > 0:
                saved[-1] = 1 - len(seen) / len(worse)
                break
    return Screened(np.array(saved), np.array(belonged))


def stratified_blocks(found: Outcome) -> npt.NDArray[np.int64]:
    """Return the block of each sentence, ``(n_sentences,)``: each has its share of both labels and both domains."""
    domain = np.zeros(len(found.labels)) if found.in_domain is None else found.in_domain
    order = np.lexsort((np.random.default_rng(0).random(len(found.labels)), domain, found.labels))
    block = np.empty(len(order), dtype=np.int64)
    block[order] = np.arange(len(order)) % BLOCKS
    return block
