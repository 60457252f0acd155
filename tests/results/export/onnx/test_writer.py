from __future__ import annotations

import hashlib
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed; it is an extra")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; it is an extra")

from objectives.bit_maps import read_bit_map
from objectives.errors import InputError
from objectives.evaluation.evaluator import Evaluator
from objectives.layers import WIDTHS, uniform
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import Classifier, load_classifier
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from results.export.onnx import writer
from results.export.onnx.model_file import onnx_sizes
from results.export.onnx.writer import write_fp32_onnx, write_onnx
from results.export.onnx_session import ONNX_FILE, OnnxSession, described_file, padded
from results.export.packed import load_checkpoint, read_provenance, read_quantized, write_checkpoint
from tests.objectives.architectures import tiny_model
from tests.objectives.random_models import random_bert, random_sentences, random_types
from tests.objectives.tiny_bert import make_tiny_bert
from tests.results.export.onnx_models import (
    NODE_MODULES,
    classifier_of,
    openvino_logits,
    quantized_by,
    random_map,
    web_logits,
)

ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")
SENTENCES = random_sentences(3, n=16)
TYPES = random_types(SENTENCES)
CLOSE = 1e-4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_classifier(str(make_tiny_bert(tmp_path_factory.mktemp("tiny") / "model")))


def difference(model: Any, tiny: Classifier, scheme: Scheme, seed: int, directory: Path) -> float:
    """Return how far onnxruntime's logits of a random map are from ours, for one padded batch of pairs."""
    classifier, bit_map = classifier_of(model, tiny.tokenizer), random_map(model, seed)
    quantized = quantized_by(model, bit_map, scheme)
    write_onnx(classifier, quantized, {}, directory)
    types = TYPES if classifier.takes_types else None
    ours = Evaluator(quantized.decoded(model), quantized.layers, SENTENCES, token_types=types)
    session = OnnxSession(directory / ONNX_FILE)
    assert ("token_type_ids" in session.inputs) == (types is not None)
    return float(np.abs(session.logits(padded(SENTENCES, types)) - ours.logits((32,) * len(quantized.layers))).max())


@pytest.mark.parametrize(
    ("architecture", "group_size"), [*((architecture, 0) for architecture in ARCHITECTURES), ("bert", 16)]
)
def test_each_architecture_computes_what_ours_does(
    architecture: str, group_size: int, tiny: Classifier, tmp_path: Path
) -> None:
    model = tiny_model(architecture, num_labels=3)
    assert difference(model, tiny, Scheme(group_size=group_size), seed=1, directory=tmp_path / "export") < CLOSE


@pytest.mark.parametrize(
    "changes",
    [
        {"num_labels": 1, "problem_type": "regression"},
        {"num_labels": 4, "problem_type": "multi_label_classification"},
        {"type_vocab_size": 1},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"hidden_size": 18, "intermediate_size": 30},  # no multiples of 8, nor of any block
        {"num_hidden_layers": 1, "vocab_size": 53},
    ],
    ids=str,
)
def test_other_heads_and_shapes_compute_what_ours_do(changes: dict[str, Any], tiny: Classifier, tmp_path: Path) -> None:
    assert difference(random_bert(**changes), tiny, PER_ROW, 0, tmp_path / "export") < CLOSE


def test_a_packed_twin_and_the_export_compute_the_same(tiny: Classifier, tmp_path: Path) -> None:
    quantized = quantized_by(tiny.model, random_map(tiny.model, 5))
    write_onnx(tiny, quantized, {}, tmp_path / "onnx")
    write_checkpoint(tiny, quantized, {}, tmp_path / "packed")
    write_onnx(*read_quantized(tmp_path / "packed"), {}, tmp_path / "again")  # as distilled maps are exported
    assert (tmp_path / "again" / ONNX_FILE).read_bytes() == (tmp_path / "onnx" / ONNX_FILE).read_bytes()
    twin = load_checkpoint(tmp_path / "packed").classifier
    ids = tiny.encode(["the cat sees a bird .", "who ?", ("the dog sleeps", "a cat likes the bird")]).ids
    ours = Evaluator(twin.model, quantized.layers, ids).logits(uniform(quantized.layers, 32))
    logits = OnnxSession(tmp_path / "onnx" / ONNX_FILE).logits(padded(ids))
    np.testing.assert_allclose(logits, ours, atol=CLOSE)


def test_the_fp32_file_computes_what_the_model_does(tiny: Classifier, tmp_path: Path) -> None:
    length = write_fp32_onnx(tiny, {"run": "x"}, tmp_path / "fp32")
    layers = find_layers(tiny.model)
    ours = Evaluator(tiny.model, layers, [[2, 7, 8, 3], [2, 9, 3]]).fp32_log_odds()
    logits = OnnxSession(tmp_path / "fp32" / ONNX_FILE).logits(padded([[2, 7, 8, 3], [2, 9, 3]]))
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], ours, atol=CLOSE)
    assert (tmp_path / "fp32" / ONNX_FILE).stat().st_size == length
    assert all(onnx_sizes(tiny, scheme).fp32_bytes == length for scheme in (PER_ROW, Scheme(group_size=16)))
    assert read_provenance(tmp_path / "fp32")["run"] == "x"
    assert not (tmp_path / "fp32" / "bitmap.txt").exists()


@pytest.mark.parametrize(
    ("scheme", "activations"), [(PER_ROW, "fp32"), (Scheme(group_size=16), "int8")], ids=["rows", "groups"]
)
def test_sizes_are_those_of_the_files(scheme: Scheme, activations: Any, tiny: Classifier) -> None:
    model = random_bert(intermediate_size=40)
    classifier = classifier_of(model, tiny.tokenizer)
    sizes = onnx_sizes(classifier, scheme, activations)
    layers = find_layers(model)
    assert len(sizes.layer_bytes) == len(layers) and {len(row) for row in sizes.layer_bytes} == {len(WIDTHS)}
    bank = WeightBank(model, layers, scheme)
    for seed in range(10):
        quantized = QuantizedModel.of(model, bank, random_map(model, seed))
        written = writer.model_bytes(classifier, quantized, activations)
        assert (
            len(written)
            == sizes.file_bytes(quantized.bit_map)
            <= sizes.most_overhead_bytes()
            + sum(row[WIDTHS.index(width)] for row, width in zip(sizes.layer_bytes, quantized.bit_map, strict=True))
        )
    assert written == writer.model_bytes(classifier, quantized, activations)


def test_a_file_says_what_it_is(tiny: Classifier, tmp_path: Path) -> None:
    bit_map = random_map(tiny.model, 2)
    length = write_onnx(tiny, quantized_by(tiny.model, bit_map), {"run": "x"}, tmp_path / "export")
    layers = find_layers(tiny.model)
    model = onnx.load(tmp_path / "export" / ONNX_FILE)
    onnx.checker.check_model(model)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["bitfront.bits"] == " ".join(map(str, bit_map))
    assert said["bitfront.layers"].split() == [layer.name for layer in layers]
    nodes = {node.name for node in model.graph.node}
    assert {layer.name for layer in layers} <= nodes
    assert not {tensor.name for tensor in model.graph.initializer} - {
        name for node in model.graph.node for name in node.input
    }
    assert read_bit_map(tmp_path / "export" / "bitmap.txt", layers) == bit_map
    assert read_bit_map(tmp_path / "export" / "bitfront.json", layers) == bit_map
    described = read_provenance(tmp_path / "export")["onnx"]
    assert (described["activations"], described["file_bytes"]) == ("fp32", length)
    files = {path.relative_to(tmp_path / "export").as_posix() for path in (tmp_path / "export").rglob("*.*")}
    assert set(described["sha256"]) == files - {"bitfront.json", "README.md"}
    for name, digest in described["sha256"].items():
        assert hashlib.sha256((tmp_path / "export" / name).read_bytes()).hexdigest() == digest
    assert described_file(tmp_path / "export", described) == tmp_path / "export" / ONNX_FILE


def test_int8_activations_are_a_choice(tiny: Classifier, tmp_path: Path) -> None:
    model = random_bert()
    quantized = quantized_by(model, random_map(model, 4))
    logits = []
    for activations, level in (("fp32", 0), ("int8", 4)):
        write_onnx(classifier_of(model, tiny.tokenizer), quantized, {}, tmp_path / activations, activations)  # type: ignore[arg-type]
        file = tmp_path / activations / ONNX_FILE
        nodes = [node for node in onnx.load(file).graph.node if node.op_type == "MatMulNBits"]
        levels = {part.i for node in nodes for part in node.attribute if part.name == "accuracy_level"}
        assert levels == {level}
        logits.append(OnnxSession(file).logits(padded(SENTENCES, TYPES)))
    assert CLOSE < np.abs(logits[1] - logits[0]).max() < 0.1


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    tiny: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(model: Any, message: str, scheme: Scheme = PER_ROW) -> None:
        with pytest.raises(InputError, match=message):
            quantized = quantized_by(model, uniform(find_layers(model), 4), scheme)
            write_onnx(classifier_of(model, tiny.tokenizer), quantized, {}, tmp_path / "export")
        assert not list(tmp_path.iterdir())

    refused(tiny_model("albert"), "AlbertForSequenceClassification .*--format packed")
    refused(random_bert(hidden_act="silu"), "only BERT, .* gelu_new")
    refused(random_bert(), "evenly spaced levels", Scheme("codebook"))
    refused(random_bert(), "groups of 5", Scheme(group_size=5))
    monkeypatch.setattr(writer, "_MOST_BYTES", 10_000)
    refused(random_bert(), "an ONNX file holds at most 10,000")


def test_damaged_files_and_directories_that_exist_are_refused(tiny: Classifier, tmp_path: Path) -> None:
    quantized = quantized_by(tiny.model, random_map(tiny.model, 0))
    write_onnx(tiny, quantized, {}, tmp_path / "export")
    with pytest.raises(FileExistsError):
        write_onnx(tiny, quantized, {}, tmp_path / "export")
    with pytest.raises(InputError, match="is an ONNX export"):
        load_checkpoint(tmp_path / "export")
    file, described = tmp_path / "export" / ONNX_FILE, read_provenance(tmp_path / "export")["onnx"]
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(InputError, match="not the file that the manifest describes"):
        described_file(tmp_path / "export", described)
    with pytest.raises(InputError, match="onnxruntime cannot load it"):
        OnnxSession(file)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("openvino"), reason="openvino is not installed")
@pytest.mark.parametrize(
    ("architecture", "group_size"),
    [("bert", 0), ("roberta", 16), ("electra", 0)],
)
def test_openvino_reads_the_same_file(architecture: str, group_size: int, tiny: Classifier, tmp_path: Path) -> None:
    model = tiny_model(architecture)
    quantized = quantized_by(model, random_map(model, 6), Scheme(group_size=group_size))
    write_onnx(classifier_of(model, tiny.tokenizer), quantized, {}, tmp_path / "export")
    file, batch = tmp_path / "export" / ONNX_FILE, padded(SENTENCES, TYPES)
    np.testing.assert_allclose(openvino_logits(file, batch), OnnxSession(file).logits(batch), atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("node") and (Path(NODE_MODULES) / "onnxruntime-web").is_dir()),
    reason="no onnxruntime-web for Node; set BITFRONT_NODE_MODULES to the folder it is in",
)
def test_a_browsers_runtime_computes_the_same(tiny: Classifier, tmp_path: Path) -> None:
    model, sentences = random_bert(), random_sentences(9, n=50)
    write_onnx(classifier_of(model, tiny.tokenizer), quantized_by(model, random_map(model, 8)), {}, tmp_path / "export")
    file = tmp_path / "export" / ONNX_FILE
    batches = [padded(sentences[:49], random_types(sentences[:49])), padded(sentences[49:])]
    session = OnnxSession(file)
    for theirs, batch in zip(web_logits(file, batches), batches, strict=True):
        np.testing.assert_allclose(theirs, session.logits(batch), atol=CLOSE)
