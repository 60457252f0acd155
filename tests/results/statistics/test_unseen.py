"""What maps do on unseen sentences: damages, picks by them, and what the search is worth against plain allocation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from objectives.scores import divergences
from results.columns import to_markdown
from results.formatting import nats
from results.outcome import Outcome
from results.plots.unseen import UNSEEN_COLUMNS, unseen_table
from results.report.report import write_report
from results.report.summary import lead_lines, unseen_lead
from results.report.tables import pick_columns, pick_rows, picks_table
from results.statistics.analysis import analyse
from results.statistics.candidates import Candidates
from results.statistics.cross_fitting import corrected_unseen
from results.statistics.picks import pick, rule_of
from results.statistics.unseen import gain_over_knapsack, unseen_damages
from tests.results.synthetic import made_up_outcome, with_trials, with_unseen


def outcome_with_plain(luck: float, sampled: int = 60) -> Outcome:
    """Return an outcome whose uniform maps count as plain allocations, all maps scored on unseen sentences."""
    found = made_up_outcome(trials=sampled)
    trials = [replace(trial, origin="plain") if trial.origin == "uniform" else trial for trial in found.trials]
    return with_unseen(with_trials(found, trials), trials, luck=luck)


def test_damages_are_means_over_the_sentences_within_their_intervals() -> None:
    outcome = outcome_with_plain(luck=1.0)
    assert outcome.unseen is not None
    known = unseen_damages(outcome.unseen)
    assert set(known) == set(outcome.unseen.log_odds)
    for number, log_odds in outcome.unseen.log_odds.items():
        assert known[number].damage == pytest.approx(divergences(log_odds, outcome.unseen.fp32_log_odds).mean())
        assert known[number].interval.low < known[number].damage < known[number].interval.high
    assert unseen_damages(None) == {}


def test_picks_by_size_go_by_the_damage_on_unseen_sentences() -> None:
    """A map that was lucky on the search's sentences gives way to the one that is best on others."""
    outcome = outcome_with_plain(luck=1.0)
    assert outcome.unseen is not None
    believed = pick(replace(outcome, unseen=None), "best@8x")
    scored = dict(outcome.unseen.log_odds)
    scored[believed.number] = outcome.unseen.fp32_log_odds + 5.0
    disproved = replace(outcome, unseen=replace(outcome.unseen, log_odds=scored))
    chosen = pick(disproved, "best@8x")
    assert chosen.number != believed.number
    known = unseen_damages(disproved.unseen)
    headline = analyse(disproved).headline("best@8x")
    assert headline is not None and headline.trial is not None and headline.trial.number == chosen.number
    near = [trial for trial in outcome.trials if trial.nominal_compression >= 8 and trial.feasible]
    assert known[chosen.number].damage <= np.median([known[trial.number].damage for trial in near])


def test_what_is_picked_or_scored_there_is_shown_also_off_the_front() -> None:
    outcome = made_up_outcome(quality="mcc")
    some = [trial for trial in outcome.trials if trial.scores is not None and trial.number % 2]
    found = analyse(with_unseen(outcome, some))
    shown = {trial.number for trial in found.shown}
    assert shown >= found.picked.keys() | {trial.number for trial in (*found.front, *some)}
    assert not found.picked.keys() <= found.front_numbers
    assert len(shown) < len(outcome.trials)


def test_less_damage_than_the_documented_map_is_told_of_unseen_sentences() -> None:
    """However little damage the smallest maps do on sentences that they were chosen by."""
    outcome = made_up_outcome()
    complete = [trial for trial in outcome.trials if trial.scores is not None]

    def lead(luck: float) -> str:
        lines = lead_lines(analyse(with_unseen(outcome, complete, sentences=2000, luck=luck)))
        [told] = [words for _, words in lines if words.startswith("The documented map has")]
        return told

    assert "on unseen sentences" in lead(1.0)
    found = analyse(with_unseen(outcome, complete, sentences=2000, luck=3.0))
    reference, known = found.reference, found.unseen
    assert reference is not None
    as_good = [
        trial
        for trial in complete
        if trial.feasible
        and trial.nominal_compression > reference.nominal_compression
        and known[trial.number].damage <= known[reference.number].damage
    ]
    smallest = max(as_good, key=lambda trial: trial.nominal_compression)
    assert f"{smallest.label} has damage {nats(known[smallest.number].damage)}" in lead(3.0)


def test_maps_that_were_not_scored_there_are_not_picked() -> None:
    outcome = outcome_with_plain(luck=1.0)
    assert outcome.unseen is not None
    believed = pick(replace(outcome, unseen=None), "best@8x")
    others = {number: scores for number, scores in outcome.unseen.log_odds.items() if number != believed.number}
    assert pick(replace(outcome, unseen=replace(outcome.unseen, log_odds=others)), "best@8x").number in others


def test_the_gain_tells_skill_from_luck() -> None:
    skilled, lucky = (gain_over_knapsack(outcome_with_plain(luck)) for luck in (0.5, 2.0))
    assert skilled is not None and lucky is not None
    assert skilled.interval.high < 1 < lucky.interval.low
    assert skilled.interval.low < skilled.ratio < skilled.interval.high
    assert 1 <= skilled.sizes <= 4
    found = made_up_outcome()
    assert gain_over_knapsack(found) is None
    assert gain_over_knapsack(with_unseen(found, found.trials)) is None  # nothing plain to compare with


def outcome_of_equal_maps(seed: int) -> Outcome:
    """Return one plain allocation and sixty maps of the sampler, of one size and one damage but for chance."""
    found = made_up_outcome(trials=60, seed=seed)
    rival = next(trial for trial in found.trials if trial.label == "uniform 4")
    same = [replace(rival, number=number, origin="sampler", label="") for number in range(100, 160)]
    trials = [replace(rival, origin="plain"), *same]
    rng = np.random.default_rng(1000 + seed)
    outcome = with_unseen(with_trials(found, trials), trials)
    assert outcome.unseen is not None
    fp32 = outcome.unseen.fp32_log_odds
    noise = {trial.number: fp32 + rng.normal(0, 0.5, fp32.size).astype(np.float32) for trial in trials}
    return replace(outcome, unseen=replace(outcome.unseen, log_odds=noise))


def test_choosing_among_many_equal_maps_is_no_gain() -> None:
    """The best of sixty must not look better than the one rival."""
    ratios = []
    for seed in range(12):
        gain = gain_over_knapsack(outcome_of_equal_maps(seed))
        assert gain is not None
        ratios.append(gain.ratio)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.08)


def test_the_luck_of_a_pick_is_taken_out() -> None:
    naive, honest = [], []
    for seed in range(12):
        outcome = outcome_of_equal_maps(seed)
        known = unseen_damages(outcome.unseen)
        candidates = Candidates.of(outcome)
        rule = rule_of(outcome, "best@5.5x", candidates)
        [found] = corrected_unseen(candidates, outcome.unseen, [rule])
        assert found is not None
        typical = np.mean([damage.damage for damage in known.values()])
        naive.append(known[pick(outcome, "best@5.5x", candidates).number].damage / typical)
        honest.append(found.damage / typical)
        assert found.interval.low < found.damage < found.interval.high
    assert np.mean(naive) < 0.95
    assert np.mean(honest) == pytest.approx(1.0, abs=0.03)


def test_one_map_does_on_unseen_sentences_what_it_does() -> None:
    outcome = outcome_of_equal_maps(0)
    assert outcome.unseen is not None
    alone = with_trials(outcome, [trial for trial in outcome.trials if trial.number == 100])
    only = replace(alone, unseen=replace(outcome.unseen, log_odds={100: outcome.unseen.log_odds[100]}))
    headline = analyse(only).headline("best@5.5x")
    assert headline is not None and headline.unseen is not None
    assert headline.unseen.damage == pytest.approx(unseen_damages(only.unseen)[100].damage)


def test_what_picks_do_on_unseen_sentences_is_told_corrected() -> None:
    found = analyse(outcome_with_plain(luck=1.0))
    headline = found.headline("best@8x")
    assert headline is not None and headline.unseen is not None
    table = picks_table(found).set_index("pick")
    assert table.loc["best@8x", "corrected_unseen_damage"] == headline.unseen.damage
    assert table.loc["best@8x", "corrected_unseen_damage_low"] == headline.unseen.interval.low
    [cells] = [row for row in to_markdown(pick_columns(found), pick_rows(found)) if row.startswith("| 8x or more ")]
    assert f"| {nats(headline.unseen.damage)} ({nats(headline.unseen.interval.low)} to " in cells
    without = analyse(made_up_outcome(trials=10))
    assert all(headline.unseen is None for headline in without.headlines)
    assert picks_table(without).corrected_unseen_damage.isna().all()


@pytest.mark.usefixtures("unrendered")
def test_the_report_shows_them_and_says_which_is_better(tmp_path: Path) -> None:
    outcome = outcome_with_plain(luck=2.0)
    found = analyse(outcome)
    write_report(found, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The knapsack beats the search." in page
    assert "damage, unseen" in page and "damage, unseen, corrected" in page and 'id="unseen-plot"' in page
    assert "damage, unseen" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert {"unseen.png", "unseen.svg", "unseen.csv"} <= {path.name for path in tmp_path.iterdir()}
    table = unseen_table(found)
    assert tuple(table.columns) == UNSEEN_COLUMNS
    assert table.compression.is_monotonic_increasing
    assert (table.damage_low <= table.damage).all() and (table.damage <= table.damage_high).all()
    assert [claim for claim, _ in unseen_lead(found)] == ["The knapsack beats the search"]
    better = unseen_lead(analyse(outcome_with_plain(luck=0.5)))
    assert [claim for claim, _ in better] == ["The search beats the knapsack"]


@pytest.mark.usefixtures("unrendered")
def test_without_the_check_nothing_speaks_of_it(tmp_path: Path) -> None:
    write_report(analyse(made_up_outcome(trials=10)), tmp_path)
    assert "damage, unseen" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not list(tmp_path.glob("unseen.*"))
