"""Picks one map of an outcome: ``best@8x``, ``smallest@margin``, ``knee``, or a trial by its number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from math import floor

import numpy as np

from objectives.errors import InputError
from objectives.metrics import METRIC_NAMES
from objectives.packing.footprint import AXIS_NAMES
from results.outcome import Outcome, Trial
from results.pareto import fp32_size
from results.statistics.candidates import Candidates, Rule, knee_rule, least_damage_rule, smallest_rule

HEADLINE_COMPRESSIONS = ("8", "10.67", "12.8")
"""Compressions that every report answers, if above the constraint: 4, 3 and 2.5 bits per weight."""

LADDER = ("5.5", "6.4", "8", "9.2", "10.67", "11.6", "12.8", "14.2", "16")
"""Compressions at which ``smallest@margin`` tests a map, besides the constraint: 5.8 to 2 bits a weight."""

SMALLEST = "smallest@margin"
KNEE = "knee"


def pick(outcome: Outcome, request: str, candidates: Candidates | None = None) -> Trial:
    """Return the map that answers a request, among the complete trials of any origin.

    ``best@8x`` takes the maps of at least that compression on the outcome's size axis. Of those whose metric is not
    significantly below the best, it picks the one of least damage (mean KL divergence from FP32). Ties go to the
    smaller map, then to the earlier. At or above the size constraint, only maps that meet the constraint qualify. A
    request of two or more decimals counts as rounded, since 32/3 is written ``10.67x``: compressions that round to at
    least it qualify. A request of fewer decimals is exact: 7.99 never answers ``best@8x``.

    ``smallest@margin`` picks the smallest map whose metric is, with 95% confidence, at most the outcome's margin below
    that of FP32, among the maps of least damage at some fixed sizes (:func:`ladder`); ``smallest@0.02`` sets another
    margin. ``knee`` picks the map where the front of damage and size bends most.

    Args:
        outcome: the outcome of a run.
        request: one of the three.
        candidates: the outcome's candidates, if they are computed already.

    Raises:
        InputError: the request is malformed, or no map answers it; the message suggests another request.
    """
    candidates = Candidates.of(outcome) if candidates is None else candidates
    chosen = rule_of(outcome, request, candidates)(candidates)
    if chosen is None:
        raise InputError(_why_unanswered(outcome, request.strip(), candidates))
    return trial_by_number(outcome, int(candidates.numbers[chosen]))


def rule_of(outcome: Outcome, request: str, candidates: Candidates) -> Rule:
    """Return the rule of choosing that a request names.

    Raises:
        InputError: the request is malformed.
    """
    request = request.strip()
    if request == KNEE:
        return knee_rule()
    if request == SMALLEST:
        return smallest_rule(outcome.margin, ladder(outcome))
    if match := _SMALLEST_BY.fullmatch(request):
        return smallest_rule(float(match["margin"]), ladder(outcome))
    least, requested = _least_compression(request)
    constrained = float(requested) >= outcome.min_compression  # as floats: the float 5.7 is a little more than 5.7
    eligible = candidates.sizes <= _size_limit(outcome, least)
    return least_damage_rule(eligible & (candidates.feasible if constrained else True))


def trial_by_number(outcome: Outcome, number: int) -> Trial:
    """Return the trial of that number, complete or failed.

    Raises:
        InputError: no trial has that number; the message names the range of numbers.
    """
    for trial in outcome.trials:
        if trial.number == number:
            return trial
    if not outcome.trials:
        raise InputError(f"trial {number}: run {outcome.name!r} has no trial yet; let the search run on")
    numbers = [trial.number for trial in outcome.trials]
    raise InputError(
        f"trial {number}: run {outcome.name!r} has no such trial; choose one of its {len(numbers)} evaluated trials, "
        f"between {min(numbers)} and {max(numbers)} (see trials.csv)"
    )


def headline_requests(outcome: Outcome) -> tuple[str, ...]:
    """Return the requests that every report answers: the smallest within the margin, then by size, then the knee.

    The sizes are the constraint, 8x, 10.67x and 12.8x, without those below the constraint or above the compression of
    the smallest map.
    """
    highest = outcome.footprint.highest_compression(outcome.size_axis, outcome.widths)
    beyond = [text for text in HEADLINE_COMPRESSIONS if outcome.min_compression < float(text) <= highest]
    sizes = (f"best@{text}x" for text in (f"{outcome.min_compression:.10g}", *beyond))
    return (SMALLEST, *sizes, KNEE)


def sorted_requests(requests: Iterable[str]) -> list[str]:
    """Return the headline requests of several outcomes in the order of ``headline_requests``."""
    sizes = (request for request in requests if request not in (SMALLEST, KNEE))
    return [SMALLEST, *sorted(sizes, key=_least_compression), KNEE]


def headline_limits(outcome: Outcome) -> list[tuple[str, Fraction]]:
    """Return the headline requests that name a size, each with the least compression that satisfies it."""
    requests = (request for request in headline_requests(outcome) if request.startswith("best@"))
    return [(request, _least_compression(request)[0]) for request in requests]


def ladder(outcome: Outcome) -> list[int]:
    """Return the sizes at which ``smallest@margin`` tests a map, largest first, on the outcome's size axis.

    They are the constraint, the compressions beyond it that ``LADDER`` lists, and the smallest map of its widths.
    """
    texts = [f"{outcome.min_compression:.10g}", *(text for text in LADDER if float(text) > outcome.min_compression)]
    limits = {_size_limit(outcome, _least_compression(f"best@{text}x")[0]) for text in texts}
    footprint, axis = outcome.footprint, outcome.size_axis
    smallest = footprint.size(footprint.smallest(axis, outcome.widths), axis)
    return sorted({limit for limit in limits if limit > smallest} | {smallest}, reverse=True)


def _size_limit(outcome: Outcome, least: Fraction) -> int:
    """Return the largest size of at least a compression."""
    return floor(fp32_size(outcome.footprint, outcome.size_axis) / least)


_BEST = re.compile(r"best@(?P<value>[0-9]{1,9}(?:\.(?P<decimals>[0-9]{1,9}))?)x")
_SMALLEST_BY = re.compile(r"smallest@(?P<margin>[01](?:\.[0-9]{1,9})?)")


def _least_compression(request: str) -> tuple[Fraction, Fraction]:
    """Return the least compression that satisfies a request, and the requested compression."""
    match = _BEST.fullmatch(request)
    if match is None or not float(match["value"]):
        raise InputError(
            f"{request!r} is not a pick; write best@8x (for a compression of at least 8x), {SMALLEST}, smallest@0.02 "
            f"or {KNEE}"
        )
    requested, decimals = Fraction(match["value"]), len(match["decimals"] or "")
    return requested - Fraction(1, 2 * 10**decimals) if decimals >= 2 else requested, requested


def _why_unanswered(outcome: Outcome, request: str, candidates: Candidates) -> str:
    """Return why no map answers a request, and what to request instead."""
    if request == KNEE:
        return f"{request}: a front of fewer than three maps has no knee; let the search run on"
    if not request.startswith("best@"):
        return (
            f"{request}: no map is within that margin of FP32's {METRIC_NAMES[outcome.metric]} with 95% "
            "confidence; ask for a larger margin, as in smallest@0.05, or let the search run on"
        )
    constrained = float(_least_compression(request)[1]) >= outcome.min_compression
    indices = np.flatnonzero(candidates.feasible) if constrained else np.arange(candidates.numbers.size)
    if not indices.size:
        return f"{request}: no map has been evaluated that could be picked; let the search run on"
    smallest = int(indices[np.argmin(candidates.sizes[indices])])
    fp32 = fp32_size(outcome.footprint, outcome.size_axis)
    # Rounded down, so that a map answers the suggestion.
    suggested = floor(Fraction(100 * fp32, int(candidates.sizes[smallest]))) / 100
    label = trial_by_number(outcome, int(candidates.numbers[smallest])).label
    return (
        f"{request}: no evaluated map is that small; the smallest is {label} of {suggested:g}x "
        f"({AXIS_NAMES[outcome.size_axis]}); ask for best@{suggested:g}x or less, or let the search run on"
    )
