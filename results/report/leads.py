"""A run's answer as claims with their reasons: the top of the report, and the verdict on the terminal."""

from __future__ import annotations

from statistics import median

from objectives.metrics import METRIC_NAMES, MetricName
from results.formatting import (
    DAMAGE,
    bits_per_weight,
    confidence,
    difference_with,
    loss,
    maps,
    megabytes,
    nats,
    times,
)
from results.outcome import Trial
from results.statistics.analysis import Analysis, Headline
from results.statistics.bootstrap import CONFIDENCE
from results.statistics.picks import KNEE, SMALLEST

Lead = tuple[str, str]
"""A claim and its reason, both without a full stop."""


def verdict_leads(analysis: Analysis) -> list[Lead]:
    """Return the answer in at most four sentences.

    They are whether the run is complete, the smallest map, the gain of searching, and the holdout set.
    """
    if not analysis.complete:
        return [*_unfinished_lead(analysis), ("No answer yet", _no_scores_reason(analysis))]
    return [
        *_unfinished_lead(analysis),
        _smallest_lead(analysis),
        *unsearched_lead(analysis),
        *unseen_lead(analysis),
        holdout_lead(analysis),
    ]


def lead_lines(analysis: Analysis) -> list[Lead]:
    """Return the answer at the top of the report: each claim and its reason as whole sentences."""
    if not analysis.complete:
        leads = [*_unfinished_lead(analysis), ("No answer yet", _no_scores_reason(analysis))]
    else:
        claim, reason = _smallest_lead(analysis)
        smallest = (claim, reason + _smallest_details(analysis.headline(SMALLEST), analysis.outcome.metric))
        others = [lead for lead in (_knee_lead(analysis), _documented_lead(analysis)) if lead is not None]
        claim, reason = holdout_lead(analysis)
        holdout = (claim, reason + (_holdout_damage_growth(analysis) if analysis.holdout else ""))
        leads = [
            *_unfinished_lead(analysis),
            smallest,
            *unsearched_lead(analysis),
            *others,
            *unseen_lead(analysis),
            holdout,
        ]
    reasons = _with_damage_defined([reason for _, reason in leads])
    return [
        (f"{claim}.", f"{reason[:1].upper()}{reason[1:]}.") for (claim, _), reason in zip(leads, reasons, strict=True)
    ]


def _unfinished_lead(analysis: Analysis) -> list[Lead]:
    unfinished = analysis.outcome.unfinished
    return [("This run is not complete", unfinished)] if unfinished else []


def unsearched_lead(analysis: Analysis) -> list[Lead]:
    """Return which weights no map quantises; empty if they are few."""
    unsearched = analysis.outcome.footprint.unsearched
    return [("Not searched", unsearched)] if unsearched else []


def unseen_lead(analysis: Analysis) -> list[Lead]:
    """Return how searched maps compare with the knapsack's on unseen sentences; empty if it is not known."""
    if unscored := analysis.outcome.unscored:
        return [
            (
                "Not checked on unseen sentences yet",
                f"{maps(unscored)} must still be scored there, and picks may change; if the search was interrupted, "
                "run the same command again",
            )
        ]
    gain, unseen = analysis.gain, analysis.outcome.unseen
    if gain is None or unseen is None:
        return []
    if gain.interval.high < 1:
        claim = "The search beats the knapsack"
    elif gain.interval.low > 1:
        claim = "The knapsack beats the search"
    else:
        claim = "No clear difference between the search and the knapsack"
    sizes = "1 size" if gain.sizes == 1 else f"{gain.sizes} sizes"
    ending = f"; since then, after {maps(unseen.trials)}, the search went on" if unseen.outdated else ""
    return [
        (
            claim,
            f"on {len(unseen.fp32_log_odds):,} unseen training sentences, searched maps do {gain.ratio:.0%} of the "
            f"damage of knapsack maps of their size "
            f"(95%: {gain.interval.low:.0%} to {gain.interval.high:.0%}; {sizes}){ending}",
        )
    ]


def holdout_lead(analysis: Analysis) -> Lead:
    """Return whether the holdout set, which the search has not seen, confirms the answer."""
    scored, source = analysis.outcome.holdout, analysis.outcome.holdout_source
    if scored is None:
        if source:
            return "Holdout set not scored yet", f"its sentences ({source}) are scored when the search ends"
        return "No holdout set", "use --confirm 0.3 to set sentences aside that check the answer"
    if scored.withdrawn:
        after = f"its sentences ({source}) were scored after {maps(scored.trials)}, and the search went on"
        return "Holdout result out of date", after
    sentences = f"{len(scored.labels):,} sentences that the search has not seen"
    first = next((headline for headline in analysis.headlines if headline.trial is not None), None)
    trial = None if first is None else first.trial
    if first is None or trial is None or trial.number not in analysis.holdout:
        label = "any pick" if trial is None else trial.label
        return "Not confirmed", f"earlier picks were scored on {sentences}, but not {label}"
    against, name = analysis.holdout[trial.number].against_fp32, METRIC_NAMES[analysis.outcome.metric]
    if first.request != SMALLEST:  # only the smallest pick is claimed to be no worse
        claim = "Scored on the holdout set"
    elif against.no_worse >= CONFIDENCE:
        claim = "Confirmed on the holdout set"
    else:
        claim = "Not confirmed on the holdout set"
    return (
        claim,
        f"on {sentences}, the {name} of {trial.label} is {difference_with(against)} against FP32's, no worse by more "
        f"than {loss(against.margin, analysis.outcome.metric)} with {confidence(against.no_worse)} confidence",
    )


def _holdout_damage_growth(analysis: Analysis) -> str:
    """Return how many times larger damage is on the holdout set than on the search's sentences: its overfitting."""
    growth: dict[bool, list[float]] = {True: [], False: []}
    for trial in analysis.outcome.trials:
        if trial.number in analysis.holdout and trial.scores is not None and trial.scores.damage > 0:
            ratio = analysis.holdout[trial.number].damage / trial.scores.damage
            growth[trial.origin == "sampler"].append(ratio)
    if not growth[True]:
        return ""
    sentence = f". There the sampler's picks do {median(growth[True]):.2g} times the damage that the search saw"
    return f"{sentence}, the baselines {median(growth[False]):.2g} times" if growth[False] else sentence


def _no_scores_reason(analysis: Analysis) -> str:
    if analysis.failed:
        return f"no map has been scored: all {len(analysis.failed):,} evaluations failed; trials.csv says why"
    return "no map has been evaluated yet"


def _smallest_lead(analysis: Analysis) -> Lead:
    headline = analysis.headline(SMALLEST)
    margin = loss(analysis.outcome.margin, analysis.outcome.metric)
    if headline is None or headline.trial is None:
        return (
            f"No map is proven to be within {margin} of FP32",
            "proof takes 95% confidence; try more sentences, a larger margin or more evaluations",
        )
    trial = headline.trial
    certainty = confidence(analysis.against_fp32[trial.number].no_worse)
    return (
        f"{times(trial.compression(analysis.outcome.file_axis))} smaller, within {margin} of FP32",
        f"{_map_and_size(analysis, trial)} is no worse than FP32 by more than {margin} with {certainty} confidence",
    )


def _smallest_details(headline: Headline | None, metric: MetricName) -> str:
    if headline is None or headline.trial is None:
        return ""
    sentence = ". So is every larger map that was tested"
    if headline.corrected is None:
        return sentence
    against = headline.corrected.against_fp32
    sentence += f". Corrected for the luck of selection, its {METRIC_NAMES[metric]} is"
    return f"{sentence} {difference_with(against)} against FP32's"


def _knee_lead(analysis: Analysis) -> Lead | None:
    headline = analysis.headline(KNEE)
    if headline is None or headline.trial is None or headline.trial.scores is None:
        return None
    trial, against = headline.trial, analysis.against_fp32[headline.trial.number]
    return (
        f"Beyond {times(trial.compression(analysis.outcome.file_axis))} it gets expensive",
        f"{_map_and_size(analysis, trial)} is where the front bends most: damage {nats(headline.trial.scores.damage)}, "
        f"{METRIC_NAMES[analysis.outcome.metric]} {difference_with(against)} against FP32's",
    )


def _documented_lead(analysis: Analysis) -> Lead | None:
    """Return the smallest map that does no more damage than the documented one.

    It compares damage on unseen sentences once maps are scored there. On the search's own sentences the smallest such
    map of a whole front would be the luckiest.
    """
    reference, axis = analysis.reference, analysis.outcome.size_axis
    if reference is None or reference.scores is None:
        return None
    if reference.number in analysis.unseen:
        where = " on unseen sentences"
        damages = {number: unseen.damage for number, unseen in analysis.unseen.items()}
    else:
        where = ""
        # Not only the front, which may be of the metric or agreement. Scores in bf16 do not compare with those in FP32.
        comparable = (trial for trial in analysis.outcome.trials if trial.precision == reference.precision)
        damages = {trial.number: trial.scores.damage for trial in comparable if trial.scores}
    size, damage = reference.compression(axis), damages[reference.number]
    scored = [trial for trial in analysis.outcome.trials if trial.number in damages]
    smaller = [trial for trial in scored if damages[trial.number] <= damage and trial.compression(axis) > size]
    documented = f"the documented map is {_times_smaller(analysis, reference)} with damage {nats(damage)}{where}"
    if not smaller:
        return "The documented map stands", f"{documented}; no smaller scored map does as little damage"
    best = max(smaller, key=lambda trial: trial.compression(axis))
    return (
        "Smaller than the documented map, with less damage",
        f"{documented}; {best.label} is {_times_smaller(analysis, best)} with damage {nats(damages[best.number])}",
    )


def _map_and_size(analysis: Analysis, trial: Trial) -> str:
    """Return a map with its size, as ``trial 8 (17 MB instead of 133 MB; nominal 8.00x, 4.00 bits per weight)``.

    Nominal figures are of the searched layers. They are left out where these are not nearly all of the model.
    """
    footprint, axis = analysis.outcome.footprint, analysis.outcome.file_axis
    size, fp32 = (megabytes(size) for size in (footprint.size(trial.bit_map, axis), footprint.fp32_size(axis)))
    nominal = "" if footprint.unsearched else f"; nominal {times(trial.nominal_compression)}, {bits_per_weight(trial)}"
    return f"{trial.label} ({size} instead of {fp32}{nominal})"


def _times_smaller(analysis: Analysis, trial: Trial) -> str:
    """Return how much smaller a map's file is, as ``4.27x smaller (nominal 5.50x)``; nominal as above."""
    nominal = "" if analysis.outcome.footprint.unsearched else f" (nominal {times(trial.nominal_compression)})"
    return f"{times(trial.compression(analysis.outcome.file_axis))} smaller{nominal}"


def _with_damage_defined(texts: list[str]) -> list[str]:
    """Return the texts with damage defined at its first mention."""
    first = next((index for index, text in enumerate(texts) if "damage" in text), None)
    return [text.replace("damage", DAMAGE, 1) if index == first else text for index, text in enumerate(texts)]
