"""Picks by compression, margin, knee and number."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from objectives.errors import InputError
from objectives.layers import Layer, uniform
from objectives.packing.footprint import SizeAxis
from results.outcome import Outcome
from results.statistics.candidates import Candidates, knee_rule, smallest_rule
from results.statistics.picks import headline_limits, headline_requests, ladder, pick, trial_by_number
from tests.results.synthetic import (
    empty_outcome,
    failed,
    made_up_outcome,
    made_up_trial,
    scored,
    with_trials,
    with_unseen,
)


def test_best_is_the_least_damage_of_all_small_enough_maps() -> None:
    outcome = made_up_outcome(trials=80)
    weigh = outcome.footprint.exact_compression
    for request, least in (("best@5.5x", Fraction("5.5")), ("best@8x", Fraction(8)), ("best@11.3x", Fraction("11.3"))):
        small_enough = [
            trial
            for trial in outcome.trials
            if trial.feasible and trial.scores is not None and weigh(trial.bit_map, "nominal") >= least
        ]
        assert len(small_enough) > 5
        best = min(small_enough, key=lambda trial: trial.scores.damage if trial.scores else 0.0)
        assert pick(outcome, request) is best


def test_best_is_by_damage_for_any_quality() -> None:
    outcome = empty_outcome(quality="mcc")
    trials = [made_up_trial(outcome, number, (4,) * 76) for number in range(2)]
    trials = [scored(trials[0], metric=0.9, damage=0.2), scored(trials[1], metric=0.1, damage=0.1)]
    assert pick(with_trials(outcome, trials), "best@8x").number == 1


def test_best_uses_the_size_axis_of_the_outcome() -> None:
    outcome = made_up_outcome(trials=0, size_axis="packed", min_compression=2.0)
    uniform_4 = outcome.trials[3]
    assert uniform_4.label == "uniform 4"
    assert uniform_4.packed_compression < 8 == uniform_4.nominal_compression
    with pytest.raises(InputError, match=r"the smallest is uniform 2 of \S+x \(packed\)"):
        pick(outcome, "best@8x")
    assert pick(outcome, f"best@{uniform_4.packed_compression - 0.001:.6f}x") is uniform_4


def one_map(outcome: Outcome, width: int) -> Outcome:
    return with_trials(outcome, [made_up_trial(outcome, 0, (width,) * len(outcome.footprint.layers))])


@pytest.mark.parametrize(
    ("width", "request_text", "qualifies"),
    [
        (3, "best@10.67x", True),  # 32/3 = 10.6667, as people write it
        (3, "best@10.667x", True),
        (3, "best@10.66x", True),
        (3, "best@10.68x", False),
        (3, "best@10.7x", False),  # one decimal is exact, as the constraint of 5.5 is
        (4, "best@8x", True),
        (4, "best@8.00x", True),
        (4, "best@8.1x", False),
        (5, "best@6.4x", True),  # 32/5 is 6.4 exactly, though no float is
        (5, " best@6.40x ", True),
    ],
)
def test_requests_of_two_decimals_are_rounded_and_others_exact(width: int, request_text: str, qualifies: bool) -> None:
    outcome = one_map(empty_outcome(), width)
    if qualifies:
        assert pick(outcome, request_text).number == 0
    else:
        with pytest.raises(InputError, match="no evaluated map is that small"):
            pick(outcome, request_text)


def test_a_whole_request_never_takes_a_map_just_below() -> None:
    # 1,000 weights at 4 bits and one at 5: 7.998x, which rounds to 8.
    layers = [Layer("e", "embedding", 1000, 1), Layer("l", "linear", 1, 1)]
    outcome = empty_outcome(layers=layers)
    outcome = with_trials(outcome, [made_up_trial(outcome, 0, (4, 5))])
    assert 7.99 < outcome.trials[0].nominal_compression < 8
    with pytest.raises(InputError, match=r"best@7\.99x or less"):
        pick(outcome, "best@8x")
    assert pick(outcome, "best@7.99x").number == 0


def test_equal_damage_goes_to_the_smaller_then_the_earlier() -> None:
    outcome = empty_outcome()
    widths = (5, 4, 4)
    trials = [scored(made_up_trial(outcome, at, (width,) * 76), damage=0.1) for at, width in enumerate(widths)]
    assert pick(with_trials(outcome, trials), "best@6x").number == 1


def test_at_or_above_the_constraint_only_feasible_maps_are_picked() -> None:
    outcome = made_up_outcome(trials=0)
    uniform_8 = outcome.trials[7]
    assert not uniform_8.feasible
    assert pick(outcome, "best@4x") is uniform_8
    assert pick(outcome, "best@5.5x").feasible
    # A map that misses the constraint is never picked there, however small.
    infeasible = replace(outcome.trials[3], feasible=False)
    with pytest.raises(InputError, match="no map has been evaluated that could be picked"):
        pick(replace(outcome, trials=(infeasible,)), "best@5.5x")


def test_failed_trials_are_never_picked() -> None:
    outcome = made_up_outcome(trials=0)
    outcome = replace(outcome, trials=tuple(failed(t) if t.label == "uniform 4" else t for t in outcome.trials))
    assert pick(outcome, "best@8x").label == "uniform 3"
    with pytest.raises(InputError, match="let the search run on"):
        pick(empty_outcome(), "best@8x")


def test_the_suggested_request_has_a_pick() -> None:
    outcome = one_map(empty_outcome(), 3)
    with pytest.raises(InputError, match="ask for") as caught:
        pick(outcome, "best@14x")
    suggested = str(caught.value).partition("ask for ")[2].partition(" ")[0]
    assert suggested == "best@10.66x"
    assert pick(outcome, suggested).number == 0


MALFORMED = ["", "best", "best@x", "best@8", "best@-8x", "best@8,5x", "best@1e1x", "best@٨x", "8x", "best@0x"]
MALFORMED += ["smallest", "smallest@2", "smallest@x", "knee@8x"]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_requests_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a pick; write best@8x"):
        pick(made_up_outcome(trials=0), text)


def test_trials_by_number() -> None:
    outcome = made_up_outcome(trials=2)
    outcome = replace(outcome, trials=(*outcome.trials[:-1], failed(outcome.trials[-1])))
    assert [trial_by_number(outcome, trial.number) for trial in outcome.trials] == list(outcome.trials)
    with pytest.raises(InputError, match="10 evaluated trials, between 0 and 9"):
        trial_by_number(outcome, 10)
    with pytest.raises(InputError, match="no trial yet"):
        trial_by_number(empty_outcome(), 0)


def test_headline_requests_lie_between_the_constraint_and_the_highest_compression() -> None:
    sizes = ("best@5.5x", "best@8x", "best@10.67x", "best@12.8x")
    assert headline_requests(empty_outcome()) == ("smallest@margin", *sizes, "knee")
    assert headline_requests(empty_outcome(min_compression=8.0)) == ("smallest@margin", *sizes[1:], "knee")
    assert [request for request, _ in headline_limits(empty_outcome())] == list(sizes)
    packed = empty_outcome(size_axis="packed")  # so small a model keeps too much in full precision
    assert packed.footprint.highest_compression("packed") < 8
    assert headline_requests(packed) == ("smallest@margin", "best@5.5x", "knee")


def test_smallest_and_knee_are_picked_from_candidates() -> None:
    outcome = replace(made_up_outcome(trials=80), margin=0.2)
    candidates = Candidates.of(outcome)
    for margin, request in ((0.2, "smallest@margin"), (0.1, "smallest@0.1"), (1.0, " smallest@1 ")):
        at = smallest_rule(margin, ladder(outcome))(candidates)
        assert at is not None
        assert pick(outcome, request).number == candidates.numbers[at] == pick(outcome, request, candidates).number
    assert pick(outcome, "smallest@1").label == "uniform 2"
    at = knee_rule()(candidates)
    assert at is not None
    assert pick(outcome, "knee").number == candidates.numbers[at]
    with pytest.raises(InputError, match="fewer than three maps has no knee"):
        pick(one_map(empty_outcome(), 4), "knee")
    noisy = with_trials(empty_outcome(), [made_up_trial(empty_outcome(), 0, (2,) * 76)])
    with pytest.raises(InputError, match=r"ask for a larger margin, as in smallest@0\.05"):
        pick(noisy, "smallest@margin")


@pytest.mark.parametrize("axis", ["nominal", "packed"])
def test_the_ladder_begins_at_the_constraint_and_ends_at_the_lowest_width(axis: SizeAxis) -> None:
    outcome = empty_outcome(min_compression=6.0, size_axis=axis)
    sizes = outcome.footprint
    rungs = ladder(outcome)
    fp32 = sizes.fp32_nominal_bits if axis == "nominal" else sizes.fp32_packed_bytes
    assert rungs[0] == fp32 // 6
    assert rungs == sorted(set(rungs), reverse=True)
    lowest = uniform(sizes.layers, 2)
    assert rungs[-1] == (sizes.nominal_bits(lowest) if axis == "nominal" else sizes.packed_bytes(lowest))
    wider = uniform(sizes.layers, 4)
    last = ladder(replace(outcome, widths=(4, 8)))[-1]
    assert last == (sizes.nominal_bits(wider) if axis == "nominal" else sizes.packed_bytes(wider))
    if axis == "nominal":
        assert [fp32 / rung for rung in rungs] == pytest.approx(
            [6, 6.4, 8, 9.2, 10.665, 11.6, 12.8, 14.2, 16], rel=1e-5
        )


def test_picks_below_the_constraint_ignore_unseen_sentences() -> None:
    """Infeasible maps are not scored on unseen sentences, and could otherwise never be picked."""
    outcome = made_up_outcome()
    checked = with_unseen(outcome, [trial for trial in outcome.trials if trial.feasible])
    assert not pick(outcome, "best@4x").feasible
    assert pick(checked, "best@4x") == pick(outcome, "best@4x")
