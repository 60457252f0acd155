"""How commands that score one map print its scores and sizes."""

from __future__ import annotations

from collections.abc import Mapping

from objectives.metrics import METRIC_NAMES
from objectives.problem import Evaluation, Problem
from objectives.scores import LogOdds
from results.statistics.intervals import Intervals, score_intervals
from results.statistics.metric_draws import TaskMetric


def intervals_of(problem: Problem, evaluation: Evaluation) -> Intervals:
    """Return the 95% intervals of a map's scores."""
    return _intervals(problem, evaluation.log_odds)


def score_lines(problem: Problem, evaluation: Evaluation) -> list[str]:
    """Return the lines of a map's metric, damage and agreement."""
    scores, intervals = evaluation.scores, intervals_of(problem, evaluation)
    metric, damage, shown = intervals.metric, intervals.damage, METRIC_NAMES[problem.metric]
    fp32_metric = _intervals(problem, problem.fp32_log_odds).metric
    of_fp32 = f"{problem.fp32.metric:.4f}  (95% interval {fp32_metric.low:.3f} to {fp32_metric.high:.3f})"
    lines = [
        f"{shown:12} {scores.metric:.4f}  (95% interval {metric.low:.3f} to {metric.high:.3f})",
        f"{shown + ' of FP32':12} {of_fp32}",
        f"damage       {scores.damage:.5f} nats a sentence  (95% interval {damage.low:.5f} to {damage.high:.5f}), "
        "mean KL divergence from FP32",
    ]
    if scores.agreement is not None:
        lines.append(f"agreement    {scores.agreement:.4f} (same answers as FP32); accuracy {scores.accuracy:.4f}")
    return lines


def size_lines(sizes: Mapping[str, int | float]) -> list[str]:
    """Return the lines of a map's sizes, from ``Footprint.figures``."""
    lines = [
        f"nominal      {sizes['nominal_compression']:.4f}x, {sizes['nominal_bits']:,} bits of codes",
        f"packed       {sizes['packed_compression']:.4f}x, {sizes['packed_bytes']:,} bytes of checkpoint",
    ]
    if "onnx_bytes" in sizes:
        lines.append(f"ONNX         {sizes['onnx_compression']:.4f}x, {sizes['onnx_bytes']:,} bytes of ONNX file")
    return lines


def _intervals(problem: Problem, log_odds: LogOdds) -> Intervals:
    task = TaskMetric(problem.metric, problem.head)
    return score_intervals(log_odds, problem.fp32_log_odds, problem.labels, problem.in_domain, task)
