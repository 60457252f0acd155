from pathlib import Path

import numpy as np
import pytest

from objectives.bank import FP32_WIDTH
from objectives.errors import InputError
from objectives.evaluate import Evaluator
from objectives.layers import WIDTHS
from objectives.problem import Problem
from objectives.scores import LogOdds, divergences
from search.sensitivity import MEASURED_WIDTHS, complete, measure, read_measured, to_csv
from tests.objectives.example_layers import LAYERS


def test_each_layer_alone_is_measured_and_kept(problem: Problem, tmp_path: Path) -> None:
    shown: list[tuple[int, int]] = []
    found = measure(problem, tmp_path, show=lambda done, wanted: shown.append((done, wanted)))
    assert found is not None
    n_layers = len(problem.layers)
    assert shown == [(done, 3 * n_layers) for done in range(3 * n_layers)]
    assert found.measured.sum() == 3 * n_layers
    for index in (0, 5, n_layers - 1):
        bits = tuple(3 if other == index else FP32_WIDTH for other in range(n_layers))
        alone = float(np.mean(divergences(problem.evaluator.log_odds(bits), problem.fp32_log_odds)))
        assert found.damages[index, WIDTHS.index(3)] >= alone  # raised where 4 bits happened to hurt more
    assert (np.diff(found.damages, axis=1) <= 0).all()
    again = measure(problem, tmp_path, show=lambda done, wanted: shown.append((done, wanted)))
    assert again is not None
    assert len(shown) == 3 * n_layers  # nothing was measured twice
    assert np.array_equal(again.damages, found.damages)


def test_an_interrupted_measurement_goes_on(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Evaluator.log_odds
    calls = 0

    def tiring(self: Evaluator, bits: tuple[int, ...], remember: bool = False) -> LogOdds:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return honest(self, bits, remember)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "log_odds", tiring)
        with pytest.raises(KeyboardInterrupt):
            measure(problem, tmp_path)
    (path,) = tmp_path.iterdir()
    assert len(read_measured(path, problem.layers)) == 10
    shown: list[int] = []
    measure(problem, tmp_path, show=lambda done, wanted: shown.append(done))
    assert shown[0] == 10


def test_a_stop_keeps_what_was_measured(problem: Problem, tmp_path: Path) -> None:
    answers = iter([True] * 4 + [False])
    assert measure(problem, tmp_path, keep_going=lambda: next(answers)) is None
    (path,) = tmp_path.iterdir()
    assert len(read_measured(path, problem.layers)) == 4


def test_widths_that_were_not_measured_follow_the_quantisation_error() -> None:
    errors = np.array([[64.0, 16, 4, 1, 0.25, 0.06, 0.02]] * len(LAYERS))
    measured = {(layer.name, width): 0.1 / width for layer in LAYERS for width in (2, 4)}
    found = complete(LAYERS, measured, (2, 4), errors)
    assert found.damages[0].tolist() == pytest.approx(
        [0.05, 0.025, 0.025, 0.025 / 4, 0.025 / 16, 0.025 * 0.015, 0.025 * 0.005]
    )
    assert found.measured[0].tolist() == [True, False, True, False, False, False, False]


def test_damages_are_made_to_fall_with_the_width() -> None:
    measured = {(layer.name, width): damage for layer in LAYERS for width, damage in ((2, 0.1), (3, 0.02), (4, 0.03))}
    found = complete(LAYERS, measured, MEASURED_WIDTHS, np.ones((len(LAYERS), len(WIDTHS))))
    assert found.damages[0].tolist() == [0.1, *[0.03] * 6]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "layer,width\n",
        "layer,width,damage,source\nx,3,0.1,measured\n",
        "layer,width,damage,source\nbert.pooler.dense,9,0.1,measured\n",
        "layer,width,damage,source\nbert.pooler.dense,3,nan,measured\n",
        "layer,width,damage,source\nbert.pooler.dense,3,-1,measured\n",
        "layer,width,damage,source\nbert.pooler.dense,three,1,measured\n",
        "layer,width,damage,source\nbert.pooler.dense\n",
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sensitivity.csv"
    path.write_text(content)
    with pytest.raises(InputError, match="delete it"):
        read_measured(path, LAYERS)


def test_the_table_has_a_row_for_each_layer_and_width(problem: Problem, tmp_path: Path) -> None:
    found = measure(problem, tmp_path)
    assert found is not None
    lines = to_csv(problem.layers, found).splitlines()
    assert lines[0] == "layer,width,damage,source"
    assert len(lines) == 1 + len(problem.layers) * len(WIDTHS)
    assert lines[-1].endswith("completed")
