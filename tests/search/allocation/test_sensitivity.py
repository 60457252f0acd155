from pathlib import Path

import numpy as np
import pytest

from objectives.errors import InputError
from objectives.evaluation.evaluator import Evaluator
from objectives.layers import WIDTHS
from objectives.problem import Problem
from objectives.quantization.bank import FP32_WIDTH
from objectives.scores import LogOdds
from search.allocation.sensitivity import MEASURED_WIDTHS, Sensitivities, measure, passes_to_measure


def test_each_layer_alone_is_measured_and_kept(problem: Problem, tmp_path: Path) -> None:
    progress: list[tuple[str, int, int, float | None]] = []

    def passes() -> float:
        return passes_to_measure(problem, problem.fingerprint, tmp_path, "measured", WIDTHS)

    shares = sum(problem.evaluator.share_above(index) for index in range(len(problem.layers)))
    assert passes() == pytest.approx(12 + len(MEASURED_WIDTHS) * shares)
    sensitivities = measure(problem, tmp_path, report_progress=lambda *step: progress.append(step))
    assert sensitivities is not None
    assert passes() == 0
    n_layers = len(problem.layers)
    total = len(MEASURED_WIDTHS) * n_layers
    gradients = [step for step in progress if step[0] == "sensitivities by gradients, batches"]
    batches = len(gradients)
    assert [step[1:3] for step in gradients] == [(done, batches) for done in range(batches)]
    assert [left_s is None for *_, left_s in gradients] == [done < 2 for done in range(batches)] and batches > 2
    measuring = progress[len(gradients) :]
    assert [step[:3] for step in measuring] == [("measuring sensitivities", done, total) for done in (0, *range(total))]
    assert [left_s is None for *_, left_s in measuring] == [True, True, *[False] * (total - 1)]
    for width in WIDTHS:
        assert (sensitivities.measured[:, WIDTHS.index(width)] == (width in MEASURED_WIDTHS)).all()
    for index in (0, 5, n_layers - 1):
        bit_map = tuple(3 if other == index else FP32_WIDTH for other in range(n_layers))
        alone = problem.evaluator.log_odds(bit_map) - problem.fp32_log_odds
        assert np.array_equal(sensitivities.shifts[index, WIDTHS.index(3)], alone)
    assert (np.diff(sensitivities.damages, axis=1) <= 0).all()
    progress.clear()
    again = measure(problem, tmp_path, report_progress=lambda *step: progress.append(step))
    assert again is not None
    assert not progress  # nothing was measured twice
    assert np.array_equal(again.shifts, sensitivities.shifts)


def test_only_the_widths_of_the_run_are_measured(problem: Problem, tmp_path: Path) -> None:
    progress: list[int] = []
    some = measure(problem, tmp_path, report_progress=lambda *step: progress.append(step[2]), widths=(3, 4, 8))
    assert some is not None
    assert progress[-1] == len(problem.layers)
    assert some.measured.tolist() == [[True, False, False]] * len(problem.layers)
    every = measure(problem, tmp_path)  # goes on with 2 bits
    assert every is not None
    assert np.array_equal(every.shifts[:, [1, 2, 6]], some.shifts)
    assert some.damages.shape == (len(problem.layers), 3)


@pytest.mark.parametrize("answers", [[False] * 200, [False] * 4 + [True]])
def test_hidden_states_are_forgotten_after_the_measurement(
    problem: Problem, tmp_path: Path, answers: list[bool]
) -> None:
    measure(problem, tmp_path, source="gradient")
    asked = iter(answers)
    kept = []

    def should_stop() -> bool:
        kept.append(len(problem.evaluator._states))
        return next(asked)

    measure(problem, tmp_path, should_stop=should_stop)
    assert all(kept)
    assert not problem.evaluator._states


def test_the_gradient_gives_every_width_without_an_evaluation(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = measure(problem, tmp_path)
    monkeypatch.delattr(Evaluator, "log_odds")
    for cache in (tmp_path, tmp_path / "another"):  # what was measured does not get in its way
        sensitivities = measure(problem, cache, source="gradient")
        assert sensitivities is not None
        assert measured is not None
        assert not sensitivities.measured.any()
        fine = slice(WIDTHS.index(4), None)
        assert np.array_equal(sensitivities.shifts[:, fine], measured.shifts[:, fine])
        assert not np.array_equal(sensitivities.shifts, measured.shifts)


def test_an_interrupted_measurement_says_what_is_kept_and_goes_on(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="bitfront")
    honest = Evaluator.log_odds
    calls = 0

    def tiring(self: Evaluator, bit_map: tuple[int, ...], remember: bool = False) -> LogOdds:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return honest(self, bit_map, remember)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "log_odds", tiring)
        with pytest.raises(KeyboardInterrupt):
            measure(problem, tmp_path)
    total = len(MEASURED_WIDTHS) * len(problem.layers)
    assert caplog.messages[-1] == f"10 of {total} sensitivities are measured and kept"
    progress: list[int] = []
    measure(problem, tmp_path, report_progress=lambda step, done, *_: progress.append(done))
    assert progress[:2] == [10, 10]


def test_each_sensitivity_is_saved_before_the_next_where_saving_is_quick(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.allocation.sensitivity._SAVE_EVERY_S", 0.0)
    monkeypatch.setattr("search.allocation.sensitivity._SAVE_SHARE", float("inf"))
    measure(problem, tmp_path, source="gradient")
    (path,) = tmp_path.glob("*.npz")
    saved: list[tuple[int, int]] = []

    def look(step: str, done: int, total: int, left_s: float | None) -> None:
        with np.load(path) as stored:
            saved.append((done, int(stored["measured"].sum())))

    measure(problem, tmp_path, report_progress=look)
    assert all(done == stored for done, stored in saved) and saved[-1][0] > 1


def test_the_work_of_a_layer_alone_is_what_lies_above_it(problem: Problem) -> None:
    shares = [problem.evaluator.share_above(index) for index in range(len(problem.layers))]
    blocks = problem.evaluator._forward.n_boundaries
    assert shares[:9] == [1.0] * 9  # the embeddings and the lowest encoder layer
    assert shares == sorted(shares, reverse=True) and shares[-1] == pytest.approx(1 / blocks)


def test_two_searches_of_one_problem_share_what_each_measures(problem: Problem, tmp_path: Path) -> None:
    answers = iter([False] * 3 + [True])
    other: list[Sensitivities | None] = []

    def overtaken() -> bool:
        stop = next(answers)
        if stop:
            other.append(measure(problem, tmp_path))  # the other search is done with all of it meanwhile
        return stop

    assert measure(problem, tmp_path, should_stop=overtaken) is None
    assert other[0] is not None
    progress: list[str] = []
    again = measure(problem, tmp_path, report_progress=lambda step, *_: progress.append(step))
    assert not progress  # nothing was lost
    assert again is not None and np.array_equal(again.shifts, other[0].shifts)


def test_a_stop_keeps_what_was_measured(problem: Problem, tmp_path: Path) -> None:
    assert measure(problem, tmp_path, should_stop=lambda: True) is None
    assert list(tmp_path.iterdir()) == []
    measure(problem, tmp_path, source="gradient")
    answers = iter([False] * 4 + [True])
    assert measure(problem, tmp_path, should_stop=lambda: next(answers)) is None
    progress: list[int] = []
    measure(problem, tmp_path, report_progress=lambda step, done, *_: progress.append(done))
    assert progress[1] == 4


def test_damages_are_made_to_fall_with_the_width() -> None:
    fp32 = np.zeros(5, dtype=np.float32)
    shifts = np.zeros((1, len(WIDTHS), 5), dtype=np.float32)
    shifts[0, :4] = np.array([0.4, 0.1, 0.2, 0.05], dtype=np.float32)[:, None]
    damages = Sensitivities.from_shifts(shifts, np.zeros((1, len(WIDTHS)), dtype=np.bool_), fp32).damages[0]
    assert damages[0] == pytest.approx(0.4**2 / 8, rel=0.02)
    assert damages[1] == damages[2] == pytest.approx(0.2**2 / 8, rel=0.02)
    assert (damages[4:] == 0).all()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not an archive"])
def test_damaged_files_are_refused(problem: Problem, tmp_path: Path, content: bytes) -> None:
    measure(problem, tmp_path, source="gradient")
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(content)
    with pytest.raises(InputError, match="delete it"):
        measure(problem, tmp_path)


@pytest.mark.parametrize("fault", ["shape", "missing", "nan", "type", "pickle"])
def test_files_of_other_content_are_refused(problem: Problem, tmp_path: Path, fault: str) -> None:
    measure(problem, tmp_path, source="gradient")
    (path,) = tmp_path.glob("*.npz")
    with np.load(path) as stored:
        arrays = dict(stored)
    match fault:
        case "shape":
            arrays["shifts"] = arrays["shifts"][:-1]
        case "missing":
            del arrays["measured"]
        case "nan":
            arrays["gradient"][0, 0, 0] = np.nan
        case "type":
            arrays["shifts"] = arrays["shifts"].astype(np.float64)
        case "pickle":
            arrays["measured"] = arrays["measured"].astype(object)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="delete it"):
        measure(problem, tmp_path)


def test_a_layer_without_finite_scores_gets_a_large_damage(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = Evaluator.log_odds

    def overflowing(self: Evaluator, bit_map: tuple[int, ...], remember: bool = False) -> LogOdds:
        log_odds = honest(self, bit_map, remember)
        return np.full_like(log_odds, np.nan) if bit_map[3] == 2 else log_odds

    monkeypatch.setattr(Evaluator, "log_odds", overflowing)
    for _ in range(2):  # measured, and out of the cache
        sensitivities = measure(problem, tmp_path)
        assert sensitivities is not None
        assert np.isfinite(sensitivities.shifts).all()
        assert sensitivities.damages[3, WIDTHS.index(2)] > 5
        assert (sensitivities.damages[:3] < 5).all()
    assert [record.getMessage() for record in caplog.records] == [
        f"{problem.layers[3].name} at 2 bits alone: outputs are not finite; counted as a reversed answer"
    ]
