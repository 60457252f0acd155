"""What a checkpoint costs beside the FP32 model, and the table of a run's checkpoints as they were deployed."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch

from objectives.bit_maps import read_bit_map
from objectives.errors import InputError
from objectives.loading.models import Classifier
from objectives.problem import Evaluation, Problem
from objectives.token_types import types_of
from results.export.costs import Kind, resident_bytes, seconds
from results.export.onnx import check_onnx
from results.export.onnx_session import ONNX_FILE, Batch, OnnxSession, padded
from results.export.packed import MANIFEST, Checkpoint, load_checkpoint, read_provenance
from results.outcome import Outcome, Trial
from results.report.deployed import FP32, FP32_ONNX, FP32_TORCH, DeployedModel, add_deployed
from results.report.report import write_report
from results.statistics.analysis import analyse
from search.run.checkpoints import FINGERPRINT
from search.run.reporting import read_outcome
from search.run.run_directory import RunDirectory

BATCH = 32
_TIMED = 64  # sentences


@dataclass(frozen=True)
class Contender:
    """A model to be measured.

    Attributes:
        compute: what computes a batch.
        kind: how ``resident_bytes`` loads it.
        source: what it loads.
        disk_bytes: the length of its weights file.
    """

    compute: Callable[[Batch], object]
    kind: Kind
    source: Path | str
    disk_bytes: int


def packed_contenders(checkpoint: Checkpoint, directory: Path) -> dict[str, Contender]:
    """Return a packed checkpoint as it may be loaded, by name: decoded, and packed in memory too."""
    length = checkpoint.footprint.packed_bytes(checkpoint.bit_map)
    packed = load_checkpoint(directory, packed=True)
    return {
        "packed, decoded in memory": Contender(torch_logits(checkpoint.classifier), "decoded", directory, length),
        "packed, packed in memory": Contender(torch_logits(packed.classifier), "packed", directory, length),
    }


def costs_beside_fp32(problem: Problem, models: Mapping[str, Contender], threads: int) -> list[dict[str, Any]]:
    """Return the costs of models, of the FP32 model as ONNX if that can be written, and of the FP32 model in torch.

    All compute the same sentences in turns: one at a time, and in batches.

    Args:
        problem: with the FP32 model and the sentences.
        models: by name; if FP32 as ONNX is among them, it is not written again.
        threads: of each model.
    """
    chosen = np.linspace(0, len(problem.token_ids) - 1, min(_TIMED, len(problem.token_ids))).astype(int).tolist()
    make = batch_maker(problem)
    sentences = [make([index]) for index in chosen]
    batches = [make(part) for part in parts(by_length(problem, chosen))]
    compared = dict(models)
    with tempfile.TemporaryDirectory() as folder:
        if FP32_ONNX not in models:
            compared |= _fp32_onnx(problem, Path(folder) / "fp32", threads)
        compared[FP32_TORCH] = Contender(
            torch_logits(problem.classifier), "torch", problem.classifier.source, problem.footprint.fp32_packed_bytes
        )
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            taken = seconds({name: model.compute for name, model in compared.items()}, sentences, batches)
        finally:
            torch.set_num_threads(before)
        return [
            {
                "model": name,
                "disk_bytes": model.disk_bytes,
                "resident_bytes": resident_bytes(model.kind, model.source),
                "sentence_ms": 1000 * taken[name][0],
                "sentences_per_s": len(chosen) / taken[name][1],
            }
            for name, model in compared.items()
        ]


def _fp32_onnx(problem: Problem, directory: Path, threads: int) -> dict[str, Contender]:
    """Return the FP32 model as ONNX; empty if the packages are missing or ONNX cannot hold the model."""
    try:
        check_onnx()
        from results.export.onnx.writer import write_fp32_onnx

        length = write_fp32_onnx(problem.classifier, {}, directory)
    except InputError:
        return {}
    file = directory / ONNX_FILE
    return {FP32_ONNX: Contender(OnnxSession(file, threads).logits, "onnx", file, length)}


def cost_lines(costs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of costs for people."""
    rows = [["", "bytes on disk", "memory", "one sentence", f"batches of {BATCH}"]]
    for cost in costs:
        held = cost["resident_bytes"]
        memory = "unknown" if held is None else f"{held / 2**20:,.0f} MiB"
        single, many = f"{cost['sentence_ms']:.1f} ms", f"{cost['sentences_per_s']:,.0f} a second"
        rows.append([cost["model"], f"{cost['disk_bytes']:,}", memory, single, many])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def batch_maker(problem: Problem) -> Callable[[Sequence[int]], Batch]:
    """Return what makes one padded batch of the sentences at these indices."""
    ids, types = problem.token_ids, types_of(problem.network, problem.token_ids)
    return lambda part: padded([ids[index] for index in part], types and [types[index] for index in part])


def by_length(problem: Problem, indices: Iterable[int]) -> list[int]:
    """Return indices of sentences by the sentences' ascending length."""
    return sorted(indices, key=lambda index: len(problem.token_ids[index]))


def parts(indices: Sequence[int]) -> list[Sequence[int]]:
    """Return indices in batches."""
    return [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]


def torch_logits(classifier: Classifier) -> Callable[[Batch], object]:
    """Return what computes a batch's logits in torch, on the CPU, with a copy of a model."""
    model = copy.deepcopy(classifier.model).cpu()
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if classifier.takes_types else [])]

    @torch.inference_mode()
    def logits(batch: Batch) -> object:
        return model(**{name: torch.from_numpy(batch[name]) for name in names}).logits

    return logits


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint came from.

    Attributes:
        run: the run.
        outcome: of the run.
        trial: the run's trial that the checkpoint holds; None for the FP32 model.
        distilled: whether distillation changed it.
    """

    run: RunDirectory
    outcome: Outcome
    trial: Trial | None
    distilled: bool

    @classmethod
    def of(cls, checkpoint: Path, run: Path) -> Origin:
        """Check that a checkpoint came from a run, before anything is loaded.

        Raises:
            InputError: it did not, the run cannot be read, or a search is running there.
        """
        directory = RunDirectory(run)
        recorded = directory.read_settings()["fingerprint"]
        with directory.locked():  # else the figures would be lost
            outcome = read_outcome(directory)
        manifest = read_provenance(checkpoint)
        fingerprint = manifest.get(FINGERPRINT, {})
        if [key for key in ("model", "sentences", "quantizer") if fingerprint.get(key) != recorded.get(key)]:
            raise InputError(f"{checkpoint}: was not exported from {run}; leave --run out, or name its own run")
        if manifest.get("onnx", {}).get("weights") == "fp32":
            return cls(directory, outcome, None, distilled=False)
        bit_map = read_bit_map(checkpoint / MANIFEST, outcome.footprint.layers)
        trials = {trial.number: trial for trial in outcome.trials if trial.bit_map == bit_map}
        if not trials:
            raise InputError(f"{checkpoint}: its bit map is no trial of {run}; leave --run out")
        trial = trials.get(manifest.get("trial", -1), next(iter(trials.values())))
        return cls(directory, outcome, trial, bool({"distilled", "polished"} & manifest.keys()))

    def record(
        self, problem: Problem, evaluation: Evaluation, costs: Sequence[Mapping[str, Any]], threads: int
    ) -> None:
        """Write a checkpoint's figures into its run's table and report.

        Args:
            problem: that it was scored with.
            evaluation: its scores.
            costs: of the checkpoint, and of the FP32 model.
            threads: of each model.

        Raises:
            InputError: a search is running there by now, or the table cannot be read.
        """
        models = self._models(problem, evaluation, costs, threads)
        with self.run.locked():
            add_deployed(models, self.run.path, self.outcome.metric)
            write_report(analyse(self.outcome), self.run.path)

    def _models(
        self, problem: Problem, evaluation: Evaluation, costs: Sequence[Mapping[str, Any]], threads: int
    ) -> list[DeployedModel]:
        outcome, trial = self.outcome, self.trial
        recorded = outcome.fp32_log_odds if trial is None else trial.log_odds
        if self.distilled or (trial is not None and trial.precision != "fp32"):
            recorded = None  # the run has no outputs of just this model
        own = (evaluation.scores.metric, evaluation.scores.damage, _largest(evaluation.log_odds, recorded))
        of_torch = (problem.fp32.metric, 0.0, _largest(problem.fp32_log_odds, outcome.fp32_log_odds))
        fp32_ms = next(cost["sentence_ms"] for cost in costs if cost["model"] == FP32_TORCH)
        models = []
        for cost in costs:
            format_, held = cost["model"], cost["resident_bytes"]
            holds_trial = trial is not None and format_ not in (FP32_ONNX, FP32_TORCH)
            is_own = holds_trial or (trial is None and format_ == FP32_ONNX)
            # FP32 as ONNX is only timed, unless it is the checkpoint.
            metric, damage, difference = own if is_own else of_torch if format_ == FP32_TORCH else (nan, nan, nan)
            models.append(
                DeployedModel(
                    number=trial.number if trial is not None and holds_trial else FP32,
                    label=trial.label if trial is not None and holds_trial else "FP32",
                    distilled=self.distilled and holds_trial,
                    format=format_,
                    disk_bytes=cost["disk_bytes"],
                    resident_bytes=nan if held is None else float(held),
                    sentence_ms=cost["sentence_ms"],
                    sentences_per_s=cost["sentences_per_s"],
                    fp32_sentence_ms=fp32_ms,
                    threads=threads,
                    metric=metric,
                    damage=damage,
                    largest_difference=difference,
                    measured_at=time.strftime("%Y-%m-%d %H:%M"),
                )
            )
        return models


def _largest(outputs: Any, recorded: Any) -> float:
    """Return the largest difference of outputs from those that a run recorded; NaN if it has none."""
    return nan if recorded is None else float(np.abs(np.asarray(outputs, np.float64) - recorded).max())
