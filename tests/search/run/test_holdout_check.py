"""The holdout set: never searched with, scored once at the end, out of date once the search continues."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import numpy as np
import pytest

from objectives.layers import BitMap
from objectives.loading.holdout import split_holdout
from objectives.loading.sentences import load_sentences
from objectives.miniature import Miniature
from objectives.problem import Evaluation, Problem, load_problem
from search.run.holdout_check import check_holdout
from search.run.profile import resolve_profile
from search.run.worker import load_searched_problem
from search.storage.stores import Place
from search.study.holdout_record import holdout_scored_after
from search.study.reading import load_study, outcome
from search.study.study import claim, tell
from search.study.trials import finished
from tests.search.conftest import Command
from tests.search.forks import Search
from tests.search.postgresql import running_server
from tests.search.tiny_problem import TinyProblem


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_share_is_opened_once_at_the_end_and_withdrawn_when_the_search_goes_on(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    where = ("--model", tiny.model, "--data", tiny.data, "--sensitivity", "gradient", "--run", run)
    spoken = bitfront("search", *where, "--confirm", "0.4", "--trials", 14, "--margin", 1)
    assert spoken.status == 0, spoken.err
    said = " ".join(spoken.out.split())
    assert "within 1 MCC of FP32: confirmed on the holdout set." in said and "on 32 holdout sentences." in said
    found = outcome(load_study(run / "study.journal"), "x")
    searched, held = split_holdout(load_sentences(str(tiny.data), "validation"), "0.4")
    assert held is not None
    assert np.array_equal(found.labels, searched.labels)
    assert found.holdout is not None and not found.holdout.withdrawn
    assert np.array_equal(found.holdout.labels, held.labels)
    # Each figure is what the map scores on those sentences.
    everything = load_problem(str(tiny.model), str(tiny.data), quantizer="calibrated")
    texts = list(load_sentences(str(tiny.data), "validation").texts)
    places = [texts.index(text) for text in held.texts]
    for number, log_odds in found.holdout.log_odds.items():
        bit_map = next(trial.bit_map for trial in found.trials if trial.number == number)
        expected = everything.evaluate(bit_map).log_odds[places]
        np.testing.assert_allclose(log_odds, expected, rtol=1e-4, atol=1e-4)
    picks = rows(run / "picks.csv")
    assert picks and all(row["confirmed_mcc"] for row in picks)
    assert "MCC, holdout" in (run / "report.html").read_text(encoding="utf-8")

    again = bitfront("search", "--run", run)  # nothing to search, nothing to open
    assert ": confirmed on the holdout set." in again.out
    assert (run / "search.log").read_text(encoding="utf-8").count("on the holdout set of 32 sentences") == 1

    spoken = bitfront("search", "--run", run, "--trials", 15)
    assert "more maps put its scores out of date" in " ".join(spoken.err.split())
    said = " ".join(spoken.out.split())
    assert "The holdout set was scored after 14 maps, and the search went on: it confirms nothing now." in said
    assert "confirmed on" not in said
    assert holdout_scored_after(load_study(run / "study.journal")) == 14
    assert (run / "search.log").read_text(encoding="utf-8").count("on the holdout set of 32 sentences") == 1
    assert not any(row["confirmed_mcc"] for row in rows(run / "picks.csv"))
    assert "MCC, holdout" not in (run / "report.html").read_text(encoding="utf-8")

    spoken = bitfront("search", "--run", run, "--confirm", "none")  # the holdout set stays
    assert spoken.status == 2
    assert "confirmation was" in " ".join(spoken.err.split())


def test_a_search_that_a_signal_stops_opens_nothing(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    honest = Problem.evaluate

    def evaluate_and_stop(self: Problem, bit_map: BitMap) -> Evaluation:
        signal.raise_signal(signal.SIGTERM)
        return honest(self, bit_map)

    monkeypatch.setattr(Problem, "evaluate", evaluate_and_stop)
    where = ("--model", tiny.model, "--data", tiny.data, "--sensitivity", "gradient", "--run", run)
    spoken = bitfront("search", *where, "--confirm", "0.4", "--trials", 9)
    assert spoken.status == 0, spoken.err
    assert "The holdout set (0.4) is scored when the search ends." in " ".join(spoken.out.split())
    assert holdout_scored_after(load_study(run / "study.journal")) == 0


@pytest.mark.end_to_end
def test_only_the_last_machine_that_searches_opens(tiny: TinyProblem, tmp_path: Path) -> None:
    problem = load_problem(str(tiny.model), str(tiny.data), confirm="0.4")
    with running_server() as server:
        search = Search(Place(tmp_path / "unused", server.url, "shared"), problem)
        store, study = search.open()
        ours, another = search.worker(), search.worker()
        with another.store.exclusive():
            trial, bit_map = claim(another.study, problem.layers)
        with another.store.living(trial):
            assert ours.evaluate_next()
            assert not check_holdout(problem, store, study, outcome(study, "x"))
            tell(another.study, trial, bit_map, problem.evaluate(bit_map), another.constraint, "damage")
        assert holdout_scored_after(study) == 0
        with another.store.exclusive():
            claim(another.study, problem.layers)  # and its machine dies
        assert check_holdout(problem, store, study, outcome(study, "x"))
        assert holdout_scored_after(study) == finished(study) == 2


def test_the_miniature_confirms_on_its_own_held_out_sentences(miniature: Miniature) -> None:
    problem = load_searched_problem(resolve_profile("miniature", {"quantizer": "affine"}), lambda _: None)
    assert problem.holdout is not None
    held = load_sentences(str(miniature.held_out), "validation")
    assert np.array_equal(problem.holdout.labels, held.labels)
    assert "confirmation" in problem.fingerprint
    without = load_searched_problem(
        resolve_profile("miniature", {"quantizer": "affine", "confirm": "none"}), lambda _: None
    )
    assert without.holdout is None
    assert {**without.fingerprint, "confirmation": problem.fingerprint["confirmation"]} == problem.fingerprint
    fp32, [same] = problem.holdout_log_odds([(8,) * len(problem.layers)])
    assert fp32.shape == same.shape == held.labels.shape
