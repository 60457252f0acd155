"""A run's answer at a glance: one claim and the few figures behind it, for the report and the end of a search.

A figure comes from the most trusted sentences that have it: the metric from the holdout, else from validation; damage
from unseen sentences, else from validation. Each is named. docs/metrics.md has the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from objectives.metrics import METRIC_NAMES
from results.formatting import (
    DAMAGE,
    bits,
    confidence,
    difference_with,
    loss,
    map_name,
    maps,
    megabytes,
    metric,
    nats,
    times_smaller,
)
from results.outcome import Trial
from results.report.distilled import DistilledMap
from results.report.distilled_view import distilled_gain
from results.statistics.analysis import Analysis, Headline
from results.statistics.picks import SMALLEST
from results.statistics.proof import Proof, proof_of

SMALL, GOOD, AGAINST, CERTAIN, DISTILLED = "How small", "How good", "Against", "How certain", "Distilled"
NOT_COMPLETE, NOT_SEARCHED, WHY = "Not complete", "Not searched", "Why"


@dataclass(frozen=True)
class Verdict:
    """The answer; no text has a full stop at its end.

    Attributes:
        claim: the answer in one line.
        points: questions, each with its answer.
    """

    claim: str
    points: tuple[tuple[str, str], ...]


def verdict_of(analysis: Analysis, distilled: Sequence[DistilledMap] = ()) -> Verdict:
    """Return the answer of any run, also of one without scores, without a proven map, or not complete.

    Its last point is what distillation gained, if there are distilled maps; the others are of maps as searched.
    """
    verdict, gain = _of_search(analysis), distilled_gain(analysis, distilled)
    return replace(verdict, points=(*verdict.points, (DISTILLED, _sentence_case(gain)))) if gain else verdict


def _of_search(analysis: Analysis) -> Verdict:
    outcome, recommended = analysis.outcome, recommended_pick(analysis)
    around = [(NOT_COMPLETE, _sentence_case(outcome.unfinished))] if outcome.unfinished else []
    if outcome.footprint.unsearched:
        around.append((NOT_SEARCHED, outcome.footprint.unsearched))
    if not analysis.complete:
        return Verdict("No answer yet", (*around[: bool(outcome.unfinished)], (WHY, _no_scores_reason(analysis))))
    if recommended is None or recommended.trial is None:
        claim = f"No map is proven to be within {_margin(analysis)} of FP32"
        missing = [f"{headline.request}: {headline.missing}" for headline in analysis.headlines[1:2]]
        return Verdict(claim, (*around, (WHY, "; ".join(missing))))
    trial, proof = recommended.trial, proof_of(analysis, recommended.trial)
    points = [
        (SMALL, _how_small(analysis, trial)),
        (GOOD, _how_good(analysis, proof)),
        (AGAINST, _against_what(analysis, trial)),
        (CERTAIN, _how_certain(analysis, recommended, trial, proof)),
    ]
    return Verdict(_claim(analysis, recommended, trial, proof), (*around, *points))


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def recommended_pick(analysis: Analysis) -> Headline | None:
    """Return the smallest map within the margin, else the first pick by size; None if no request is answered."""
    return next((headline for headline in analysis.headlines if headline.trial is not None), None)


def _claim(analysis: Analysis, pick: Headline, trial: Trial, proof: Proof) -> str:
    smaller = times_smaller(trial.compression(analysis.outcome.file_axis))
    within = f"within {_margin(analysis)} of FP32"
    so_far = "So far " if analysis.outcome.unfinished else ""
    if proof.source == "holdout":
        if proof.proven:
            return f"{so_far}{smaller}, {within}: confirmed on the holdout set"
        return f"{so_far}{smaller}, but not confirmed to be {within}"
    if pick.request != SMALLEST:
        return f"{'So far no' if so_far else 'No'} map is proven to be {within}"
    return f"{so_far}{smaller}, {within} with {confidence(proof.against_fp32.no_worse)} confidence"


def _how_small(analysis: Analysis, trial: Trial) -> str:
    """Return the bytes of the file; bits are of the searched layers, and left out if these are not nearly all."""
    footprint, axis = analysis.outcome.footprint, analysis.outcome.file_axis
    size, fp32 = (megabytes(size) for size in (footprint.size(trial.bit_map, axis), footprint.fp32_size(axis)))
    place = "as an ONNX file" if axis == "onnx" else "on disk"
    width = "" if footprint.unsearched else f", {bits(32 / trial.nominal_compression)} bits a weight"
    chosen = map_name(analysis.outcome, trial)
    return f"{size} instead of {fp32}, {times_smaller(trial.compression(axis))} {place}{width}: {chosen}"


def _how_good(analysis: Analysis, proof: Proof) -> str:
    against, name = proof.against_fp32, METRIC_NAMES[analysis.outcome.metric]
    return (
        f"{name} {metric(proof.metric)}, {difference_with(against)} against FP32, on {proof.sentences:,} "
        f"{proof.source} sentences"
    )


def _how_certain(analysis: Analysis, pick: Headline, trial: Trial, proof: Proof) -> str:
    outcome, margin = analysis.outcome, _margin(analysis)
    sure = f"{confidence(proof.against_fp32.no_worse)} that at most {margin} is lost"
    parts = []
    if outcome.unscored:
        parts.append(f"{maps(outcome.unscored)} must still be scored on unseen sentences, and picks may change")
    if not proof.proven:
        parts += [f"{sure} (95% needed)", _what_would_prove(proof, margin)]
        if proof.source == "validation" and outcome.holdout_source:
            parts.append(_what_would_confirm(analysis, trial, proof))
    elif proof.source == "holdout":
        parts.append(f"{sure} in texts like these, which nothing saw before")
        if pick.request != SMALLEST:
            parts.append("the validation sentences do not prove it")
    else:
        parts.append(f"{sure}; no smaller tested size passes")
        parts.append(_what_would_confirm(analysis, trial, proof))
    return ". ".join(map(_sentence_case, parts))


def _what_would_prove(proof: Proof, margin: str) -> str:
    against = proof.against_fp32
    if proof.needed is None and against.difference > -against.margin:
        return "no number of such sentences would: their labels are all equal, or the loss is too near the margin"
    if proof.needed is None:
        return f"no number of sentences would prove it, as {margin} or more is lost here: take a larger map or margin"
    return f"with changes like these, about {proof.needed:,} labelled sentences would prove it"


def _what_would_confirm(analysis: Analysis, trial: Trial, proof: Proof) -> str:
    """Return why the holdout does not confirm what validation proves, and what would."""
    scored, source = analysis.outcome.holdout, analysis.outcome.holdout_source
    if scored is None and source:
        return f"the holdout set ({source}) is scored when the search ends"
    if scored is not None and scored.withdrawn:
        return (
            f"the holdout set was scored after {maps(scored.trials)}, and the search went on: it confirms nothing now"
        )
    if scored is not None:
        return f"the holdout set was scored with earlier picks, not with {trial.label}"
    others = f"about {proof.needed:,} others" if proof.needed else "others"
    return f"the search saw these sentences: {others}, held back with --confirm, would confirm it"


def _against_what(analysis: Analysis, trial: Trial) -> str:
    """Return the damage beside that of the knapsack, of a uniform map, both the nearest in size, and the documented."""
    outcome, axis, unseen = analysis.outcome, analysis.outcome.file_axis, analysis.outcome.unseen
    if trial.number in analysis.unseen and unseen is not None:
        where = f"{len(unseen.fp32_log_odds):,} unseen sentences"
        damages = {number: scored.damage for number, scored in analysis.unseen.items()}
    else:
        where = f"{len(outcome.labels):,} validation sentences"
        # Scores in bf16 do not compare with those in FP32.
        comparable = (other for other in outcome.trials if other.precision == trial.precision)
        damages = {other.number: other.scores.damage for other in comparable if other.scores}
    rivals = []
    for origin in ("plain", "uniform", "reference"):
        scored = [other for other in outcome.trials if other.origin == origin and other.number in damages]
        if not scored:
            continue
        size = trial.compression(axis)
        near = min(scored, key=lambda other: abs(other.compression(axis) / size - size / other.compression(axis)))
        name = {"plain": "knapsack", "reference": "documented map"}.get(origin, near.label)
        if near.bit_map == trial.bit_map:
            rivals.append(f"{name}: the same map")
        else:
            bytes_ = outcome.footprint.size(near.bit_map, axis)
            rivals.append(f"{name} ({megabytes(bytes_)}): {nats(damages[near.number])}")
    beside = f"; {', '.join(rivals)}" if rivals else "; no baseline is scored there"
    return f"{_sentence_case(DAMAGE)} {nats(damages[trial.number])} on {where}{beside}{_over_all_sizes(analysis)}"


def _over_all_sizes(analysis: Analysis) -> str:
    """Return how searched maps compare with the knapsack's over all sizes on unseen sentences; empty if unknown."""
    gain, unseen = analysis.gain, analysis.outcome.unseen
    if gain is None or unseen is None:
        return ""
    if gain.interval.high < 1:
        better = "the search is better"
    elif gain.interval.low > 1:
        better = "the knapsack is better"
    else:
        better = "neither is clearly better"
    sizes = "At 1 size" if gain.sizes == 1 else f"Over {gain.sizes} sizes"
    interval = f"95%: {gain.interval.low:.0%} to {gain.interval.high:.0%}"
    old = f", as of {maps(unseen.trials)}," if unseen.outdated else ""
    return f". {sizes}{old} {better}: searched maps do {gain.ratio:.0%} of the knapsack's damage ({interval})"


def _margin(analysis: Analysis) -> str:
    return loss(analysis.outcome.margin, analysis.outcome.metric)


def _no_scores_reason(analysis: Analysis) -> str:
    if analysis.failed:
        return f"No map has been scored: all {len(analysis.failed):,} evaluations failed; trials.csv says why"
    return "No map has been evaluated yet"
