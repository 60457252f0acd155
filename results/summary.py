"""The answer of a run in words: a few sentences for the top of the report, and all of it for the terminal."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from results.bootstrap import CONFIDENCE
from results.findings import Findings, Headline, conclude
from results.outcome import Outcome, Trial, Unseen
from results.pareto import beaten_by, front
from results.picks import KNEE, SMALLEST
from results.words import (
    QUALITY_WORDS,
    bits_a_weight,
    confidence,
    constraint,
    damage_with,
    difference_with,
    loss,
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
    closing = [" ".join(line) for line in (*unseen_lead(found), certainty(found))]
    return [*answer_lines(found), *closing, *front_lines(found), *caution_lines(found)]


def lead_lines(found: Findings) -> list[tuple[str, str]]:
    """Return the answer in a few sentences, each with the words that it begins with: what a person reads first."""
    if not found.complete:
        return [("No answer yet.", _nothing(found))]
    lines = [_smallest_lead(found)]
    knee = found.headline(KNEE)
    if knee is not None and knee.trial is not None:
        lines.append(
            (
                f"Beyond {times(knee.trial.compression(found.outcome.size_axis))} it gets expensive.",
                f"{_weighed(found, knee.trial)}, is where the front bends most: {_judged(found, knee.trial)}.",
            )
        )
    if (documented := _documented_lead(found)) is not None:
        lines.append(documented)
    return [*lines, *unseen_lead(found), certainty(found)]


def unseen_lead(found: Findings) -> list[tuple[str, str]]:
    """Return what the search is worth on sentences that it did not see; nothing where that is not known."""
    if unscored := found.outcome.unscored:
        return [
            (
                "Not checked on unseen sentences yet.",
                f"{maps(unscored)} must still be scored there, and picks may change; where the search was broken off, "
                "start it again.",
            )
        ]
    gain, unseen = found.gain, found.outcome.unseen
    if gain is None or unseen is None:
        return []
    if gain.interval.high < 1:
        judged = "The search beats plain allocation."
    elif gain.interval.low > 1:
        judged = "Plain allocation beats the search."
    else:
        judged = "The search and plain allocation cannot be told apart."
    sizes = "1 size" if gain.sizes == 1 else f"{gain.sizes} sizes"
    return [
        (
            judged,
            f"On {unseen.fp32_log_odds.size:,} training sentences that the search did not see, the sampler's best maps "
            f"do {gain.ratio:.0%} of the damage of plain allocations of their size "
            f"(95%: {gain.interval.low:.0%} to {gain.interval.high:.0%}; {sizes}). "
            f"Picks are made by the damage there.{_outdated(unseen)}",
        )
    ]


def _outdated(unseen: Unseen) -> str:
    if not unseen.outdated:
        return ""
    return f" That was after {maps(unseen.trials)}; those found since are scored there when the search has ended."


def certainty(found: Findings) -> tuple[str, str]:
    """Return whether sentences that no search has seen confirm the answer."""
    opened, held_back = found.outcome.confirmation, found.outcome.held_back
    if opened is None:
        if held_back:
            return "Not confirmed yet.", f"The sentences held back ({held_back}) are opened when the search has ended."
        return (
            "Not confirmed.",
            "No sentences were held back from the search; --confirm 0.3 holds back a share of them.",
        )
    if opened.withdrawn:
        return (
            "Not confirmed any more.",
            f"The sentences held back ({held_back}) were opened after {maps(opened.trials)}, and the search went on.",
        )
    words = f"On {opened.labels.size:,} sentences that no search has seen"
    first = next((headline for headline in found.headlines if headline.trial is not None), None)
    told = None if first is None else first.trial
    if first is None or told is None or told.number not in found.confirmed:
        pick = "any pick" if told is None else told.label
        return "Not confirmed.", f"{words}, what was picked when they were opened was scored, and not {pick}."
    against = found.confirmed[told.number].against_fp32
    if first.request != SMALLEST:  # of no other pick is it said that it is no worse
        judged = "Opened."
    else:
        judged = "Confirmed." if against.no_worse >= CONFIDENCE else "Not borne out on held-back sentences."
    return (
        judged,
        f"{words}, the MCC of {told.label} is {difference_with(against)} against FP32's: no worse by more than "
        f"{loss(against.margin)} with {confidence(against.no_worse)} confidence.{_fitted(found)}",
    )


def _fitted(found: Findings) -> str:
    """Return how far the search has fitted the sentences that it saw: damage there is no guide to damage elsewhere."""
    trials = [trial for trial in found.outcome.trials if trial.number in found.confirmed and trial.scores is not None]
    growth: dict[bool, list[float]] = {True: [], False: []}
    for trial in trials:
        if trial.scores is not None and trial.scores.damage > 0:
            ratio = found.confirmed[trial.number].damage / trial.scores.damage
            growth[trial.origin == "sampler"].append(ratio)
    if not growth[True]:
        return ""
    told = f" There the sampler's picks do {median(growth[True]):.2g} times the damage that the search saw"
    return f"{told}, the maps that nobody searched {median(growth[False]):.2g} times." if growth[False] else f"{told}."


def answer_lines(found: Findings) -> list[str]:
    """Return the answer in full: what each pick weighs and scores, against FP32 and the documented map."""
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
        own = tuple(trial for trial in outcome.trials if trial.origin == "sampler")
        searched = front(replace(outcome, trials=own))  # what any of them beats, one of these does
        standing = [trial for trial in rivals if beaten_by(outcome, searched, trial) is None]
        ending = f"; not beaten by them: {_listed(standing)}" if standing else ""
        lines.append(
            f"The sampler's maps beat {len(rivals) - len(standing)} of the {len(rivals)} contenders that meet the "
            f"constraint, in quality and size{ending}."
        )
    return lines


def caution_lines(found: Findings) -> list[str]:
    """Return how far these figures can be trusted."""
    return [
        f"Intervals are 95%, over {found.outcome.labels.size:,} sentences, where one MCC has a standard error of about "
        f"{found.fp32_standard_error:.3f}: the best MCC among many maps is a lucky one. Damage (mean KL divergence "
        "from FP32, nats a sentence) needs no labels and is far less noisy. Picks by size are made by it, on unseen "
        "sentences once maps are scored there, among maps whose MCC cannot be told from the best. Corrected figures "
        "are scored on sentences that the choice among the maps was not made by, though the search has seen them."
    ]


def _nothing(found: Findings) -> str:
    if found.failed:
        return f"No map has been scored: all {len(found.failed):,} evaluations failed; trials.csv says why."
    return "No map has been evaluated yet."


def _smallest_lead(found: Findings) -> tuple[str, str]:
    headline = found.headline(SMALLEST)
    margin = loss(found.outcome.margin)
    if headline is None or headline.trial is None:
        return (
            f"No map is proven to be within {margin} of FP32.",
            "That would take 95% confidence that it loses no more; more sentences, a larger margin or more evaluations "
            "may show one.",
        )
    trial = headline.trial
    sure = confidence(found.against_fp32[trial.number].no_worse)
    return (
        f"{times(trial.compression(found.outcome.size_axis))} smaller, within {margin} of FP32.",
        f"{_weighed(found, trial)}, is no worse than FP32 by more than {margin} with {sure} confidence, as is every "
        f"larger map that is not beaten.{_corrected_sentence(headline)}",
    )


def _corrected_sentence(headline: Headline) -> str:
    if headline.corrected is None:
        return ""
    against = headline.corrected.against_fp32
    return f" Corrected for the luck of selection, its MCC is {difference_with(against)} against FP32's."


def _documented_lead(found: Findings) -> tuple[str, str] | None:
    """Return how much smaller a map may be that does no more damage than the documented one.

    On unseen sentences where maps are scored there: of a whole front the smallest map that does as little damage on the
    search's own sentences is the luckiest.
    """
    reference, axis = found.reference, found.outcome.size_axis
    if reference is None or reference.scores is None:
        return None
    if reference.number in found.unseen:
        where = " on unseen sentences"
        damages = {number: unseen.damage for number, unseen in found.unseen.items()}
    else:
        where = ""
        # Of any map, as a front of MCC or agreement need not have them; one in bf16 is no match for one in FP32.
        alike = (trial for trial in found.outcome.trials if trial.precision == reference.precision)
        damages = {trial.number: trial.scores.damage for trial in alike if trial.scores}
    size, damage = reference.compression(axis), damages[reference.number]
    maps_there = [trial for trial in found.outcome.trials if trial.number in damages]
    smaller = [trial for trial in maps_there if damages[trial.number] <= damage and trial.compression(axis) > size]
    known = f"The documented map has {times(size)} and damage {nats(damage)}{where}"
    if not smaller:
        return "The documented map stands.", f"{known}; no smaller map that was scored does as little."
    best = max(smaller, key=lambda trial: trial.compression(axis))
    return (
        "Smaller than the documented map, with less damage.",
        f"{known}; {best.label} has damage {nats(damages[best.number])} at {times(best.compression(axis))}.",
    )


def _weighed(found: Findings, trial: Trial) -> str:
    """Return a map with its weight, as ``Trial 8, 17.3 MB in place of 133 MB (4.00 bits a weight)``."""
    footprint = found.outcome.footprint
    label = trial.label[:1].upper() + trial.label[1:]
    return (
        f"{label}, {megabytes(footprint.packed_bytes(trial.bits))} in place of "
        f"{megabytes(footprint.fp32_packed_bytes)} ({bits_a_weight(trial)})"
    )


def _judged(found: Findings, trial: Trial) -> str:
    assert trial.scores is not None
    difference = difference_with(found.against_fp32[trial.number])
    return f"damage {nats(trial.scores.damage)}, MCC {difference} against FP32's"


def _headline_line(found: Findings, headline: Headline) -> str:
    trial, asked = headline.trial, asked_words(found.outcome, headline.request)
    if trial is None or trial.scores is None:
        return f"{asked}: {headline.missing}."
    intervals, against = found.intervals[trial.number], found.against_fp32[trial.number]
    line = (
        f"{asked}: {trial.label} has {times(trial.nominal_compression)} nominal, "
        f"{times(trial.packed_compression)} packed ({megabytes(found.outcome.footprint.packed_bytes(trial.bits))}, "
        f"{bits_a_weight(trial)}), MCC {mcc_with(trial.scores.mcc, intervals.mcc)}, "
        f"damage {damage_with(trial.scores.damage, intervals.damage)}; against FP32 MCC {difference_with(against)}, "
        f"no worse by more than {against.margin:.10g} with {confidence(against.no_worse)} confidence"
    )
    if headline.corrected is not None:
        line += (
            f"; corrected for the luck of selection MCC {headline.corrected.mcc:.3f}, "
            f"damage {nats(headline.corrected.damage)}"
        )
    if (unseen := found.unseen.get(trial.number)) is not None:
        line += f"; on unseen sentences damage {damage_with(unseen.damage, unseen.interval)}"
        if headline.unseen is not None:
            line += f", corrected {nats(headline.unseen.damage)}"
    if (known := found.confirmed.get(trial.number)) is not None:
        line += f"; confirmed MCC {known.mcc:.3f}, {known.against_fp32.difference:+.3f} against FP32's"
        line += f", damage {nats(known.damage)}"
    if headline.request in (SMALLEST, KNEE):
        return f"{line}."
    if trial.origin != "sampler":
        who = "the documented map" if trial.origin == "reference" else "a contender"
        told = "the sampler has found nothing of less damage"
        if trial.number in found.unseen:
            told = "of what was scored on unseen sentences, nothing of the sampler's does less damage there"
        told += " whose MCC cannot be told from the best"
        return f"{line}; it is {who}: {told}."
    rival = headline.rival
    if rival is not None and rival.scores is not None:
        line += f"; the best contender there is {rival.label}, {times(rival.compression(found.outcome.size_axis))}, "
        line += f"damage {nats(rival.scores.damage)}"
    return f"{line}."


def asked_words(outcome: Outcome, request: str) -> str:
    """Return what a pick answers, as ``8x or more``."""
    if request == SMALLEST:
        return f"Smallest within {loss(outcome.margin)} of FP32"
    return "Knee of the front" if request == KNEE else f"{request.removeprefix('best@')} or more"


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
