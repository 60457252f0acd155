"""Choosing one map of an outcome: ``best@8x``, ``smallest@margin``, ``knee``, or a trial by its number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from math import floor

import numpy as np

from objectives.errors import InputError
from results.outcome import Outcome, Trial
from results.pareto import fp32_size
from results.statistics.candidates import Candidates, Rule, knee_rule, least_damage_rule, smallest_rule

HEADLINE_COMPRESSIONS = ("8", "10.67", "12.8")
"""Always asked, if beyond the size constraint: 4, 3 and 2.5 bits per weight."""

SMALLEST = "smallest@margin"
KNEE = "knee"


def pick(outcome: Outcome, request: str, candidates: Candidates | None = None) -> Trial:
    """Return the map that a request asks for, among the complete trials of any origin.

    ``best@8x``: of the maps of at least that compression on the outcome's size axis, the one of least damage among
    those whose MCC cannot be told from the best of them. Ties go to the smaller map, then to the earlier. A request at
    or above the size constraint takes only maps that meet the constraint; a request below it takes any map of that
    size. A request of two or more decimals counts as rounded, since 32/3 is written ``10.67x``: it takes maps whose
    compression rounds to at least it. A request of fewer decimals is exact: ``best@8x`` never takes 7.99.

    ``smallest@margin``: the smallest map that is no worse than FP32 in MCC by more than the outcome's margin, with 95%
    confidence; ``smallest@0.02`` for another margin. ``knee``: where the front of damage and size bends most.

    Args:
        outcome: the state of a run.
        request: one of the three.
        candidates: that of the outcome, if it is known already.

    Raises:
        InputError: the request is malformed, or no map answers it; the message says what can be asked.
    """
    candidates = Candidates.of(outcome) if candidates is None else candidates
    chosen = rule_of(outcome, request, candidates)(candidates)
    if chosen is None:
        raise InputError(_unanswered(outcome, request.strip(), candidates))
    return trial_by_number(outcome, int(candidates.numbers[chosen]))


def rule_of(outcome: Outcome, request: str, candidates: Candidates) -> Rule:
    """Return the rule that a request stands for.

    Raises:
        InputError: the request is malformed.
    """
    request = request.strip()
    if request == KNEE:
        return knee_rule()
    if request == SMALLEST:
        return smallest_rule(outcome.margin)
    if match := _SMALLEST_BY.fullmatch(request):
        return smallest_rule(float(match["margin"]))
    least, asked = _least_compression(request)
    constrained = float(asked) >= outcome.min_compression  # as floats: 5.7 as a float is a little more than 5.7
    limit = floor(fp32_size(outcome.footprint, outcome.size_axis) / least)
    return least_damage_rule((candidates.sizes <= limit) & (candidates.feasible if constrained else True))


def trial_by_number(outcome: Outcome, number: int) -> Trial:
    """Return the trial of that number, complete or failed.

    Raises:
        InputError: there is none; the message says which there are.
    """
    for trial in outcome.trials:
        if trial.number == number:
            return trial
    if not outcome.trials:
        raise InputError(f"trial {number}: run {outcome.name!r} has no trial yet")
    numbers = [trial.number for trial in outcome.trials]
    raise InputError(
        f"trial {number}: run {outcome.name!r} has no such trial; its {len(numbers)} evaluated trials lie between "
        f"{min(numbers)} and {max(numbers)}, see trials.csv"
    )


def headline_requests(outcome: Outcome) -> tuple[str, ...]:
    """Return the requests that every report answers: the smallest within the margin, then by size, then the knee.

    The sizes are the constraint's, 8x, 10.67x and 12.8x, without those below the constraint or beyond the compression
    of a map with the lowest width everywhere.
    """
    highest = outcome.footprint.highest_compression(outcome.size_axis)
    beyond = [text for text in HEADLINE_COMPRESSIONS if outcome.min_compression < float(text) <= highest]
    sizes = (f"best@{text}x" for text in (f"{outcome.min_compression:.10g}", *beyond))
    return (SMALLEST, *sizes, KNEE)


def sorted_requests(requests: Iterable[str]) -> list[str]:
    """Return the headline requests of several outcomes in the order of one outcome's."""
    sizes = (request for request in requests if request not in (SMALLEST, KNEE))
    return [SMALLEST, *sorted(sizes, key=_least_compression), KNEE]


def headline_limits(outcome: Outcome) -> list[tuple[str, Fraction]]:
    """Return the headline requests that name a size, each with the least compression that satisfies it."""
    requests = (request for request in headline_requests(outcome) if request.startswith("best@"))
    return [(request, _least_compression(request)[0]) for request in requests]


_BEST = re.compile(r"best@(?P<value>[0-9]{1,9}(?:\.(?P<decimals>[0-9]{1,9}))?)x")
_SMALLEST_BY = re.compile(r"smallest@(?P<margin>[01](?:\.[0-9]{1,9})?)")


def _least_compression(request: str) -> tuple[Fraction, Fraction]:
    """Return the least compression that satisfies a request, and the requested compression."""
    match = _BEST.fullmatch(request)
    if match is None or not float(match["value"]):
        raise InputError(
            f"{request!r} is not a pick; write best@Cx with C the least compression, as in best@8x, or {SMALLEST}, "
            f"smallest@0.02, or {KNEE}"
        )
    asked, decimals = Fraction(match["value"]), len(match["decimals"] or "")
    return asked - Fraction(1, 2 * 10**decimals) if decimals >= 2 else asked, asked


def _unanswered(outcome: Outcome, request: str, candidates: Candidates) -> str:
    """Return why no map answers a request, and what to ask instead."""
    feasible = np.flatnonzero(candidates.feasible)
    if request == KNEE:
        return f"{request}: a front of fewer than three maps has no knee; let the search run on"
    if not request.startswith("best@"):
        return (
            f"{request}: no map of the front is no worse than FP32 by at most that much MCC with 95% confidence; ask "
            "for a larger margin, as in smallest@0.05, or let the search run on"
        )
    constrained = float(_least_compression(request)[1]) >= outcome.min_compression
    places = feasible if constrained else np.arange(candidates.numbers.size)
    if not places.size:
        return f"{request}: no map has been evaluated that could be picked; let the search run on"
    smallest = int(places[np.argmin(candidates.sizes[places])])
    full = fp32_size(outcome.footprint, outcome.size_axis)
    # Rounded down: what is suggested must be reachable.
    suggested = floor(Fraction(100 * full, int(candidates.sizes[smallest]))) / 100
    label = trial_by_number(outcome, int(candidates.numbers[smallest])).label
    return (
        f"{request}: no evaluated map is that small; the smallest is {label} of {suggested:g}x "
        f"({outcome.size_axis}); ask for best@{suggested:g}x or less, or let the search run on"
    )
