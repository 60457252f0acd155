"""`evaluate` of an ONNX export: its scores by onnxruntime, and what it costs beside the FP32 model."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from objectives.bit_maps import parse_bit_map
from objectives.layers import BitMap
from objectives.packing.footprint import Footprint
from objectives.problem import Evaluation, Problem
from objectives.scores import score
from objectives.token_types import types_of
from results.export.costs import resident_bytes, seconds
from results.export.onnx.writer import write_fp32_onnx
from results.export.onnx_session import ONNX_FILE, Batch, OnnxSession, described_file, padded
from results.export.packed import MANIFEST, read_provenance
from search.run.checkpoints import check_original

FP32 = "FP32 ONNX"
_BATCH = 32
_TIMED = 64  # sentences


@dataclass(frozen=True)
class OnnxScores:
    """The scores of an ONNX export.

    Attributes:
        evaluation: on all sentences.
        footprint: of the model.
        bit_map: the export's; None if it is in FP32.
        file_bytes: the length of the model's file.
        costs: a row for each model that is compared, by the names of its figures.
    """

    evaluation: Evaluation
    footprint: Footprint
    bit_map: BitMap | None
    file_bytes: int
    costs: list[dict[str, Any]]

    def figures(self) -> dict[str, Any]:
        """Return the sizes of the export and the costs, by their names in JSON."""
        nominal = {} if self.bit_map is None else self.footprint.figures(self.bit_map)
        sizes = {name: figure for name, figure in nominal.items() if name.startswith("nominal")}
        return {**sizes, "onnx_bytes": self.file_bytes, "costs": self.costs}

    def lines(self) -> list[str]:
        """Return sizes and costs for people."""
        lines = []
        if self.bit_map is not None:
            compression, bits = (
                self.footprint.compression(self.bit_map, "nominal"),
                self.footprint.nominal_bits(self.bit_map),
            )
            lines.append(f"nominal      {compression:.4f}x, {bits:,} bits of codes")
        return [*lines, f"onnx         {self.file_bytes:,} bytes of {ONNX_FILE}", "", *self._table()]

    def _table(self) -> list[str]:
        rows = [["", "bytes on disk", "memory", "one sentence", f"batches of {_BATCH}"]]
        for cost in self.costs:
            held = cost["resident_bytes"]
            memory = "unknown" if held is None else f"{held / 2**20:,.0f} MiB"
            single, many = f"{cost['sentence_ms']:.1f} ms", f"{cost['sentences_per_s']:,.0f} a second"
            rows.append([cost["model"], f"{cost['disk_bytes']:,}", memory, single, many])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def evaluate_onnx(problem: Problem, directory: Path, threads: int) -> OnnxScores:
    """Score an ONNX export on a problem's sentences, and measure its costs and those of the FP32 model.

    Args:
        problem: with the model that the export was made from.
        directory: of the export.
        threads: of each model.

    Raises:
        InputError: the export is damaged, or was made from another model.
        NotFiniteError: an output is not finite.
    """
    check_original(directory, {"model": problem.model}, problem.fingerprint, same_data=False)
    described = read_provenance(directory)["onnx"]
    file = described_file(directory, described)
    manifest = directory / MANIFEST
    bit_map = (
        None
        if described.get("weights") == "fp32"
        else parse_bit_map(manifest.read_text(encoding="utf-8"), problem.layers, str(manifest))
    )
    session = OnnxSession(file, threads)
    started = time.perf_counter()
    order = _by_length(problem, range(len(problem.token_ids)))
    make = _batch_maker(problem)
    logits = np.concatenate([session.logits(make(part)) for part in _parts(order)])[np.argsort(order)]
    outputs = problem.head.outputs(torch.from_numpy(logits)).numpy()
    scores = score(outputs, problem.labels, problem.fp32_log_odds, problem.head, problem.metric)
    evaluation = Evaluation(scores, outputs, "fp32", time.perf_counter() - started)
    name = FP32 if bit_map is None else f"ONNX, {described.get('activations')} activations"
    costs = _costs(problem, name, file, session, threads)
    return OnnxScores(evaluation, problem.footprint, bit_map, file.stat().st_size, costs)


def _batch_maker(problem: Problem) -> Callable[[Sequence[int]], Batch]:
    """Return what makes one padded batch of the sentences at these indices."""
    ids, types = problem.token_ids, types_of(problem.network, problem.token_ids)
    return lambda part: padded([ids[index] for index in part], types and [types[index] for index in part])


def _by_length(problem: Problem, indices: Iterable[int]) -> list[int]:
    """Return indices of sentences by the sentences' ascending length."""
    return sorted(indices, key=lambda index: len(problem.token_ids[index]))


def _parts(indices: Sequence[int]) -> list[Sequence[int]]:
    return [indices[start : start + _BATCH] for start in range(0, len(indices), _BATCH)]


def _costs(problem: Problem, name: str, file: Path, session: OnnxSession, threads: int) -> list[dict[str, Any]]:
    """Return the costs of an export called ``name``, of the FP32 model as ONNX, and of that in torch."""
    chosen = np.linspace(0, len(problem.token_ids) - 1, min(_TIMED, len(problem.token_ids))).astype(int).tolist()
    make = _batch_maker(problem)
    sentences = [make([index]) for index in chosen]
    batches = [make(part) for part in _parts(_by_length(problem, chosen))]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: file}
        models: dict[str, Callable[[Batch], object]] = {name: session.logits}
        if name != FP32:
            write_fp32_onnx(problem.classifier, {}, Path(folder) / "fp32")
            files[FP32] = Path(folder) / "fp32" / ONNX_FILE
            models[FP32] = OnnxSession(files[FP32], threads).logits
        models["FP32 torch"] = _torch_logits(problem)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            taken = seconds(models, sentences, batches)
        finally:
            torch.set_num_threads(before)
        held = {name: (file.stat().st_size, resident_bytes("onnx", file)) for name, file in files.items()}
    held["FP32 torch"] = problem.footprint.fp32_packed_bytes, resident_bytes("torch", problem.classifier.source)
    return [
        {
            "model": name,
            "disk_bytes": held[name][0],
            "resident_bytes": held[name][1],
            "sentence_ms": 1000 * one,
            "sentences_per_s": len(chosen) / together,
        }
        for name, (one, together) in taken.items()
    ]


def _torch_logits(problem: Problem) -> Callable[[Batch], object]:
    model = copy.deepcopy(problem.network).cpu()
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if problem.classifier.takes_types else [])]

    @torch.inference_mode()
    def logits(batch: Batch) -> object:
        return model(**{name: torch.from_numpy(batch[name]) for name in names}).logits

    return logits
