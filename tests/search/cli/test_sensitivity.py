"""The `sensitivity` command, and searches with and without sensitivities."""

from pathlib import Path

import pytest

from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.tiny_problem import TinyProblem


@pytest.mark.parametrize(("source", "said"), [("measured", {"measured", "gradient"}), ("gradient", {"gradient"})])
def test_sensitivities_as_a_table_and_a_heat_map(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, source: str, said: set[str]
) -> None:
    out = tmp_path / "found"
    result = bitfront("sensitivity", "--model", tiny.model, "--data", tiny.data, "--source", source, "--out", out)
    assert result.status == 0, result.err
    assert {path.name for path in out.iterdir()} == {"sensitivity.csv", "sensitivity.png", "sensitivity.svg"}
    table = rows(out / "sensitivity.csv")
    assert {row["source"] for row in table} == said
    rule, title, heading, *lines, written = result.out.splitlines()
    assert rule == "layers: each embedding and linear weight of bert; the head stays in FP32 (classifier)"
    assert title == "damage (mean KL divergence from FP32), nats a sentence"
    assert heading.split()[-2:] == ["8", "bit"]
    assert len(lines) == len(table) / 7
    assert lines[0].startswith("bert.embeddings.word_embeddings ")
    assert written.startswith("written: ")


def test_a_search_without_sensitivities_has_no_knapsacks(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    where = ("--model", tiny.model, "--data", tiny.data, "--sampler", "nsga2", "--trials", 16)
    for source, plain in (("none", False), ("gradient", True)):
        run = tmp_path / source
        assert bitfront("search", *where, "--run", run, "--sensitivity", source).status == 0
        origins = [row["origin"] for row in rows(run / "trials.csv")]
        assert ("plain" in origins) == plain
        assert (run / "sensitivity.csv").exists() == plain
    result = bitfront("search", *where[:4], "--run", tmp_path / "x", "--sensitivity", "none")
    assert result.status == 2
    assert "guided sampler needs sensitivities" in result.err
    result = bitfront("sensitivity", *where[:4], "--source", "none")
    assert result.status == 2
    assert "measured or gradient" in result.err
