"""What a search settles at its start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from objectives.errors import InputError
from objectives.scores import Precision
from search.run.loop import run_search
from search.run.profile import Profile
from search.run.progress import Phase, Progress
from search.run.reporting import read_outcome
from search.run.run_directory import RunDirectory
from search.study.reading import load_study
from search.study.study import precision_of
from search.study.trials import EVALUATION
from tests.search.tiny_problem import TinyProblem


class Silent:
    """Shows nothing."""

    def phase(self, phase: Phase) -> None:
        """Show no phase."""

    def trials(self, progress: Progress) -> None:
        """Show no progress."""


def test_the_precision_of_auto_is_chosen_once_and_kept(
    tiny: TinyProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.report.report.write_report", lambda *_: None)
    profile = Profile(
        str(tiny.model), str(tiny.data), sampler="random", sensitivity="none", quantizer="affine", unseen=0
    )
    assert profile.precision == "auto"

    def precisions(name: str, trials: int) -> list[str]:
        run = RunDirectory(tmp_path / name)
        run_search(replace(profile, trials=trials), run, Silent())
        study = load_study(run.journal)
        recorded = [trial.user_attrs[EVALUATION]["precision"] for trial in study.trials[:trials]]
        return [run.read_settings()["profile"]["precision"], precision_of(study), *recorded]

    def never(network: object) -> Precision:
        raise AssertionError("chosen again")

    monkeypatch.setattr("search.run.worker.faster_precision", lambda network: "bf16")
    assert precisions("faster", 1) == ["bf16"] * 3
    with monkeypatch.context() as patched:  # another machine began the study
        patched.setattr("search.run.loop.precision_of", lambda study: "fp32")
        settings, _, evaluated = precisions("joined", 1)
    assert settings == evaluated == "fp32"
    monkeypatch.setattr("search.run.worker.faster_precision", never)
    assert precisions("faster", 2) == ["bf16"] * 4
    assert "--precision bf16" in read_outcome(RunDirectory(tmp_path / "faster")).command
    with pytest.raises(InputError, match="precision was 'bf16' and is now 'fp32'"):
        run_search(replace(profile, precision="fp32"), RunDirectory(tmp_path / "faster"), Silent())


def test_the_task_decides_the_metric_of_a_new_run_and_an_older_run_keeps_its_own(
    tiny: TinyProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.report.report.write_report", lambda *_: None)
    profile = Profile(
        *(str(tiny.model), str(tiny.data), "sst2"), trials=1, sampler="random", sensitivity="none", quantizer="affine",
        precision="fp32", unseen=0,
    )  # fmt: skip

    def metrics(name: str, **settings: object) -> list[str]:
        run = RunDirectory(tmp_path / name)
        run_search(replace(profile, **settings), run, Silent())  # type: ignore[arg-type]
        return [run.read_settings()["profile"]["metric"], read_outcome(run).metric]

    assert metrics("new") == ["accuracy", "accuracy"]
    assert metrics("older", metric="mcc") == ["mcc", "mcc"]
    recorded = tmp_path / "older" / "run.toml"
    recorded.write_text(recorded.read_text().replace('metric = "mcc"', 'metric = "auto"'))
    assert metrics("older", trials=2) == ["mcc", "mcc"]
    with pytest.raises(InputError, match="metric was 'mcc' and is now 'accuracy'"):
        metrics("older", metric="accuracy")
