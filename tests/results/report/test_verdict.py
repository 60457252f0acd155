"""The answer at a glance: each figure from the most trusted sentences, and no claim that another contradicts."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from objectives.heads import Classes, Head, Numbers, YesNoLabels
from objectives.metrics import MetricName
from objectives.packing.footprint import SizeAxis
from results.formatting import DAMAGE, megabytes, nats
from results.outcome import Outcome, Trial
from results.report.summary import ending_lines
from results.report.verdict import (
    AGAINST,
    CERTAIN,
    GOOD,
    NOT_COMPLETE,
    NOT_SEARCHED,
    SMALL,
    WHY,
    Verdict,
    recommended_pick,
    verdict_of,
)
from results.statistics.analysis import Analysis, analyse
from results.statistics.picks import SMALLEST, pick
from tests.results.synthetic import (
    empty_outcome,
    eventful_outcome,
    failed,
    made_up_outcome,
    scored,
    with_holdout,
    with_trials,
    with_unseen,
)


def answered(outcome: Outcome) -> tuple[str, dict[str, str], Analysis]:
    analysis = analyse(outcome)
    verdict = verdict_of(analysis)
    return verdict.claim, dict(verdict.points), analysis


def against(analysis: Analysis) -> str:
    return dict(verdict_of(analysis).points)[AGAINST]


def smallest_of(analysis: Analysis) -> int:
    headline = analysis.headline(SMALLEST)
    assert headline is not None and headline.trial is not None
    return headline.trial.number


@pytest.fixture(scope="module")
def proven() -> Outcome:
    """A run with a map that validation proves."""
    return replace(made_up_outcome(trials=12, sentences=800), margin=0.05)


def test_without_a_holdout_validation_speaks_and_says_what_would_confirm_it(proven: Outcome) -> None:
    claim, points, analysis = answered(proven)
    trial = next(trial for trial in proven.trials if trial.number == smallest_of(analysis))
    assert trial.scores is not None
    compared = analysis.against_fp32[trial.number]
    assert re.fullmatch(r"\d+\.\d times smaller, within 0.05 MCC of FP32 with (9\d%|over 99%) confidence", claim)
    file_bytes, fp32_bytes = proven.footprint.packed_bytes(trial.bit_map), proven.footprint.fp32_packed_bytes
    assert points[SMALL] == (
        f"{megabytes(file_bytes)} instead of {megabytes(fp32_bytes)}, {fp32_bytes / file_bytes:.1f} times smaller on "
        f"disk, {32 / trial.nominal_compression:.3g} bits a weight: {trial.label}"
    )
    assert points[GOOD] == (
        f"MCC {trial.scores.metric:.3f}, {compared.difference:+.3f} (95%: {compared.interval.low:+.3f} to "
        f"{compared.interval.high:+.3f}) against FP32, on 800 validation sentences"
    )
    assert "no smaller tested size passes. The search saw these sentences: about " in points[CERTAIN]


def test_a_holdout_decides_over_validation(proven: Outcome) -> None:
    claim, points, _ = answered(with_holdout(proven))
    assert claim.endswith("within 0.05 MCC of FP32: confirmed on the holdout set")
    assert points[GOOD].endswith("on 800 holdout sentences") and "nothing saw before" in points[CERTAIN]
    claim, points, analysis = answered(with_holdout(proven, noise=2.5))
    estimate = analysis.holdout[smallest_of(analysis)]
    assert claim.endswith("times smaller, but not confirmed to be within 0.05 MCC of FP32")
    assert points[GOOD].startswith(f"MCC {estimate.metric:.3f}, {estimate.against_fp32.difference:+.3f} ")
    assert " (95% needed). " in points[CERTAIN]
    if estimate.against_fp32.difference <= -0.05:
        assert "No number of sentences would prove it" in points[CERTAIN]
    else:
        assert "sentences would prove it" in points[CERTAIN]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("not yet", "The holdout set (0.3) is scored when the search ends"),
        ("withdrawn", "The holdout set was scored after 19 maps, and the search went on: it confirms nothing now"),
        ("of others", "The holdout set was scored with earlier picks, not with "),
    ],
)
def test_a_holdout_without_the_recommended_map_confirms_nothing(proven: Outcome, state: str, said: str) -> None:
    held = with_holdout(proven, withdrawn=state == "withdrawn")
    assert held.holdout is not None
    if state == "of others":
        recommended = smallest_of(analyse(proven))
        others = {number: row for number, row in held.holdout.log_odds.items() if number != recommended}
        held = replace(held, holdout=replace(held.holdout, log_odds=others))
    if state == "not yet":
        held = replace(held, holdout=None)
    claim, points, _ = answered(held)
    assert "confirmed" not in claim and "validation" in points[GOOD]
    assert said in points[CERTAIN]


def test_what_is_not_proven_is_not_claimed() -> None:
    outcome = replace(made_up_outcome(trials=12), margin=0.0)
    claim, points, analysis = answered(outcome)
    recommended = recommended_pick(analysis)
    assert recommended is not None and recommended.trial is not None and recommended.request == "best@5.5x"
    assert claim == "No map is proven to be within 0 MCC of FP32"
    assert points[SMALL].endswith(f" bits a weight: {recommended.trial.label}")
    assert " (95% needed). " in points[CERTAIN]
    # Should the holdout prove what validation does not, then both lines speak of the holdout.
    claim, points, _ = answered(with_holdout(replace(outcome, margin=0.02), noise=0.0))
    assert ("confirmed on the holdout set" in claim) == ("nothing saw before" in points[CERTAIN])


def test_damage_is_compared_at_the_size_of_the_map_on_unseen_sentences() -> None:
    outcome = eventful_outcome(0.05, trials=30)
    _, points, analysis = answered(outcome)
    trial, unseen = pick(outcome, SMALLEST), analysis.unseen
    assert points[AGAINST].startswith(f"D{DAMAGE[1:]} {nats(unseen[trial.number].damage)} on 300 unseen sentences; ")

    def rival(name: str, other: Trial) -> str:
        file_bytes = outcome.footprint.packed_bytes(other.bit_map)
        return f"{name} ({megabytes(file_bytes)}): {nats(unseen[other.number].damage)}"

    size = trial.packed_compression
    near = min(
        (other for other in analysis.baselines if other.number in unseen),
        key=lambda other: float(abs(np.log(other.packed_compression / size))),
    )
    assert f"; {rival('knapsack', near)}, {rival('documented map', outcome.trials[0])}. Over " in points[AGAINST]
    assert " sizes, as of 40 maps, " in points[AGAINST] and ": searched maps do " in points[AGAINST]
    current = replace(outcome.unseen, outdated=False) if outcome.unseen else None
    assert "as of" not in against(replace(analysis, outcome=replace(outcome, unseen=current)))
    without = replace(analysis, outcome=replace(outcome, unseen=None), unseen={}, gain=None)
    assert "on 800 validation sentences; " in against(without) and "Over" not in against(without)
    alone = with_trials(without.outcome, [other for other in outcome.trials if other.origin == "sampler"])
    assert "no baseline is scored there" in against(replace(without, outcome=alone))
    bf16 = [replace(other, precision="bf16") if not other.number else other for other in outcome.trials]
    assert "documented" not in against(replace(without, outcome=with_trials(without.outcome, bf16)))


def test_a_pick_that_is_a_baseline_is_not_compared_with_itself() -> None:
    outcome = replace(made_up_outcome(trials=0, sentences=800), margin=0.2)
    points = answered(outcome)[1]
    assert re.search(r"; uniform \d: the same map, documented map \(", points[AGAINST])


@pytest.mark.parametrize("outcome", [empty_outcome(), made_up_outcome(trials=4)])
def test_a_run_that_is_not_complete_says_so_first(outcome: Outcome) -> None:
    reason = "a signal stopped it after 0 of 60 trials and 49 of 152 sensitivities (kept)"
    analysis = analyse(replace(outcome, unfinished=reason))
    verdict = verdict_of(analysis)
    assert verdict.points[0] == (NOT_COMPLETE, f"A{reason[1:]}")
    assert verdict.claim.startswith("So far" if outcome.trials else "No answer yet")
    assert f"{NOT_COMPLETE} A{reason[1:]}." in " ".join(" ".join(ending_lines(analysis, "runs/x", "")).split())
    assert NOT_COMPLETE not in dict(verdict_of(analyse(outcome)).points)


def test_maps_that_wait_for_the_check_are_named() -> None:
    points = answered(replace(made_up_outcome(trials=4), unscored=7))[1]
    assert points[CERTAIN].startswith("7 maps must still be scored on unseen sentences, and picks may change. ")


def test_a_run_without_scores_or_picks_has_no_answer() -> None:
    outcome = made_up_outcome(trials=2)
    lost = replace(outcome, trials=tuple(failed(trial) for trial in outcome.trials))
    assert verdict_of(analyse(empty_outcome())) == Verdict("No answer yet", ((WHY, "No map has been evaluated yet"),))
    assert "all 10 evaluations failed" in answered(lost)[1][WHY]
    none_feasible = replace(outcome, trials=tuple(replace(trial, feasible=False) for trial in outcome.trials))
    claim, points, _ = answered(none_feasible)
    assert claim == "No map is proven to be within 0.01 MCC of FP32"
    assert points[WHY].startswith("best@5.5x: no map has been evaluated that could be picked")


@pytest.mark.parametrize(
    ("head", "metric", "name"),
    [(Classes(3), "mcc", "MCC"), (YesNoLabels(2), "f1", "F1"), (Numbers(1), "pearson", "Pearson r")],
)
def test_every_head_has_an_answer(head: Head, metric: MetricName, name: str) -> None:
    outcome = replace(made_up_outcome(trials=0, sentences=40, head=head, metric=metric), margin=0.05)
    for made in (outcome, with_holdout(with_unseen(outcome, outcome.trials))):
        claim, points, _ = answered(made)
        assert f"0.05 {name} of FP32" in claim and points[GOOD].startswith(f"{name} ")
        assert set(points) == {SMALL, GOOD, AGAINST, CERTAIN}


@pytest.mark.parametrize("size_axis", ["nominal", "packed"])
def test_sizes_are_of_the_whole_model_and_what_is_not_searched_is_named(size_axis: SizeAxis) -> None:
    """A million weights outside the layers, beside 340,000 in them: nominal sizes of the rest say nothing."""
    base = made_up_outcome(trials=0)
    kept = {f"bert.encoder.layer.{block}.conv.weight": (100, 1000, 1) for block in range(10)}
    sizes = replace(base.footprint, kept={**base.footprint.kept, **kept})
    outcome = replace(eventful_outcome(0.05, trials=12), footprint=sizes, size_axis=size_axis, min_compression=1.1)
    trials = [replace(trial, packed_compression=sizes.compression(trial.bit_map, "packed")) for trial in outcome.trials]
    claim, points, analysis = answered(with_trials(outcome, trials))
    trial = next(trial for trial in trials if trial.number == smallest_of(analysis))
    ratio = sizes.fp32_packed_bytes / sizes.packed_bytes(trial.bit_map)
    assert ratio < 2 < trial.nominal_compression
    assert claim.startswith(f"{ratio:.1f} times smaller, ")
    assert f", {ratio:.1f} times smaller on disk: " in points[SMALL]
    assert points[NOT_SEARCHED] == sizes.unsearched and "(bert.encoder.layer.*.conv.weight, " in sizes.unsearched
    assert "bits a weight" not in " ".join(points.values())
    assert len(ending_lines(analysis, "runs/x", "")) <= 25
    assert NOT_SEARCHED not in answered(eventful_outcome(0.05, trials=12))[1]


def test_a_search_by_onnx_size_speaks_of_onnx_files() -> None:
    outcome = replace(made_up_outcome(trials=8, size_axis="onnx", min_compression=2.0, seed=2), margin=0.2)
    claim, points, analysis = answered(outcome)
    sizes = outcome.footprint.onnx_sizes
    trial = next(trial for trial in outcome.trials if trial.number == smallest_of(analysis))
    ratio = sizes.fp32_bytes / sizes.file_bytes(trial.bit_map)
    assert claim.startswith(f"{ratio:.1f} times smaller, within 0.2 MCC of FP32 ")
    assert points[SMALL].startswith(f"{megabytes(sizes.file_bytes(trial.bit_map))} instead of ")
    assert f"{ratio:.1f} times smaller as an ONNX file" in points[SMALL]


def test_equal_labels_prove_nothing_and_no_number_of_them_would() -> None:
    outcome = made_up_outcome(trials=2)
    outcome = replace(outcome, labels=0 * outcome.labels)
    trials = [scored(trial, metric=0.0) for trial in outcome.trials]
    assert "No number of such sentences would" in answered(with_trials(outcome, trials))[1][CERTAIN]
