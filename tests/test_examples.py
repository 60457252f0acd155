"""The programs in examples/ run as their docstrings say."""

import io
import re
import runpy
import sys
from pathlib import Path

import pytest

from objectives.layers import uniform
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import load_classifier
from objectives.miniature import Miniature
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from results.export.packed import write_checkpoint
from tests.shared import ROOT

pytestmark = pytest.mark.end_to_end  # whole programs


def test_a_map_of_ones_own_is_scored(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["score_a_map.py"])
    runpy.run_path(str(ROOT / "examples" / "score_a_map.py"), run_name="__main__")
    fp32, *maps = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"FP32: MCC 0\.\d{3}", fp32)
    assert [line.partition(":")[0] for line in maps] == ["uniform 4", "embeddings 8, others 3"]
    assert all(re.search(r"\d\.\d\dx smaller, damage 0\.\d{4} nats, MCC 0\.\d{3}$", line) for line in maps)


def test_a_packed_checkpoint_is_served(
    miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = load_classifier(str(miniature.model))
    layers = find_layers(classifier.model)
    quantized = QuantizedModel.of(classifier.model, WeightBank(classifier.model, layers), uniform(layers, 8))
    write_checkpoint(classifier, quantized, {}, tmp_path / "small")
    lines = (miniature.data / "raw" / "in_domain_dev.tsv").read_text(encoding="utf-8").splitlines()[:20]
    labels, sentences = zip(*((line.split("\t")[1], line.split("\t")[3]) for line in lines), strict=True)
    outputs = []
    for flags in ([], ["--packed"]):
        monkeypatch.setattr(sys, "argv", ["serve_checkpoint.py", str(tmp_path / "small"), *flags])
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(sentences)))
        runpy.run_path(str(ROOT / "examples" / "serve_checkpoint.py"), run_name="__main__")
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    printed = outputs[0].splitlines()
    assert [line.split("  ", 1)[1] for line in printed] == list(sentences)
    names = ["acceptable" if label == "1" else "unacceptable" for label in labels]
    assert sum(line.startswith(f"{name} ") for line, name in zip(printed, names, strict=True)) >= 17
