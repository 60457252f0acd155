"""The check on unseen sentences at the end of a search."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import optuna
import pytest

from objectives.loading.sentences import load_sentences
from objectives.problem import Problem, load_problem
from objectives.training_sentences import distillation_sentences, unseen_sentences
from results.statistics.analysis import select
from results.statistics.unseen import unseen_damages
from search.cli.status import status_lines
from search.run.run_directory import RunDirectory
from search.run.unseen_check import _by_need, check_on_unseen, needed_by_picks, unseen_candidates
from search.study.reading import load_study, outcome
from tests.results.synthetic import made_up_outcome
from tests.search.conftest import ROOMY_SENTENCES, Command, Spoken
from tests.search.tiny_problem import TinyProblem


@pytest.fixture(scope="module")
def roomy_problem(roomy: TinyProblem) -> Problem:
    return load_problem(str(roomy.model), str(roomy.data))


def test_unseen_sentences_are_others_than_those_that_are_searched_with(
    roomy: TinyProblem, roomy_problem: Problem, tmp_path: Path
) -> None:
    searched = {tuple(tokens) for tokens in roomy_problem.token_ids}
    everything = unseen_sentences(roomy_problem, 1000)
    assert 0.8 * ROOMY_SENTENCES <= len(everything) <= ROOMY_SENTENCES
    assert not searched & {tuple(tokens) for tokens in everything}
    assert unseen_sentences(roomy_problem, 10) == everything[:10]
    # Distillation learns from the others, each of them once, and from those of a file.
    texts = tmp_path / "texts.csv"
    texts.write_text("sentence\nbig red dog\nbig red dog\n", encoding="utf-8")
    more = {tuple(ids) for ids in roomy_problem.classifier.encode(["big red dog"]).ids}
    half = len(everything) // 2
    for unseen, text, kept in ((0, None, 0), (10, None, 10), (10, texts, 10), (1000, None, half)):
        sentences, unseen_ids = distillation_sentences(roomy_problem, unseen, text)
        trained = [tuple(tokens) for tokens in sentences.token_ids]
        assert len(set(trained)) == len(trained)
        assert unseen_ids == everything[:kept]
        assert set(trained) == {tuple(tokens) for tokens in everything[kept:]} | (more if text else set())
    held = load_problem(str(roomy.model), str(roomy.data), confirm="0.3")
    assert held.holdout is not None
    assert not {tuple(tokens) for tokens in held.holdout.token_ids} & {
        tuple(tokens) for tokens in unseen_sentences(held, 1000)
    }


def searched(bitfront: Command, roomy: TinyProblem, run: Path, *arguments: object) -> Spoken:
    """Begin a run that is quick."""
    where = ("--model", roomy.model, "--data", roomy.data, "--quantizer", "affine", "--sensitivity", "gradient")
    return bitfront("search", *where, "--run", run, *arguments)


def test_a_search_ends_with_its_best_maps_scored_on_unseen_sentences(
    roomy: TinyProblem, roomy_problem: Problem, bitfront: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = searched(bitfront, roomy, run, "--trials", 24, "--unseen", 20)
    assert result.status == 0, result.err
    said = " ".join(result.out.split())
    assert "on 20 unseen sentences; " in said and ": searched maps do " in said
    found = outcome(load_study(run / "study.journal"), "run")
    assert found.unseen is not None
    assert {trial.number for trial in found.trials if trial.origin == "uniform" and trial.feasible} <= set(
        found.unseen.log_odds
    )
    # Each figure is what the map does there.
    evaluator = roomy_problem.evaluator_on(unseen_sentences(roomy_problem, 20))
    np.testing.assert_allclose(found.unseen.fp32_log_odds, evaluator.fp32_log_odds(), atol=1e-5)
    known = unseen_damages(found.unseen, found.head)
    for trial in found.trials:
        if trial.number in known:
            log_odds = evaluator.log_odds(trial.bit_map)
            np.testing.assert_allclose(found.unseen.log_odds[trial.number], log_odds, atol=1e-5)
    assert "damage, unseen" in (run / "report.html").read_text(encoding="utf-8")

    def scorings() -> int:
        return (run / "search.log").read_text(encoding="utf-8").count("training sentences that the search did not see")

    assert scorings() == 1
    bitfront("search", "--run", run)
    assert scorings() == 1  # all are known
    bitfront("search", "--run", run, "--unseen", 10)
    assert scorings() == 2  # other sentences: all of them anew
    again = outcome(load_study(run / "study.journal"), "run").unseen
    assert again is not None and again.fp32_log_odds.size == 10


def recorded_scores(study: optuna.Study) -> dict[str, object]:
    """Return what is recorded of maps on unseen sentences, also of a check that was broken off."""
    return {key: value for key, value in study.user_attrs.items() if key.startswith("unseen scores")}


def test_what_is_interrupted_goes_on_where_it_was(
    roomy: TinyProblem, roomy_problem: Problem, bitfront: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    searched(bitfront, roomy, run, "--trials", 20, "--unseen", 0)
    study = load_study(run / "study.journal")
    found = outcome(study, "run")
    assert found.unseen is None
    answers = iter([False, False, True])
    check_on_unseen(roomy_problem, study, found, 20, should_stop=lambda: next(answers))
    broken_off = outcome(study, "run")
    assert broken_off.unseen is None  # half of them would be compared with maps that are not there
    assert broken_off.unscored > 0
    assert any("still to be scored" in line for line in status_lines(RunDirectory(run)))
    part = recorded_scores(study)
    assert len(part) == 2
    asked = count()
    check_on_unseen(roomy_problem, study, found, 20, should_stop=lambda: next(asked) < 0)
    whole = outcome(study, "run").unseen
    assert whole is not None and len(whole.log_odds) == next(asked) + 2
    assert len(recorded_scores(study)) == len(whole.log_odds) and part.items() <= recorded_scores(study).items()
    assert broken_off.unscored == len(whole.log_odds) - 2 and not outcome(study, "run").unscored
    # On other sentences all begins anew.
    check_on_unseen(roomy_problem, study, found, 10, should_stop=lambda: True)
    assert outcome(study, "run").unseen is None and outcome(study, "run").unscored
    check_on_unseen(roomy_problem, study, found, 0, should_stop=lambda: True)
    assert not outcome(study, "run").unscored  # nobody wants it any more


def test_what_picks_and_verdict_need_is_scored_first_and_counts_without_the_others(
    roomy: TinyProblem, roomy_problem: Problem, bitfront: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    searched(bitfront, roomy, run, "--trials", 30, "--unseen", 0)
    study = load_study(run / "study.journal")
    found = outcome(study, "run")
    selection = select(found)
    wanted = {trial.number for trial in unseen_candidates(selection)}
    needed = needed_by_picks(selection) & wanted
    assert needed < wanted
    # Too late for all that the picks need: nothing counts.
    asked = count()
    waiting = check_on_unseen(
        roomy_problem, study, found, 20, should_stop=lambda: False, is_late=lambda: next(asked) > 1
    )
    half = outcome(study, "run")
    assert half.unseen is None and half.unscored == len(waiting) == len(wanted) - 2
    assert {int(key.split()[-1]) for key in recorded_scores(study)} < needed

    # Late as soon as they are scored: they count, and each knapsack map among them has its rival.
    def is_late() -> bool:
        return len(needed) <= len(recorded_scores(study))

    waiting = check_on_unseen(roomy_problem, study, found, 20, should_stop=lambda: False, is_late=is_late)
    part = outcome(study, "run")
    assert part.unseen is not None and not part.unscored
    assert needed <= set(part.unseen.log_odds) == wanted - {trial.number for trial in waiting}
    # The next start completes them.
    assert not check_on_unseen(roomy_problem, study, part, 20, should_stop=lambda: False)
    whole = outcome(study, "run").unseen
    assert whole is not None and set(whole.log_odds) == wanted


def test_a_pair_that_the_verdict_compares_is_scored_together() -> None:
    found = made_up_outcome(trials=60)
    found = replace(
        found,
        trials=tuple(replace(trial, origin="plain") if trial.origin == "uniform" else trial for trial in found.trials),
    )
    selection = select(found)
    trials = unseen_candidates(selection)
    needed, *others = _by_need(selection, trials)
    assert sorted(trial.number for group in (needed, *others) for trial in group) == [trial.number for trial in trials]
    assert needed_by_picks(selection) & {trial.number for trial in trials} <= {trial.number for trial in needed}
    done: set[int] = set()
    for group in (needed, *others):
        done |= {trial.number for trial in group}
        for knapsack in (trial for trial in selection.baselines if trial.number in done):
            within = [
                trial
                for trial in trials
                if trial.origin == "sampler" and trial.nominal_compression >= knapsack.nominal_compression
            ]
            if within:
                assert min(within, key=lambda trial: trial.nominal_compression).number in done


def test_what_was_scored_before_the_search_went_on_says_so(
    roomy: TinyProblem, roomy_problem: Problem, bitfront: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    searched(bitfront, roomy, run, "--trials", 20, "--unseen", 20)
    before = outcome(load_study(run / "study.journal"), "run").unseen
    assert before is not None and not before.outdated
    bitfront("search", "--run", run, "--trials", 24, "--unseen", 0)
    study = load_study(run / "study.journal")
    between = outcome(study, "run").unseen
    assert between is not None and between.outdated and between.trials == 20
    check_on_unseen(roomy_problem, study, outcome(study, "run"), 20, should_stop=lambda: False)
    after = outcome(study, "run").unseen
    assert after is not None and not after.outdated and after.trials == 24


def test_what_fp32_scores_is_recorded_again_where_only_that_is_lost(
    roomy: TinyProblem, roomy_problem: Problem, bitfront: Command, tmp_path: Path
) -> None:
    searched(bitfront, roomy, tmp_path / "run", "--trials", 12, "--unseen", 20)
    journal = tmp_path / "run" / "study.journal"
    whole = outcome(load_study(journal), "run").unseen
    lines = journal.read_bytes().splitlines(keepends=True)
    lost = next(at for at, line in enumerate(lines) if b'"unseen sentences"' in line)
    journal.write_bytes(b"".join(lines[:lost]))
    study = load_study(journal)
    found = outcome(study, "run")
    assert found.unseen is None
    check_on_unseen(roomy_problem, study, found, 20, should_stop=lambda: True)  # no map is scored anew
    again = outcome(study, "run").unseen
    assert whole is not None and again is not None
    assert np.array_equal(again.fp32_log_odds, whole.fp32_log_odds)
    assert set(again.log_odds) == set(whole.log_odds)


def test_without_other_sentences_the_search_says_so_and_ends_well(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    assert set(load_sentences(str(tiny.data), "train").texts) <= set(load_sentences(str(tiny.data), "validation").texts)
    run = tmp_path / "run"
    where = ("--model", tiny.model, "--data", tiny.data, "--quantizer", "affine", "--sensitivity", "gradient")
    result = bitfront("search", *where, "--run", run, "--trials", 10)
    assert result.status == 0
    assert "not checked on unseen sentences" in " ".join(result.err.split())


def test_the_maps_scored_are_those_of_least_expected_damage_not_of_most_luck() -> None:
    found = made_up_outcome(trials=60)
    sampled = [trial for trial in found.trials if trial.origin == "sampler" and trial.feasible and trial.scores]
    lucky = min(sampled, key=lambda trial: trial.scores.damage if trial.scores else 0.0)
    expected = {trial.bit_map: 1.0 / trial.number for trial in sampled}  # the later, the better

    numbers = {trial.number for trial in unseen_candidates(select(found), lambda bit_map, log_odds: expected[bit_map])}
    assert max(trial.number for trial in sampled) in numbers
    assert set(select(found).picked) <= numbers
    assert lucky.number in {trial.number for trial in unseen_candidates(select(found))}
