"""Exports of real models on real sentences, against our own forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed; it is an extra")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; it is an extra")

import torch

from objectives.batching import by_length
from objectives.bit_maps import documented_bit_map
from objectives.layers import BitMap
from objectives.problem import Problem, load_problem
from objectives.scores import score
from objectives.token_types import types_of
from results.export.onnx.model_file import onnx_sizes
from results.export.onnx.writer import write_onnx
from results.export.onnx_session import ONNX_FILE, Logits, OnnxSession, padded
from tests.results.export.onnx_models import quantized_by
from tests.shared import COLA, MODEL, SHARED, needs_shared

SICK_MODEL, SICK = SHARED / "models" / "minilm6-sick", SHARED / "data" / "sick"


def random_map(problem: Problem, compression: float) -> BitMap:
    """Return a random map of about a nominal compression: widths around its mean."""
    rng, mean = np.random.default_rng(round(compression * 10)), 32 / compression
    near = [width for width in range(2, 9) if abs(width - mean) < 2]
    maps = (tuple(int(width) for width in rng.choice(near, size=len(problem.layers))) for _ in range(10_000))
    return next(map_ for map_ in maps if abs(problem.footprint.compression(map_, "nominal") / compression - 1) < 0.02)


def logits_of(problem: Problem, file: Path) -> Logits:
    """Return onnxruntime's logits of all sentences, in padded batches."""
    session, ids, types = OnnxSession(file), problem.token_ids, types_of(problem.network, problem.token_ids)
    order = [index for _, indices in by_length(ids) for index in indices]
    logits = []
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        logits.append(
            session.logits(padded([ids[index] for index in part], types and [types[index] for index in part]))
        )
    in_order: Logits = np.concatenate(logits)[np.argsort(order)]
    return in_order


def check(problem: Problem, bit_map: BitMap, directory: Path) -> None:
    quantized = quantized_by(problem.network, bit_map)
    length = write_onnx(problem.classifier, quantized, {}, directory)
    assert length == onnx_sizes(problem.classifier, problem.footprint.scheme).file_bytes(bit_map)
    theirs = logits_of(problem, directory / ONNX_FILE)
    assert np.abs(theirs - problem.evaluator.logits(bit_map)).max() < 1e-4
    outputs = problem.head.outputs(torch.from_numpy(theirs)).numpy()
    theirs_scored = score(outputs, problem.labels, problem.fp32_log_odds, problem.head, problem.metric)
    ours = problem.confirm(bit_map).scores
    assert theirs_scored.metric == ours.metric
    assert theirs_scored.damage == pytest.approx(ours.damage, rel=1e-3)


@pytest.mark.slow
@needs_shared
def test_a_real_model_scores_the_same_in_onnxruntime(tmp_path: Path) -> None:
    problem = load_problem(str(MODEL), str(COLA))
    maps = [documented_bit_map(problem.layers), *(random_map(problem, size) for size in (8, 10.67, 12.8))]
    for number, bit_map in enumerate(maps):
        check(problem, bit_map, tmp_path / str(number))


@pytest.mark.slow
@needs_shared
@pytest.mark.skipif(not SICK_MODEL.is_dir(), reason=f"no {SICK_MODEL}")
def test_a_real_model_of_pairs_scores_the_same_in_onnxruntime(tmp_path: Path) -> None:
    problem = load_problem(str(SICK_MODEL), str(SICK))
    assert types_of(problem.network, problem.token_ids) is not None
    check(problem, random_map(problem, 8), tmp_path / "export")
