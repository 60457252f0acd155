"""Choosing one map of an outcome: ``best@8x``, or a trial by its number."""

from __future__ import annotations

import re
from fractions import Fraction
from math import floor

from objectives.errors import InputError
from results.outcome import Outcome, Trial
from results.pareto import exact_sizes, fp32_size

HEADLINE_COMPRESSIONS = ("8", "10.67", "12.8")
"""What is always asked beyond the size constraint: 4, 3 and 2.5 bits a weight."""


def pick(outcome: Outcome, request: str) -> Trial:
    """Return the least-damage map of at least the requested compression on the outcome's size axis.

    Chosen among the complete trials of any origin: sampler, reference and contenders. A request at or above the size
    constraint takes only maps that meet the constraint; a request below it takes what was evaluated there. Of maps
    with equal damage the smaller is taken, then the earlier.

    A request of two or more decimals is understood as rounded, since 32/3 is written ``10.67x``: it takes maps whose
    compression rounds to at least it. With fewer decimals it is exact: ``best@8x`` never takes 7.99.

    Args:
        outcome: the state of a run.
        request: ``best@Cx``, as in ``best@8x`` or ``best@10.67x``.

    Raises:
        InputError: the request is malformed, or no complete map is that small; the message says what can be reached.
    """
    least, asked = _least_compression(request)
    constrained = float(asked) >= outcome.min_compression  # as floats: 5.7 as a float is a little more than 5.7
    full = fp32_size(outcome.footprint, outcome.size_axis)
    candidates = [
        (trial.scores.damage, size, trial)
        for trial, size in zip(outcome.trials, _sizes(outcome), strict=True)
        if trial.scores is not None and (trial.feasible or not constrained)
    ]
    if not candidates:
        raise InputError(f"{request}: no map has been evaluated that could be picked; let the search run on")
    reaching = [candidate for candidate in candidates if full >= least * candidate[1]]
    if reaching:
        # Trials come by number, and min keeps the first of equals: the earliest.
        return min(reaching, key=lambda candidate: candidate[:2])[2]
    _, size, smallest = min(candidates, key=lambda candidate: candidate[1])
    suggested = floor(Fraction(100 * full, size)) / 100  # rounded down: what is suggested must be reachable
    raise InputError(
        f"{request}: no evaluated map is that small; the smallest is {smallest.label} of {suggested:g}x "
        f"({outcome.size_axis}); ask for best@{suggested:g}x or less, or let the search run on"
    )


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
    """Return the picks that answer the question first: at the size constraint, 8x, 10.67x and 12.8x.

    Left out is what lies below the constraint, or beyond the compression of a map with the lowest width everywhere.
    """
    highest = outcome.footprint.highest_compression(outcome.size_axis)
    beyond = [text for text in HEADLINE_COMPRESSIONS if outcome.min_compression < float(text) <= highest]
    return tuple(f"best@{text}x" for text in (f"{outcome.min_compression:.10g}", *beyond))


_REQUEST = re.compile(r"best@(?P<value>[0-9]{1,9}(?:\.(?P<decimals>[0-9]{1,9}))?)x")


def _least_compression(request: str) -> tuple[Fraction, Fraction]:
    """Return the compression from which a map satisfies the request, and the requested one."""
    match = _REQUEST.fullmatch(request.strip())
    if match is None:
        raise InputError(f"{request!r} is not a pick; write best@Cx with C the least compression, as in best@8x")
    asked, decimals = Fraction(match["value"]), len(match["decimals"] or "")
    return asked - Fraction(1, 2 * 10**decimals) if decimals >= 2 else asked, asked


def _sizes(outcome: Outcome) -> list[int]:
    return [int(size) for size in exact_sizes(outcome.footprint, outcome.trials, outcome.size_axis)]
