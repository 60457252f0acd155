"""Our maps of at most a given size: those of `bitfront allocate --size packed`, and the best of a finished run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from objectives.cache import cache_directory
from objectives.layers import WIDTHS, BitMap, uniform
from objectives.loading.fingerprint import short_digest
from objectives.problem import Problem, load_problem
from objectives.quantization.parameters import decode
from results.outcome import Outcome, Trial
from search.allocation.knapsack import BudgetTooSmallError, Damages, Source, allocate_bit_map
from search.allocation.sensitivity import measure
from search.run.run_directory import RunDirectory
from search.study.reading import load_study, outcome
from tests.benchmarks.peers.bed import CALIBRATION, Bed, Result
from tests.shared import COLA, MODEL

Split = Literal["training", "validation"]


@dataclass
class Ours:
    """Our side: calibrated codes of whole rows, the defaults of `allocate`.

    Codes and sensitivities stay in the cache, and beside them the CPU seconds that they took.
    """

    bed: Bed
    source: Source = "gradient"
    run: Path | None = None
    _damages: dict[Split, Damages] = field(default_factory=dict)
    _scores: dict[BitMap, dict[str, float]] = field(default_factory=dict)

    @cached_property
    def problem(self) -> Problem:
        """The problem with our calibrated codes."""
        found: list[Problem] = []
        self._note("codes", lambda: found.append(load_problem(str(MODEL), str(COLA), quantizer="calibrated")))
        return found[0]

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the smallest and the largest map."""
        layers, footprint = self.problem.layers, self.problem.footprint
        return tuple(footprint.packed_bytes(uniform(layers, width)) for width in (WIDTHS[0], WIDTHS[-1]))  # type: ignore[return-value]

    def allocated(self, most_bytes: int, split: Split) -> BitMap | None:
        """Return the knapsack's map of at most so many bytes, or None; sensitivities are those of a split."""
        if split not in self._damages:
            self._damages[split] = self._sensitivities(split)
        try:
            return allocate_bit_map(self._damages[split], self.problem.footprint, "packed", 8 * most_bytes)
        except BudgetTooSmallError:
            return None

    def searched(self, most_bytes: int) -> Trial | None:
        """Return the run's map of least damage on its validation sentences of at most so many bytes, or None."""
        if self.run is None:
            return None
        trials = [trial for trial in self._outcome.trials if trial.scores is not None]
        footprint = self._outcome.footprint
        fitting = [trial for trial in trials if footprint.packed_bytes(trial.bit_map) <= most_bytes]
        return min(fitting, key=lambda trial: trial.scores.damage if trial.scores else 0.0, default=None)

    @cached_property
    def run_seconds(self) -> float:
        """Wall-clock seconds of the run's search."""
        return max(trial.finished_s for trial in self._outcome.trials)

    def scores(self, bit_map: BitMap) -> dict[str, float]:
        """Return a map's scores, on the same sentences and by the same code as a peer's."""
        if bit_map not in self._scores:
            bank, weights = self.problem.evaluator.bank, {}
            for layer, width in zip(self.problem.layers, bit_map, strict=True):
                weights[layer.parameter] = decode(*bank.entry(layer, width)), 0
            self._scores[bit_map] = self.bed.scores(Result(weights))
        return self._scores[bit_map]

    def seconds(self, split: Split) -> float:
        """Return the CPU seconds of codes and sensitivities, when they were made."""
        noted = self._noted()
        return noted["codes"] + noted[f"{self.source} {split}"]

    @cached_property
    def _outcome(self) -> Outcome:
        assert self.run is not None
        run = RunDirectory(self.run)
        found = outcome(load_study(run.journal), run.name)
        quantizer = self.problem.fingerprint["quantizer"]
        if quantizer not in dict(found.provenance).values():
            raise SystemExit(f"{self.run}: its quantiser is another than {quantizer}; give a run with that one")
        return found

    def _sensitivities(self, split: Split) -> Damages:
        problem = self.problem
        if split == "training":
            unseen = {tuple(ids) for ids in self.bed.sentences["unseen"]}
            after = self.bed.training[CALIBRATION : CALIBRATION + len(problem.token_ids)]
            token_ids = [ids for ids in after if tuple(ids) not in unseen]
            evaluator = problem.evaluator_on(token_ids)
            identity = {**problem.fingerprint, "sentences": short_digest(json.dumps(token_ids))}
            problem = replace(
                problem,
                token_ids=token_ids,
                evaluator=evaluator,
                fp32_log_odds=evaluator.fp32_log_odds(),
                fingerprint=identity,
            )
        found: list[Damages] = []

        def make() -> None:
            sensitivities = measure(problem, cache_directory(), self.source)
            assert sensitivities is not None
            found.append(sensitivities.damages)

        self._note(f"{self.source} {split}", make)
        return found[0]

    def _note(self, step: str, make: Callable[[], object]) -> None:
        """Make something that the cache may have; the longest time that it took is when it was not there."""
        began = time.process_time()
        make()
        noted = dict(self._noted())
        noted[step] = max(time.process_time() - began, noted.get(step, 0.0))
        self._times.write_text(json.dumps(noted))

    @property
    def _times(self) -> Path:
        return cache_directory() / "peers-seconds.json"

    def _noted(self) -> Mapping[str, float]:
        noted: dict[str, float] = json.loads(self._times.read_text()) if self._times.is_file() else {}
        return noted
