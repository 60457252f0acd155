"""The programs in examples/ run as their docstrings say."""

import io
import re
import runpy
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import tokenizers

from objectives.layers import uniform
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import Classifier, load_classifier
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


@pytest.fixture
def eight_bits(miniature: Miniature) -> tuple[Classifier, QuantizedModel]:
    """The miniature, and the same quantised to 8 bits."""
    classifier = load_classifier(str(miniature.model))
    layers = find_layers(classifier.model)
    return classifier, QuantizedModel.of(classifier.model, WeightBank(classifier.model, layers), uniform(layers, 8))


def labelled(miniature: Miniature) -> tuple[list[str], list[str]]:
    """Return the names of the labels of twenty sentences, and the sentences."""
    lines = (miniature.data / "raw" / "in_domain_dev.tsv").read_text(encoding="utf-8").splitlines()[:20]
    rows = [line.split("\t") for line in lines]
    return ["acceptable" if row[1] == "1" else "unacceptable" for row in rows], [row[3] for row in rows]


def check_served(printed: list[str], names: list[str], sentences: list[str]) -> None:
    assert [line.split("  ", 1)[1] for line in printed] == sentences
    assert sum(line.startswith(f"{name} ") for line, name in zip(printed, names, strict=True)) >= 17


def test_a_packed_checkpoint_is_served(
    miniature: Miniature,
    eight_bits: tuple[Classifier, QuantizedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_checkpoint(*eight_bits, {}, tmp_path / "small")
    names, sentences = labelled(miniature)
    outputs = []
    for flags in ([], ["--packed"]):
        monkeypatch.setattr(sys, "argv", ["serve_checkpoint.py", str(tmp_path / "small"), *flags])
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(sentences)))
        runpy.run_path(str(ROOT / "examples" / "serve_checkpoint.py"), run_name="__main__")
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    check_served(outputs[0].splitlines(), names, sentences)


def test_an_onnx_export_is_served_without_torch(
    miniature: Miniature, eight_bits: tuple[Classifier, QuantizedModel], tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="it writes the export")
    onnxruntime = pytest.importorskip("onnxruntime", reason="it runs the export")
    from results.export.onnx.writer import write_onnx

    write_onnx(*eight_bits, {}, tmp_path / "small")
    python = bare_environment(tmp_path / "venv", [numpy, tokenizers, onnxruntime])
    for absent in ("torch", "transformers"):
        assert subprocess.run([python, "-c", f"import {absent}"], capture_output=True).returncode
    names, sentences = labelled(miniature)
    served = subprocess.run(
        [python, str(ROOT / "examples" / "serve_onnx.py"), str(tmp_path / "small")],
        input="\n".join(sentences),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert served.returncode == 0, served.stderr
    check_served(served.stdout.splitlines(), names, sentences)


def bare_environment(directory: Path, packages: list[ModuleType]) -> Path:
    """Make a virtual environment with some of the installed packages, and return its interpreter."""
    venv.create(directory, symlinks=True)
    [own] = directory.glob("lib/python*/site-packages")
    for package in packages:
        assert package.__file__
        folder = Path(package.__file__).parent
        for entry in (folder, folder.with_name(f"{folder.name}.libs")):  # shared libraries of a wheel
            if entry.exists():
                (own / entry.name).symlink_to(entry)
    return directory / "bin" / "python"
