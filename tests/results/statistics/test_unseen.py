"""Unseen sentences: damages of maps, picks by damage, and the search's gain over the knapsack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from objectives.heads import TWO_CLASSES
from results.columns import to_markdown
from results.formatting import nats
from results.outcome import Outcome
from results.plots.unseen import UNSEEN_COLUMNS, unseen_table
from results.report.report import write_report
from results.report.tables import pick_columns, pick_rows, picks_table
from results.report.verdict import AGAINST, verdict_of
from results.statistics.analysis import analyse
from results.statistics.candidates import Candidates
from results.statistics.cross_fitting import corrected_unseen
from results.statistics.picks import pick, rule_of
from results.statistics.unseen import gain_over_knapsack, unseen_damages
from tests.results.synthetic import made_up_outcome, with_trials, with_unseen


def outcome_with_knapsack(luck: float) -> Outcome:
    """Return an outcome whose uniform maps count as the knapsack's, with all maps scored on unseen sentences."""
    outcome = made_up_outcome(trials=60)
    trials = [replace(trial, origin="plain") if trial.origin == "uniform" else trial for trial in outcome.trials]
    return with_unseen(with_trials(outcome, trials), trials, luck=luck)


def test_damages_are_mean_divergences_with_intervals() -> None:
    outcome = outcome_with_knapsack(luck=1.0)
    assert outcome.unseen is not None
    damages = unseen_damages(outcome.unseen, TWO_CLASSES)
    assert set(damages) == set(outcome.unseen.log_odds)
    for number, log_odds in outcome.unseen.log_odds.items():
        assert damages[number].damage == pytest.approx(
            TWO_CLASSES.divergences(log_odds, outcome.unseen.fp32_log_odds).mean()
        )
        assert damages[number].interval.low < damages[number].damage < damages[number].interval.high
    assert unseen_damages(None, TWO_CLASSES) == {}


def test_picks_by_size_go_by_the_damage_on_unseen_sentences() -> None:
    """A map that was lucky on the search's sentences is not picked."""
    outcome = outcome_with_knapsack(luck=1.0)
    assert outcome.unseen is not None
    lucky_pick = pick(replace(outcome, unseen=None), "best@8x")
    scored = dict(outcome.unseen.log_odds)
    scored[lucky_pick.number] = outcome.unseen.fp32_log_odds + 5.0
    corrected_outcome = replace(outcome, unseen=replace(outcome.unseen, log_odds=scored))
    chosen = pick(corrected_outcome, "best@8x")
    assert chosen.number != lucky_pick.number
    damages = unseen_damages(corrected_outcome.unseen, TWO_CLASSES)
    headline = analyse(corrected_outcome).headline("best@8x")
    assert headline is not None and headline.trial is not None and headline.trial.number == chosen.number
    near = [trial for trial in outcome.trials if trial.nominal_compression >= 8 and trial.feasible]
    assert damages[chosen.number].damage <= np.median([damages[trial.number].damage for trial in near])


def test_picks_and_maps_scored_on_unseen_sentences_are_shown_even_off_the_front() -> None:
    outcome = made_up_outcome(quality="mcc")
    some = [trial for trial in outcome.trials if trial.scores is not None and trial.number % 2]
    analysis = analyse(with_unseen(outcome, some))
    shown = {trial.number for trial in analysis.shown}
    assert shown >= analysis.picked.keys() | {trial.number for trial in (*analysis.front, *some)}
    assert not analysis.picked.keys() <= analysis.front_numbers
    assert len(shown) < len(outcome.trials)


def test_maps_not_scored_on_unseen_sentences_are_not_picked() -> None:
    outcome = outcome_with_knapsack(luck=1.0)
    assert outcome.unseen is not None
    lucky_pick = pick(replace(outcome, unseen=None), "best@8x")
    others = {number: scores for number, scores in outcome.unseen.log_odds.items() if number != lucky_pick.number}
    assert pick(replace(outcome, unseen=replace(outcome.unseen, log_odds=others)), "best@8x").number in others


def test_the_gain_distinguishes_skill_from_luck() -> None:
    skilled, lucky = (gain_over_knapsack(outcome_with_knapsack(luck)) for luck in (0.5, 2.0))
    assert skilled is not None and lucky is not None
    assert skilled.interval.high < 1 < lucky.interval.low
    assert skilled.interval.low < skilled.ratio < skilled.interval.high
    assert 1 <= skilled.sizes <= 4
    outcome = made_up_outcome()
    assert gain_over_knapsack(outcome) is None
    assert gain_over_knapsack(with_unseen(outcome, outcome.trials)) is None  # no knapsack to compare with


def outcome_of_equal_maps(seed: int) -> Outcome:
    """Return one knapsack map and sixty of the sampler, all of one size and equally good but for chance."""
    outcome = made_up_outcome(trials=60, seed=seed)
    knapsack = next(trial for trial in outcome.trials if trial.label == "uniform 4")
    same = [replace(knapsack, number=number, origin="sampler", label="") for number in range(100, 160)]
    trials = [replace(knapsack, origin="plain"), *same]
    rng = np.random.default_rng(1000 + seed)
    outcome = with_unseen(with_trials(outcome, trials), trials)
    assert outcome.unseen is not None
    fp32 = outcome.unseen.fp32_log_odds
    noise = {trial.number: fp32 + rng.normal(0, 0.5, fp32.size).astype(np.float32) for trial in trials}
    return replace(outcome, unseen=replace(outcome.unseen, log_odds=noise))


@pytest.mark.end_to_end
def test_choosing_among_many_equal_maps_is_no_gain() -> None:
    """The best of sixty must not look better than the knapsack."""
    ratios = []
    for seed in range(12):
        gain = gain_over_knapsack(outcome_of_equal_maps(seed))
        assert gain is not None
        ratios.append(gain.ratio)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.08)


@pytest.mark.end_to_end
def test_cross_fitting_removes_the_luck_of_a_pick() -> None:
    naive, honest = [], []
    for seed in range(12):
        outcome = outcome_of_equal_maps(seed)
        damages = unseen_damages(outcome.unseen, TWO_CLASSES)
        candidates = Candidates.of(outcome)
        rule = rule_of(outcome, "best@5.5x", candidates)
        [estimate] = corrected_unseen(candidates, outcome.unseen, [rule])
        assert estimate is not None
        typical = np.mean([damage.damage for damage in damages.values()])
        naive.append(damages[pick(outcome, "best@5.5x", candidates).number].damage / typical)
        honest.append(estimate.damage / typical)
        assert estimate.interval.low < estimate.damage < estimate.interval.high
    assert np.mean(naive) < 0.95
    assert np.mean(honest) == pytest.approx(1.0, abs=0.03)


def test_the_unseen_estimate_of_a_single_map_is_its_damage() -> None:
    outcome = outcome_of_equal_maps(0)
    assert outcome.unseen is not None
    alone = with_trials(outcome, [trial for trial in outcome.trials if trial.number == 100])
    only = replace(alone, unseen=replace(outcome.unseen, log_odds={100: outcome.unseen.log_odds[100]}))
    headline = analyse(only).headline("best@5.5x")
    assert headline is not None and headline.unseen is not None
    assert headline.unseen.damage == pytest.approx(unseen_damages(only.unseen, TWO_CLASSES)[100].damage)


def test_tables_show_the_corrected_damage_of_picks_on_unseen_sentences() -> None:
    analysis = analyse(outcome_with_knapsack(luck=1.0))
    headline = analysis.headline("best@8x")
    assert headline is not None and headline.unseen is not None
    table = picks_table(analysis).set_index("pick")
    assert table.loc["best@8x", "corrected_unseen_damage"] == headline.unseen.damage
    assert table.loc["best@8x", "corrected_unseen_damage_low"] == headline.unseen.interval.low
    [cells] = [
        row for row in to_markdown(pick_columns(analysis), pick_rows(analysis)) if row.startswith("| 8x nominal ")
    ]
    assert f"| {nats(headline.unseen.damage)} ({nats(headline.unseen.interval.low)} to " in cells
    without = analyse(made_up_outcome(trials=10))
    assert all(headline.unseen is None for headline in without.headlines)
    assert picks_table(without).corrected_unseen_damage.isna().all()


@pytest.mark.end_to_end
@pytest.mark.usefixtures("unrendered")
def test_the_report_shows_unseen_damage_and_says_which_is_better(tmp_path: Path) -> None:
    outcome = outcome_with_knapsack(luck=2.0)
    analysis = analyse(outcome)
    write_report(analysis, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert " the knapsack is better: " in page
    assert "unseen damage" in page and "damage, unseen, corrected" in page
    assert "unseen damage" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert {"unseen.png", "unseen.svg", "unseen.csv"} <= {path.name for path in tmp_path.iterdir()}
    table = unseen_table(analysis)
    assert tuple(table.columns) == UNSEEN_COLUMNS
    assert table.compression.is_monotonic_increasing
    assert (table.damage_low <= table.damage).all() and (table.damage <= table.damage_high).all()
    better = analyse(outcome_with_knapsack(luck=0.5))
    assert " the search is better: " in dict(verdict_of(better).points)[AGAINST]


@pytest.mark.usefixtures("unrendered")
def test_without_the_check_the_report_does_not_mention_it(tmp_path: Path) -> None:
    write_report(analyse(made_up_outcome(trials=10)), tmp_path)
    assert "unseen damage" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not list(tmp_path.glob("unseen.*"))
