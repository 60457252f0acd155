"""`evaluate` of an ONNX export: its scores by onnxruntime, and what it costs beside the FP32 model."""

from __future__ import annotations

import time
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
from results.export.onnx_session import ONNX_FILE, OnnxSession, described_file
from results.export.packed import MANIFEST, read_provenance
from results.report.deployed import FP32_ONNX
from search.cli.deployment import Contender, batch_maker, by_length, cost_lines, costs_beside_fp32, parts
from search.run.checkpoints import check_original


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
        return [*lines, f"onnx         {self.file_bytes:,} bytes of {ONNX_FILE}", "", *cost_lines(self.costs)]


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
    order = by_length(problem, range(len(problem.token_ids)))
    make = batch_maker(problem)
    logits = np.concatenate([session.logits(make(part)) for part in parts(order)])[np.argsort(order)]
    outputs = problem.head.outputs(torch.from_numpy(logits)).numpy()
    scores = score(outputs, problem.labels, problem.fp32_log_odds, problem.head, problem.metric)
    evaluation = Evaluation(scores, outputs, "fp32", time.perf_counter() - started)
    name = FP32_ONNX if bit_map is None else f"ONNX, {described.get('activations')} activations"
    length = file.stat().st_size
    costs = costs_beside_fp32(problem, {name: Contender(session.logits, "onnx", file, length)}, threads)
    return OnnxScores(evaluation, problem.footprint, bit_map, length, costs)
