"""How the terminal, the report and the plots write numbers."""

from __future__ import annotations

from math import floor

from objectives.errors import quoted
from objectives.layers import WIDTHS
from objectives.metrics import METRIC_NAMES, MetricName
from objectives.packing.footprint import AXIS_NAMES
from results.outcome import Origin, Outcome, Quality, Trial
from results.statistics.intervals import Comparison

DAMAGE = "damage (mean KL divergence from FP32)"
"""How each page and table names damage at its first mention."""


def quality(name: Quality, metric: MetricName) -> str:
    """Return what a study optimises, in words."""
    return {"damage": "damage", "agreement": "agreement with FP32"}.get(name, METRIC_NAMES[metric])


def command(*words: object) -> str:
    """Return a command of ``bitfront`` as a shell takes it, with paths quoted where they need it."""
    return " ".join(["bitfront", *map(quoted, words)])


def times(compression: float) -> str:
    """Format a compression as ``8.00x``."""
    return f"{compression:.2f}x"


def times_smaller(compression: float) -> str:
    """Format a compression as ``7.7 times smaller``."""
    return f"{compression:.1f} times smaller"


def megabytes(size_bytes: int) -> str:
    """Format a size in MB (a million bytes): three significant digits, whole from 100 MB on."""
    size = size_bytes / 1e6
    return f"{size:.3g} MB" if size < 100 else f"{size:,.0f} MB"


def nats(damage: float) -> str:
    """Format a damage with three significant digits, as ``0.00684``."""
    return f"{damage:.3g}"


def metric(score: float) -> str:
    """Format a metric as ``0.561``."""
    return f"{score:.3f}"


def difference(metric_difference: float) -> str:
    """Format a difference in a metric as ``+0.002``."""
    return f"{metric_difference:+.3f}"


def difference_with(comparison: Comparison) -> str:
    """Format a difference in a metric with its interval, as ``+0.002 (95%: -0.012 to +0.018)``."""
    interval = comparison.interval
    return f"{difference(comparison.difference)} (95%: {difference(interval.low)} to {difference(interval.high)})"


def confidence(probability: float) -> str:
    """Format a confidence as ``97%``, rounded down; never 0% or 100%, which no sample can show."""
    if probability > 0.995:
        return "over 99%"
    return "under 1%" if probability < 0.01 else f"{floor(100 * probability + 1e-9)}%"


def loss(margin: float, name: MetricName) -> str:
    """Format a margin as ``0.01 MCC``."""
    return f"{margin:.10g} {METRIC_NAMES[name]}"


def bits(width: float) -> str:
    """Format a mean width in bits as ``3.73``, and as ``4`` if it is as good as whole."""
    return f"{width:.3g}"


def map_name(outcome: Outcome, trial: Trial) -> str:
    """Return a map's name as it stands beside sizes of files: a knapsack is named by its size on the run's own axis."""
    is_other = trial.origin == "plain" and outcome.size_axis != outcome.file_axis
    return f"{trial.label} {AXIS_NAMES[outcome.size_axis]}" if is_other else trial.label


def proposer(origin: Origin) -> str:
    """Return who proposed a map."""
    return {"reference": "reference", "sampler": "sampler"}.get(origin, "baseline")


def maps(count: int) -> str:
    """Format a number of maps as ``1 map`` or ``12 maps``."""
    return f"{count:,} map" if count == 1 else f"{count:,} maps"


def duration(seconds: float) -> str:
    """Format a duration as ``42 s``, ``12 min`` or ``7.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def constraint(outcome: Outcome) -> str:
    """Format the size constraint as ``at least 5.5x (nominal)``, with the widths unless all are allowed."""
    widths = "" if outcome.widths == WIDTHS else f", with widths {', '.join(map(str, outcome.widths))}"
    return f"at least {outcome.min_compression:.10g}x ({AXIS_NAMES[outcome.size_axis]}){widths}"
