"""The confirmation sentences: never searched with, opened once at the end, worth nothing once the search goes on."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import numpy as np
import pytest

from objectives.confirmation import divide
from objectives.layers import Bits
from objectives.miniature.training import Miniature
from objectives.problem import Evaluation, Problem, load_problem
from objectives.sentences import load_sentences
from search.confirming import open_confirmation
from search.opening import opened_after
from search.profile import resolve_profile
from search.reading import load_study, outcome
from search.storage import Place
from search.study import claim, tell
from search.trials import finished
from search.worker import load_searched_problem
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
    assert "Confirmed. On 32 sentences that no search has seen" in spoken.out
    found = outcome(load_study(run / "study.journal"), "x")
    searched, held = divide(load_sentences(str(tiny.data), "validation"), "0.4")
    assert held is not None
    assert np.array_equal(found.labels, searched.labels)
    assert found.confirmation is not None and not found.confirmation.withdrawn
    assert np.array_equal(found.confirmation.labels, held.labels)
    # Each figure is what the map scores on those sentences.
    everything = load_problem(str(tiny.model), str(tiny.data), quantizer="calibrated")
    texts = list(load_sentences(str(tiny.data), "validation").texts)
    places = [texts.index(text) for text in held.texts]
    for number, log_odds in found.confirmation.log_odds.items():
        bits = next(trial.bits for trial in found.trials if trial.number == number)
        expected = everything.evaluate(bits).log_odds[places]
        np.testing.assert_allclose(log_odds, expected, rtol=1e-4, atol=1e-4)
    picks = rows(run / "picks.csv")
    assert picks and all(row["confirmed_mcc"] for row in picks)
    assert "MCC, confirmed" in (run / "report.html").read_text(encoding="utf-8")

    again = bitfront("search", "--run", run)  # nothing to search, nothing to open
    assert "Confirmed." in again.out
    assert (run / "search.log").read_text(encoding="utf-8").count("opening 32 confirmation sentences") == 1

    spoken = bitfront("search", "--run", run, "--trials", 15)
    assert "more maps withdraw what they confirm" in " ".join(spoken.err.split())
    assert "Not confirmed any more." in spoken.out
    assert "Confirmed." not in spoken.out
    assert opened_after(load_study(run / "study.journal")) == 14
    assert (run / "search.log").read_text(encoding="utf-8").count("opening 32 confirmation sentences") == 1
    assert not any(row["confirmed_mcc"] for row in rows(run / "picks.csv"))
    assert "MCC, confirmed" not in (run / "report.html").read_text(encoding="utf-8")

    spoken = bitfront("search", "--run", run, "--confirm", "none")  # what was held back stays held back
    assert spoken.status == 2
    assert "confirmation was" in " ".join(spoken.err.split())


def test_a_search_that_a_signal_stops_opens_nothing(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    honest = Problem.evaluate

    def stopping(self: Problem, bits: Bits) -> Evaluation:
        signal.raise_signal(signal.SIGTERM)
        return honest(self, bits)

    monkeypatch.setattr(Problem, "evaluate", stopping)
    where = ("--model", tiny.model, "--data", tiny.data, "--sensitivity", "gradient", "--run", run)
    spoken = bitfront("search", *where, "--confirm", "0.4", "--trials", 9)
    assert spoken.status == 0, spoken.err
    assert "Not confirmed yet." in spoken.out
    assert opened_after(load_study(run / "study.journal")) == 0


@pytest.mark.end_to_end
def test_only_the_last_machine_that_searches_opens(tiny: TinyProblem, tmp_path: Path) -> None:
    problem = load_problem(str(tiny.model), str(tiny.data), confirm="0.4")
    with running_server() as server:
        search = Search(Place(tmp_path / "unused", server.url, "shared"), problem)
        store, study = search.open()
        ours, another = search.worker(), search.worker()
        with another.store.exclusive():
            trial, bits = claim(another.study, problem.layers)
        with another.store.living(trial):
            assert ours.evaluate_next()
            assert not open_confirmation(problem, store, study, outcome(study, "x"))
            tell(another.study, trial, bits, problem.evaluate(bits), another.constraint, "damage")
        assert opened_after(study) == 0
        with another.store.exclusive():
            claim(another.study, problem.layers)  # and its machine dies
        assert open_confirmation(problem, store, study, outcome(study, "x"))
        assert opened_after(study) == finished(study) == 2


def test_the_miniature_confirms_on_its_own_held_out_sentences(miniature: Miniature) -> None:
    problem = load_searched_problem(resolve_profile("miniature", {"quantizer": "affine"}), lambda _: None)
    assert problem.confirmation is not None
    held = load_sentences(str(miniature.held_out), "validation")
    assert np.array_equal(problem.confirmation.labels, held.labels)
    assert "confirmation" in problem.fingerprint
    without = load_searched_problem(
        resolve_profile("miniature", {"quantizer": "affine", "confirm": "none"}), lambda _: None
    )
    assert without.confirmation is None
    assert {**without.fingerprint, "confirmation": problem.fingerprint["confirmation"]} == problem.fingerprint
    fp32, [same] = problem.confirmed_log_odds([(8,) * len(problem.layers)])
    assert fp32.shape == same.shape == held.labels.shape
