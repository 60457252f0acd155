"""Whole searches on a database that machines share, as a user starts them."""

from pathlib import Path

import pytest

from search.run.run_directory import RunDirectory
from search.storage.stores import Place
from search.study.reading import load_study, outcome
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.postgresql import PASSWORD, running_server
from tests.search.tiny_problem import TinyProblem, make_tiny_problem


def test_machines_share_a_study_and_no_file_has_the_password(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ("--sampler", "random", "--sensitivity", "none", "--quantizer", "affine")
    where = ("--model", tiny.model, "--data", tiny.data, *plain)
    first, second, joined = (tmp_path / name / "night" for name in ("one", "two", "three"))
    with running_server() as server:
        said = [bitfront("search", *where, "--run", first, "--trials", 16, "--storage", server.url)]
        said.append(bitfront("search", *where, "--run", second, "--trials", 20, "--storage", server.url))
        said.append(bitfront("search", "--run", first, "--trials", 22, "--storage", server.url))
        other = make_tiny_problem(tmp_path / "other", seed=1)
        wrong = ("--model", other.model, "--data", other.data)
        refused = bitfront("search", *where[4:], *wrong, "--run", joined, "--trials", 20, "--storage", server.url)
        elsewhere = f"{server.url.removesuffix('postgres')}template1"
        moved = bitfront("search", "--run", first, "--trials", 30, "--storage", elsewhere)
        with RunDirectory(second).locked():
            locked_out = bitfront("status", "--run", second)
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        said.append(bitfront("report", "--run", second))
        said.append(bitfront("export", "--run", second, "--pick", "best@8x"))
        found = outcome(load_study(Place(tmp_path / "none", server.url, "night")), "night")
    assert [result.status for result in said] == [0] * 5, [result.err for result in said]
    assert locked_out.status == 2
    assert locked_out.out.startswith(f"{second}: starting again")
    assert "no maps yet" not in locked_out.out
    assert "no password supplied" in locked_out.err
    assert len({trial.bit_map for trial in found.trials}) == len(found.trials) == 22
    assert len(rows(second / "trials.csv")) == 22
    assert not (first / "study.journal").exists()
    assert moved.status == 2
    assert "is not in this database; the run was begun in postgresql" in " ".join(moved.err.split())
    assert refused.status == 2
    assert not joined.exists()
    assert "is another search" in refused.err
    assert "model was" in refused.err
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts]
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()]
    assert not [result for result in [*said, refused, moved] if PASSWORD in result.out + result.err]
    assert 'url = "postgresql+psycopg://bitfront@127.0.0.1:' in (first / "run.toml").read_text()


def test_a_run_in_its_own_journal_is_not_moved(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    where = ("--model", tiny.model, "--data", tiny.data, "--sampler", "random", "--sensitivity", "none")
    assert bitfront("search", *where, "--run", tmp_path / "run", "--trials", 8).status == 0
    result = bitfront("search", "--run", tmp_path / "run", "--storage", "postgresql://user@127.0.0.1:1/x")
    assert result.status == 2
    assert "began in its own journal" in result.err
    result = bitfront("search", *where, "--run", tmp_path / "new", "--storage", "mysql://user:word@host/x")
    assert result.status == 2
    assert "'mysql' is not supported" in result.err
    assert "word" not in result.err
    assert not (tmp_path / "new").exists()
