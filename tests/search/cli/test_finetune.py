"""The whole way in three commands: fine-tune a base, search the result, export a pick."""

import json
import re
import shlex
from pathlib import Path

import pytest

from objectives.miniature import SHIPPED
from tests.objectives.tiny_bert import make_tiny_bert
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.shared import ROOT, SHARED

SICK, ENCODER = SHARED / "data" / "sick", SHARED / "models" / "minilm6-sick"


def test_readmes_sentences_and_commands_work(
    bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Your own model and sentences\n")[2].partition("\n## ")[0]
    table, commands = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    header, *lines = table.splitlines()
    assert len(lines) == 9
    monkeypatch.chdir(tmp_path)
    Path("my").mkdir()
    Path("my/train.csv").write_text("\n".join([header, *lines * 30]))  # "more rows like these"
    Path("my/validation.csv").write_text("\n".join([header, *lines]))
    words = re.findall(r"\w+", " ".join(line.partition(",")[0] for line in lines))
    make_tiny_bert(Path("base"), head=False, words=tuple(dict.fromkeys(words)))
    said = []
    for line in re.findall(r"^bitfront (.*)", commands, re.MULTILINE):
        command, *options = shlex.split(line)
        changed = {"bert-base-uncased": ["base"], "--hours": ["--trials"]}
        options = [word for option in options for word in changed.get(option, [option])]
        few = ["--epochs", "1", "--learning-rate", "0.01", "--batch-size", "9"] if command == "finetune" else []
        ended = bitfront(command, *options, *few)
        assert ended.status == 0, ended.err
        said.append(ended)
    finetuned, searched, _ = said
    assert "the model is to predict 2 classes: bad, good (by the labels; --predict chooses otherwise)" in finetuned.err
    assert re.search(r"^written: models/mine; validation MCC 1\.0000 after \d+ s$", finetuned.out, re.MULTILINE)
    assert "next: bitfront search --model models/mine --data my --run runs/mine\n" in finetuned.out
    assert "report: runs/night/report.html" in searched.out
    assert Path("models/small/packed.safetensors").is_file()


def test_mistakes_are_named_before_anything_is_loaded(bitfront: Command, tmp_path: Path) -> None:
    where = ("--model", "absent", "--data", SHIPPED.data, "--out", tmp_path / "out")
    ended = bitfront("finetune", *where, "--predict", "stars")
    assert (ended.status, ended.out) == (2, "")
    assert "--predict must be classes, labels, numbers, not 'stars'" in ended.err
    ended = bitfront("finetune", *where, "--metric", "pearson")
    assert ended.status == 2
    assert "metric pearson: does not fit a model that predicts classes; use mcc, accuracy, f1" in ended.err


@pytest.mark.slow
@pytest.mark.skipif(not (SICK.is_dir() and ENCODER.is_dir()), reason=f"no SICK or encoder in {SHARED}")
@pytest.mark.parametrize(("column", "metric"), [("relatedness", "pearson"), ("label", "mcc")])
def test_a_real_encoder_is_finetuned_searched_and_exported(
    column: str, metric: str, bitfront: Command, tmp_path: Path
) -> None:
    data = tmp_path / "sick"
    data.mkdir()
    for name in ("train.csv", "validation.csv"):
        lines = (SICK / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (data / name).write_text("".join(lines[: 401 if name == "train.csv" else 151]), encoding="utf-8")
    model, run, packed = tmp_path / "model", tmp_path / "run", tmp_path / "packed"
    source = ("--data", data, "--label-column", column)
    ended = bitfront("finetune", "--model", ENCODER, *source, "--epochs", 1, "--learning-rate", "2e-4", "--out", model)
    assert ended.status == 0, ended.err
    assert "its encoder, with a new head for" in ended.err
    few = ("--trials", 4, "--quantizer", "affine", "--sensitivity", "gradient", "--unseen", 0, "--device", "cpu")
    ended = bitfront("search", "--model", model, *source, *few, "--run", run)
    assert ended.status == 0, ended.err
    best = min(rows(run / "front.csv"), key=lambda row: float(row["damage"]))
    ended = bitfront("export", "--run", run, "--trial", best["number"], "--format", "packed", "--out", packed)
    assert ended.status == 0, ended.err
    assert (packed / "packed.safetensors").stat().st_size == int(best["packed_bytes"])
    scored = json.loads(bitfront("evaluate", "--checkpoint", packed, "--json").out)
    assert scored[metric] == pytest.approx(float(best[metric]), abs=1e-6)
    assert scored[f"fp32_{metric}"] > 0.5
