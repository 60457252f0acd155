"""The answer of a run in a few lines of words: for the terminal at the end of a search and the top of the report."""

from __future__ import annotations

from results.findings import Findings, Headline, conclude
from results.outcome import Outcome, Trial
from results.pareto import beaten_by
from results.words import (
    QUALITY_WORDS,
    bits_a_weight,
    constraint,
    damage_with,
    maps,
    mcc_with,
    megabytes,
    nats,
    times,
)


def summary_lines(outcome: Outcome, findings: Findings | None = None) -> list[str]:
    """Return what a run has found, a sentence or two a line: the picks, FP32 and the documented map, then the front.

    Args:
        outcome: the state of a run, of any kind: no trial, none feasible and failed ones are said plainly.
        findings: what follows from it, where that has been worked out already.
    """
    found = conclude(outcome) if findings is None else findings
    return [*answer_lines(found), *front_lines(found), caution(found)]


def answer_lines(found: Findings) -> list[str]:
    """Return the answer: what each pick weighs and scores, against FP32 and the documented map."""
    outcome = found.outcome
    lines = [_headline_line(found, headline) for headline in found.headlines] if found.complete else [_nothing(found)]
    lines.append(
        f"FP32: {megabytes(outcome.footprint.fp32_packed_bytes)}, MCC {mcc_with(outcome.fp32.mcc, found.fp32_mcc)}."
    )
    return [*lines, _reference_line(found)]


def front_lines(found: Findings) -> list[str]:
    """Return how large the front is, who proposed its maps, and which contenders stand unbeaten."""
    outcome = found.outcome
    evaluated = f"{maps(found.complete)} evaluated"
    if found.failed:
        evaluated += f", {len(found.failed):,} failed"
    if not found.front:
        if not found.complete:
            return [f"The front is empty: {evaluated}."]
        return [f"The front is empty: {evaluated}, none meets the constraint of {constraint(outcome)}."]
    sampled = sum(trial.origin == "sampler" for trial in found.front)
    others = [trial for trial in found.front if trial.origin != "sampler"]
    composition = f"{sampled:,} proposed by the sampler"
    if others:
        composition += f", {len(others):,} not: {_listed(others)}"
    lines = [
        f"The front of {QUALITY_WORDS[outcome.quality]} against {outcome.size_axis} size has {maps(len(found.front))} "
        f"({evaluated}): {composition}."
    ]
    rivals = [trial for trial in found.contenders if trial.scores is not None and trial.feasible]
    if rivals:
        searched = [trial for trial in found.front if trial.origin == "sampler"]
        standing = [trial for trial in rivals if beaten_by(outcome, searched, trial) is None]
        ending = f"; not beaten by them: {_listed(standing)}" if standing else ""
        lines.append(
            f"The sampler's maps beat {len(rivals) - len(standing)} of the {len(rivals)} contenders that meet the "
            f"constraint, in quality and size{ending}."
        )
    return lines


def caution(found: Findings) -> str:
    """Return how far an MCC on these sentences can be trusted."""
    error = (found.fp32_mcc.high - found.fp32_mcc.low) / (2 * 1.96)
    return (
        f"Intervals are 95%, over {found.outcome.labels.size:,} sentences, where one MCC has a standard error of about "
        f"{error:.3f}: the best MCC among many maps is a lucky one. Damage (mean KL divergence from FP32, nats a "
        "sentence) needs no labels, is far less noisy, and is what picks are made by."
    )


def _nothing(found: Findings) -> str:
    if found.failed:
        return f"No map has been scored: all {len(found.failed):,} evaluations failed; trials.csv says why."
    return "No map has been evaluated yet."


def _headline_line(found: Findings, headline: Headline) -> str:
    trial, asked = headline.trial, headline.request.removeprefix("best@")
    if trial is None or trial.scores is None:
        return f"{asked} or more: no evaluated map is that small yet."
    intervals = found.intervals[trial.number]
    line = (
        f"{asked} or more: {trial.label} has {times(trial.nominal_compression)} nominal, "
        f"{times(trial.packed_compression)} packed ({megabytes(found.outcome.footprint.packed_bytes(trial.bits))}, "
        f"{bits_a_weight(trial)}), MCC {mcc_with(trial.scores.mcc, intervals.mcc)}, "
        f"damage {damage_with(trial.scores.damage, intervals.damage)}"
    )
    if trial.origin != "sampler":
        who = "the documented map" if trial.origin == "reference" else "a contender"
        return f"{line}; it is {who}: the sampler has found nothing of less damage."
    rival = headline.rival
    if rival is not None and rival.scores is not None:
        line += f"; the best contender there is {rival.label}, {times(rival.compression(found.outcome.size_axis))}, "
        line += f"damage {nats(rival.scores.damage)}"
    return f"{line}."


def _reference_line(found: Findings) -> str:
    trial = found.reference
    if trial is None:
        reason = found.outcome.reference_note.rstrip(". ") or "not evaluated yet"
        return f"Documented map: not among the trials ({reason})."
    line = f"Documented map: {times(trial.nominal_compression)} nominal, {times(trial.packed_compression)} packed"
    if trial.scores is None:
        return f"{line}; its evaluation failed ({trial.failure})."
    intervals = found.intervals[trial.number]
    line += f", MCC {mcc_with(trial.scores.mcc, intervals.mcc)}"
    line += f", damage {damage_with(trial.scores.damage, intervals.damage)}"
    if not trial.feasible:
        return f"{line}; it misses the constraint of {constraint(found.outcome)}."
    better = beaten_by(found.outcome, found.front, trial)
    if better is None:
        return f"{line}; no evaluated map beats it."
    assert better.scores is not None
    size = times(better.compression(found.outcome.size_axis))
    return f"{line}; {better.label} of {size} beats it in quality and size."


def _listed(trials: list[Trial]) -> str:
    return ", ".join(trial.label for trial in trials)
