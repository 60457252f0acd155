import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from objectives.bank import WeightBank
from objectives.calibrate import Compensation, quantize_calibrated
from objectives.checkpoint import BIT_MAP, MANIFEST, WEIGHTS, _hashes, load_checkpoint, read_manifest, write_checkpoint
from objectives.errors import InputError
from objectives.evaluate import Evaluator
from objectives.layers import WIDTHS, Bits, find_layers
from objectives.models import Classifier, load_classifier
from objectives.quantized import QuantizedModel
from objectives.schemes import PER_ROW, Scheme
from objectives.sizes import footprint_of
from tests.objectives.random_models import random_bert
from tests.objectives.tiny_bert import make_tiny_bert


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_classifier(str(make_tiny_bert(tmp_path_factory.mktemp("tiny") / "model")))


@pytest.fixture(scope="module")
def bits(classifier: Classifier) -> Bits:
    rng = np.random.default_rng(0)
    return tuple(int(width) for width in rng.choice(WIDTHS, size=len(find_layers(classifier.model))))


def quantized_by(classifier: Classifier, bits: Bits, scheme: Scheme = PER_ROW) -> QuantizedModel:
    bank = WeightBank.of(classifier.model, find_layers(classifier.model), scheme)
    return QuantizedModel.of(classifier.model, bank, bits)


@pytest.fixture
def directory(classifier: Classifier, bits: Bits, tmp_path: Path) -> Path:
    write_checkpoint(classifier, quantized_by(classifier, bits), {"run": "x"}, tmp_path / "packed")
    return tmp_path / "packed"


def test_the_file_is_as_long_as_was_claimed(classifier: Classifier, bits: Bits, directory: Path) -> None:
    assert (directory / WEIGHTS).stat().st_size == footprint_of(classifier.model).packed_bytes(bits)
    assert read_manifest(directory)["run"] == "x"
    assert (directory / WEIGHTS).stat().st_mode == (directory / MANIFEST).stat().st_mode
    assert not list(directory.glob("model.safetensors"))  # transformers would fill in what is missing at random


def test_a_loaded_model_scores_exactly_as_its_map(classifier: Classifier, bits: Bits, directory: Path) -> None:
    sentences = [[2, 7, 8, 3], [2, 9, 3], [2, 5, 6, 7, 8, 3]]
    layers = find_layers(classifier.model)
    evaluator = Evaluator(classifier.model, layers, sentences)
    checkpoint = load_checkpoint(directory)
    loaded = checkpoint.classifier
    assert checkpoint.bits == bits
    assert checkpoint.footprint == footprint_of(classifier.model)
    assert np.array_equal(Evaluator(loaded.model, layers, sentences).fp32_log_odds(), evaluator.log_odds(bits))
    with torch.inference_mode():
        logits = loaded.model(**loaded.tokenizer("the cat sleeps", return_tensors="pt")).logits
    assert logits.isfinite().all()
    for name, tensor in classifier.model.state_dict().items():
        if name in footprint_of(classifier.model).kept:
            assert torch.equal(loaded.model.state_dict()[name], tensor)


def test_a_directory_is_never_overwritten(classifier: Classifier, bits: Bits, directory: Path) -> None:
    with pytest.raises(FileExistsError):
        write_checkpoint(classifier, quantized_by(classifier, bits), {}, directory)
    load_checkpoint(directory)


def change(directory: Path, edit: Callable[[dict[str, torch.Tensor]], None], scheme: str) -> None:
    """Change tensors and make the hash that of the new file, so that the other checks have to find it."""
    tensors = load_file(directory / WEIGHTS)
    edit(tensors)
    save_file(tensors, directory / WEIGHTS, {"format": scheme})
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["provenance"]["packed"]["sha256"] = _hashes(directory)
    (directory / MANIFEST).write_text(json.dumps(manifest))


POOLER = "bert.pooler.dense"


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[f"{POOLER}.scale"]


def shorten(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.codes"] = tensors[f"{POOLER}.codes"][:-1].clone()


def negate(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.scale"] = -tensors[f"{POOLER}.scale"]


def spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.scale"][0] = torch.nan


def retype(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.scale"] = tensors[f"{POOLER}.scale"].to(torch.float16)


def spoil_kept(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier.bias"][0] = torch.inf


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (spoil_kept, "not finite"),
        (drop, "does not hold the tensors"),
        (shorten, "not the type and shape"),
        (retype, "not the type and shape"),
        (negate, "out of range"),
        (spoil, "out of range"),
    ],
)
def test_tensors_that_do_not_fit_the_map_are_refused(
    directory: Path, edit: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    change(directory, edit, PER_ROW.format)
    with pytest.raises(InputError, match=said):
        load_checkpoint(directory)


def test_files_of_another_kind_are_refused(directory: Path) -> None:
    for format_, said in (("pt", "no packed checkpoint"), (Scheme("codebook").format, "bit map or size is not that")):
        change(directory, lambda tensors: None, format_)
        with pytest.raises(InputError, match=said):
            load_checkpoint(directory)


def unsettle(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.codewords"] = tensors[f"{POOLER}.codewords"].flip(0)


def spoil_codewords(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.codewords"][-1] = torch.inf


def shorten_codewords(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.codewords"] = tensors[f"{POOLER}.codewords"][:-1].clone()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (unsettle, "not finite and rising"),
        (spoil_codewords, "not finite and rising"),
        (shorten_codewords, "not the type and shape"),
        (negate, "out of range"),
        (drop, "does not hold the tensors"),
    ],
)
def test_codewords_that_cannot_be_are_refused(
    classifier: Classifier, bits: Bits, edit: Callable[[dict[str, torch.Tensor]], None], said: str, tmp_path: Path
) -> None:
    scheme = Scheme("codebook")
    write_checkpoint(classifier, quantized_by(classifier, bits, scheme), {}, tmp_path / "packed")
    assert load_checkpoint(tmp_path / "packed").footprint.scheme == scheme
    change(tmp_path / "packed", edit, scheme.format)
    with pytest.raises(InputError, match=said):
        load_checkpoint(tmp_path / "packed")


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_truncated_files_are_refused(directory: Path, cut: int) -> None:
    path = directory / WEIGHTS
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="not the file that"):
        load_checkpoint(directory)
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["provenance"]["packed"]["sha256"] = _hashes(directory)
    (directory / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(directory)


FAULTS = ["absent", "no json", "no provenance", "other map", "no weights", "fewer hashes", "other size", "other text"]


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_manifests_are_refused(directory: Path, fault: str) -> None:
    path = directory / MANIFEST
    manifest = json.loads(path.read_text())
    match fault:
        case "absent":
            path.unlink()
        case "no json":
            path.write_text("{")
        case "no provenance":
            path.write_text(json.dumps({"bits": manifest["bits"]}))
        case "other map":
            manifest["bits"][POOLER] = 7 if manifest["bits"][POOLER] != 7 else 6
            path.write_text(json.dumps(manifest))
        case "no weights":
            (directory / WEIGHTS).unlink()
        case "fewer hashes":
            del manifest["provenance"]["packed"]["sha256"][BIT_MAP]
            (directory / BIT_MAP).unlink()
            path.write_text(json.dumps(manifest))
        case "other size":
            manifest["provenance"]["packed"]["packed_bytes"] += 1
            path.write_text(json.dumps(manifest))
        case "other text":
            (directory / BIT_MAP).write_text("# nothing\n")
            manifest["provenance"]["packed"]["sha256"] = _hashes(directory)
            path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="export it again"):
        load_checkpoint(directory)


def test_files_that_were_not_exported_are_refused(directory: Path) -> None:
    """A tokenizer would read some of them; a page of words is nobody's business."""
    (directory / "README.md").write_text("words")
    (directory / ".gitattributes").write_text("words")
    load_checkpoint(directory)
    (directory / "special_tokens_map.json").write_text("{}")
    with pytest.raises(InputError, match="is not of this checkpoint"):
        load_checkpoint(directory)


def slowly_unpacked(stream: bytes, bits: int, count: int) -> list[int]:
    number = int.from_bytes(stream, "little")
    return [number >> (bits * index) & (2**bits - 1) for index in range(count)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("quantizer", ["affine", "codebook", "calibrated"])
def test_random_maps_of_odd_shapes_come_back_bit_by_bit(seed: int, quantizer: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    vocabulary = int(rng.integers(21, 60))
    model = random_bert(
        seed,
        hidden_size=2 * int(rng.integers(3, 12)),
        intermediate_size=int(rng.integers(5, 40)),
        vocab_size=vocabulary,
    )
    own = load_classifier(str(make_tiny_bert(tmp_path / "tiny")))
    classifier = Classifier(model, own.tokenizer, "random")
    layers = find_layers(model)
    bits = tuple(int(width) for width in rng.choice(WIDTHS, size=len(layers)))
    scheme = Scheme("codebook") if quantizer == "codebook" else PER_ROW
    bank = WeightBank.of(model, layers, scheme)
    if quantizer == "calibrated":
        for layer, width in zip(layers, bits, strict=True):
            inputs = torch.randn(50, layer.columns, generator=torch.Generator().manual_seed(seed))
            weight = model.get_parameter(layer.parameter).detach()
            bank.fill(layer, {width: quantize_calibrated(weight, width, Compensation.of(inputs.T @ inputs))})
    quantized = QuantizedModel.of(model, bank, bits)
    length = write_checkpoint(classifier, quantized, {}, tmp_path / "packed")
    assert (tmp_path / "packed" / WEIGHTS).stat().st_size == length == footprint_of(model, scheme).packed_bytes(bits)

    stored = load_file(tmp_path / "packed" / WEIGHTS)
    checkpoint = load_checkpoint(tmp_path / "packed")
    loaded = checkpoint.classifier
    assert checkpoint.bits == bits
    for layer, width in zip(layers, bits, strict=True):
        codes = slowly_unpacked(stored[f"{layer.name}.codes"].numpy().tobytes(), width, layer.elements)
        if quantizer == "codebook":
            codewords = stored[f"{layer.name}.codewords"].tolist()
            steps = torch.tensor([codewords[code] for code in codes]).view(layer.rows, layer.columns).double()
        else:
            zero_points = stored[f"{layer.name}.zero_point"].double() * 2.0 ** (width - 8)
            steps = torch.tensor(codes).view(layer.rows, layer.columns).double() - zero_points[:, None]
        expected = steps * stored[f"{layer.name}.scale"].double()[:, None]
        torch.testing.assert_close(loaded.model.get_parameter(layer.parameter).double(), expected, rtol=1e-6, atol=0)
    sentences = [[int(token) for token in rng.integers(5, vocabulary, size=length)] for length in (3, 9, 5, 9)]
    searched = Evaluator(model, layers, sentences, bank=bank).log_odds(bits)
    np.testing.assert_allclose(Evaluator(loaded.model, layers, sentences).fp32_log_odds(), searched, atol=1e-5)
