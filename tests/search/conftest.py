from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from objectives.problem import Problem, load_problem
from search.cli.app import main
from tests.search.commands import command_line
from tests.search.tiny_problem import TinyProblem, make_tiny_problem


@dataclass(frozen=True)
class Spoken:
    """What a command said and how it ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Spoken]

ROOMY_SENTENCES = 30


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyProblem:
    return make_tiny_problem(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def roomy(tiny: TinyProblem, tmp_path_factory: pytest.TempPathFactory) -> TinyProblem:
    """The tiny problem with training sentences of its own, beside all that it is searched with."""
    directory = tmp_path_factory.mktemp("roomy")
    shutil.copytree(tiny.data, directory / "data")
    others = make_tiny_problem(directory / "others", seed=5, sentences=ROOMY_SENTENCES)
    train = directory / "data" / "raw" / "in_domain_train.tsv"
    more = (others.data / "raw" / "in_domain_train.tsv").read_text(encoding="utf-8")
    train.write_text(train.read_text(encoding="utf-8") + more, encoding="utf-8")
    return TinyProblem(tiny.model, directory / "data")


@pytest.fixture(scope="session")
def problem(tiny: TinyProblem) -> Problem:
    return load_problem(str(tiny.model), str(tiny.data))


@pytest.fixture(scope="session")
def first_run(tiny: TinyProblem, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A whole run as a user starts it, in a process of its own and with its plots; test processes share it."""
    place = tmp_path_factory.getbasetemp()
    place = place if worker_id == "master" else place.parent
    run = place / "tiny"
    with FileLock(place / "tiny.lock"):
        if not run.exists():
            where = ("--model", tiny.model, "--data", tiny.data, "--run", place / "unfinished")
            command = command_line("search", *where, "--trials", 20, "--seed", 3)
            ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert ended.returncode == 0, ended.stderr
            assert f"report: {place}/unfinished/report.html" in ended.stdout
            (place / "unfinished").rename(run)
    return run


@pytest.fixture
def finished_run(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a whole run, for one test to change as it likes."""
    return Path(shutil.copytree(first_run, tmp_path_factory.mktemp("runs") / "tiny"))


@pytest.fixture
def bitfront(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], undrawn: None) -> Command:
    """Run the command line in this process, without its plots."""

    def run(*arguments: object) -> Spoken:
        monkeypatch.setattr("sys.argv", ["bitfront", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Spoken(ended.value.code, said.out, said.err)

    return run
