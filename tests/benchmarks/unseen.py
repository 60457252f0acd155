"""Whether the sampler's maps are as good on sentences that the search did not see.

`python -m tests.benchmarks unseen runs/real` scores a finished run's best maps, the sampler's and plain allocation's,
on 1,500 of the training sentences and prints both damages as ratios. A search fits the sentences it scores maps on, by
errors of layers that happen to cancel on them; plain allocation hardly can. The FP32 model has been fitted to the
training sentences, so damages there compare with each other only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from objectives.evaluate import Evaluator
from objectives.layers import Bits
from objectives.scores import divergences
from objectives.sentences import encode, load_sentences
from results.outcome import Origin, Outcome, Trial
from search.checkpoints import problem_of_run
from search.run_directory import RunDirectory
from search.study import load_study, outcome

SENTENCES = 1500
COMPRESSIONS = (5.5, 6.4, 8.0, 9.2, 10.67, 11.6, 12.8, 14.2)


def main(arguments: list[str]) -> None:
    """Print a line for each size, for each of the runs named."""
    if not arguments:
        print("name one or more finished runs: python -m tests.benchmarks unseen runs/real")
    for run in arguments:
        compare(RunDirectory(Path(run)))


def compare(run: RunDirectory) -> None:
    """Print the sampler's damage over plain allocation's, on the search's sentences and on others."""
    found, problem = outcome(load_study(run.place()), run.name), problem_of_run(run.read_settings())
    texts = load_sentences(problem.data, "train").texts
    chosen = np.random.default_rng(0).permutation(len(texts))[:SENTENCES]
    tokens = encode(problem.classifier.tokenizer, [texts[index] for index in chosen], problem.classifier.max_tokens)
    evaluator = Evaluator(problem.network, problem.layers, tokens, bank=problem.evaluator.bank)
    fp32 = evaluator.fp32_log_odds()

    def unseen(bits: Bits) -> float:
        return float(divergences(evaluator.log_odds(bits), fp32).mean())

    print(f"{run.name}: {len(tokens)} training sentences beside the {len(problem.labels)} of the search")
    ratios = []
    for compression in COMPRESSIONS:
        own, plain = (best(found, origin, compression) for origin in ("sampler", "plain"))
        if own is None or plain is None or own.scores is None or plain.scores is None:
            continue
        seen = own.scores.damage / plain.scores.damage
        damages = unseen(own.bits), unseen(plain.bits)
        ratios.append((seen, damages[0] / damages[1]))
        print(
            f"  {compression:5.2f}x: seen {own.scores.damage:.5f} ({seen:.0%} of plain), "
            f"unseen {damages[0]:.5f} ({damages[0] / damages[1]:.0%} of plain's {damages[1]:.5f})",
            flush=True,
        )
    if ratios:
        means = np.exp(np.log(ratios).mean(axis=0))
        print(f"  geometric mean: seen {means[0]:.0%} of plain, unseen {means[1]:.0%}")


def best(found: Outcome, origin: Origin, compression: float) -> Trial | None:
    """Return an origin's map of least damage of at least a compression."""
    reaching = [
        trial
        for trial in found.trials
        if trial.origin == origin and trial.scores is not None and round(trial.nominal_compression, 2) >= compression
    ]
    return min(reaching, key=lambda trial: trial.scores.damage if trial.scores else np.inf, default=None)
