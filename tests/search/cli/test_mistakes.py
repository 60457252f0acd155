"""What every command says to a mistake, and what `--help` waits for."""

import subprocess
import sys
from pathlib import Path

from tests.search.conftest import Command
from tests.search.tiny_problem import TinyProblem


def test_mistakes_are_one_message_and_status_2(
    finished_run: Path, tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_text("Layer: nonsense | bit: 11\n")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    where = ("--model", tiny.model, "--data", tiny.data)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("search", "--run", tmp_path / "new", *where, "--min-compression", 17), "every layer at 2 bits is 16.0000x"),
        (("search", "--run", tmp_path / "thesis", *where), "is no run directory"),
        (
            ("search", "--run", tmp_path / "new", *where, "--sampler", "grid"),
            "sampler must be one of guided, nsga2, tpe, random",
        ),
        (
            ("search", "--run", tmp_path / "new", *where, "--widths", "2,9"),
            "as 2,4,8, not '2,9'",
        ),
        (
            ("search", "--run", tmp_path / "new", *where, "--widths", "4,8", "--min-compression", 9),
            "every layer at 4 bits is 8.0000x",
        ),
        (("search", "--run", tmp_path / "new", "--profile", "night"), "no profile 'night'"),
        (("search", "--run", tmp_path / "new", "--model", tmp_path / "nowhere", "--data", tiny.data), "nowhere"),
        (("search", "--run", tmp_path / "new", "--model", tiny.model, "--data", tmp_path / "nowhere"), "nowhere"),
        (("report", "--run", tmp_path / "nowhere"), "there is no run here"),
        (("export", "--run", finished_run), "give one map to export"),
        (
            ("export", "--run", finished_run, "--trial", 1, "--format", "png"),
            "--format must be text, json, packed, torchao or onnx",
        ),
        (("export", "--run", finished_run, "--trial", 9999), "9999"),
        (("export", "--run", finished_run, "--pick", "best@99x"), "best@99x"),
        (("evaluate", "--bitmap", tmp_path / "bad.txt", *where), "not a layer of this model"),
        (("search",), "--run"),
        (("search", "--run", tmp_path / "new", "--trials", "many"), "Invalid value for '--trials'"),
    ]
    for arguments, complaint in cases:
        result = bitfront(*arguments)
        assert result.status == 2, arguments
        assert complaint in result.err.replace("\n", " "), (arguments, result.err)
        assert "Traceback" not in result.err
    assert not (tmp_path / "new").exists()


def test_help_needs_neither_torch_nor_optuna() -> None:
    code = (
        "import sys, search.cli.app; assert not {'torch', 'optuna', 'transformers'} & set(sys.modules), 'slow imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
