import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from objectives.errors import InputError
from objectives.evaluation.evaluator import Evaluator
from objectives.layers import WIDTHS, BitMap, Layer
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import Classifier, load_classifier
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.bank import WeightBank
from objectives.quantization.dispatch import groups_of
from objectives.quantization.gptq import HessianFactors, quantize_gptq
from objectives.quantization.quantized_model import QuantizedModel
from results.export.packed import BIT_MAP, MANIFEST, WEIGHTS, load_checkpoint, read_manifest, write_checkpoint
from tests.objectives.random_models import random_bert
from tests.objectives.tiny_bert import make_tiny_bert
from tests.results.checkpoints import hash_anew


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_classifier(str(make_tiny_bert(tmp_path_factory.mktemp("tiny") / "model")))


@pytest.fixture(scope="module")
def bit_map(classifier: Classifier) -> BitMap:
    rng = np.random.default_rng(0)
    return tuple(int(width) for width in rng.choice(WIDTHS, size=len(find_layers(classifier.model))))


def quantized_by(classifier: Classifier, bit_map: BitMap, scheme: Scheme = PER_ROW) -> QuantizedModel:
    bank = WeightBank(classifier.model, find_layers(classifier.model), scheme)
    return QuantizedModel.of(classifier.model, bank, bit_map)


@pytest.fixture
def directory(classifier: Classifier, bit_map: BitMap, tmp_path: Path) -> Path:
    write_checkpoint(classifier, quantized_by(classifier, bit_map), {"run": "x"}, tmp_path / "packed")
    return tmp_path / "packed"


def test_the_file_has_the_packed_size(classifier: Classifier, bit_map: BitMap, directory: Path) -> None:
    assert (directory / WEIGHTS).stat().st_size == footprint_of(classifier.model).packed_bytes(bit_map)
    assert read_manifest(directory)["run"] == "x"
    assert (directory / WEIGHTS).stat().st_mode == (directory / MANIFEST).stat().st_mode
    assert not list(directory.glob("model.safetensors"))  # transformers would initialise the missing weights at random


def test_a_loaded_model_scores_exactly_like_its_map(classifier: Classifier, bit_map: BitMap, directory: Path) -> None:
    sentences = [[2, 7, 8, 3], [2, 9, 3], [2, 5, 6, 7, 8, 3]]
    layers = find_layers(classifier.model)
    evaluator = Evaluator(classifier.model, layers, sentences)
    checkpoint = load_checkpoint(directory)
    loaded = checkpoint.classifier
    assert checkpoint.bit_map == bit_map
    assert checkpoint.footprint == footprint_of(classifier.model)
    assert np.array_equal(Evaluator(loaded.model, layers, sentences).fp32_log_odds(), evaluator.log_odds(bit_map))
    with torch.inference_mode():
        logits = loaded.model(**loaded.tokenizer("the cat sleeps", return_tensors="pt")).logits
    assert logits.isfinite().all()
    for name, tensor in classifier.model.state_dict().items():
        if name in footprint_of(classifier.model).kept:
            assert torch.equal(loaded.model.state_dict()[name], tensor)


def test_a_path_is_a_text_or_a_path_and_a_checkpoint_says_shortly_what_it_is(directory: Path) -> None:
    checkpoint = load_checkpoint(str(directory))
    assert checkpoint.model(**checkpoint.tokenizer("the cat sleeps", return_tensors="pt")).logits.shape == (1, 2)
    size = (directory / WEIGHTS).stat().st_size
    layers = len(checkpoint.bit_map)
    assert repr(checkpoint) == (
        f"Checkpoint({str(directory)!r}: BertForSequenceClassification, {layers} layers, {size:,} bytes packed)"
    )
    assert read_manifest(str(directory)) == read_manifest(directory)
    with pytest.raises(TypeError):  # our callers' own mistakes are no damaged files
        load_checkpoint(None)  # type: ignore[arg-type]


def test_what_is_no_packed_checkpoint_is_called_by_its_name(directory: Path) -> None:
    with pytest.raises(InputError, match="there is no such directory"):
        load_checkpoint(directory / "missing")
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["provenance"] = {"torchao": {"file_bytes": 1}}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"is a torchao checkpoint.*from_pretrained.*--format packed"):
        load_checkpoint(directory)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scheme", [PER_ROW, Scheme("codebook"), Scheme(group_size=6)], ids=str)
def test_a_model_loads_on_the_given_device(
    device: str, scheme: Scheme, classifier: Classifier, bit_map: BitMap, tmp_path: Path
) -> None:
    quantized = quantized_by(classifier, bit_map, scheme)
    write_checkpoint(classifier, quantized, {}, tmp_path / "packed")
    loaded = load_checkpoint(tmp_path / "packed", device).classifier.model.state_dict()
    expected = quantized.decoded(classifier.model).state_dict()
    for name, tensor in loaded.items():
        assert tensor.device.type == device
        torch.testing.assert_close(tensor.cpu(), expected[name], rtol=0, atol=0)


def test_a_directory_is_never_overwritten(classifier: Classifier, bit_map: BitMap, directory: Path) -> None:
    with pytest.raises(FileExistsError):
        write_checkpoint(classifier, quantized_by(classifier, bit_map), {}, directory)
    load_checkpoint(directory)


def change(directory: Path, edit: Callable[[dict[str, torch.Tensor]], None], scheme: str) -> None:
    """Change tensors and update the hash, so that only the other checks can find the fault."""
    tensors = load_file(directory / WEIGHTS)
    edit(tensors)
    save_file(tensors, directory / WEIGHTS, {"format": scheme})
    hash_anew(directory)


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
    ("edit", "message"),
    [
        (spoil_kept, "infinite or NaN"),
        (drop, "tensors are not those"),
        (shorten, "type or shape"),
        (retype, "type or shape"),
        (negate, "out of range"),
        (spoil, "out of range"),
    ],
)
def test_tensors_that_do_not_fit_the_map_are_refused(
    directory: Path, edit: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    change(directory, edit, PER_ROW.format)
    with pytest.raises(InputError, match=message):
        load_checkpoint(directory)


def test_files_of_another_kind_are_refused(directory: Path) -> None:
    for format_, message in (
        ("pt", "format is unknown"),
        (Scheme("codebook").format, "bit map or size does not match"),
    ):
        change(directory, lambda tensors: None, format_)
        with pytest.raises(InputError, match=message):
            load_checkpoint(directory)


def unsettle(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.codewords"] = tensors[f"{POOLER}.codewords"].flip(0)


def spoil_codewords(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.codewords"][-1] = torch.inf


def shorten_codewords(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{POOLER}.codewords"] = tensors[f"{POOLER}.codewords"][:-1].clone()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (unsettle, "not finite and rising"),
        (spoil_codewords, "not finite and rising"),
        (shorten_codewords, "type or shape"),
        (negate, "out of range"),
        (drop, "tensors are not those"),
    ],
)
def test_impossible_codewords_are_refused(
    classifier: Classifier,
    bit_map: BitMap,
    edit: Callable[[dict[str, torch.Tensor]], None],
    message: str,
    tmp_path: Path,
) -> None:
    scheme = Scheme("codebook")
    write_checkpoint(classifier, quantized_by(classifier, bit_map, scheme), {}, tmp_path / "packed")
    assert load_checkpoint(tmp_path / "packed").footprint.scheme == scheme
    change(tmp_path / "packed", edit, scheme.format)
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / "packed")


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_truncated_files_are_refused(directory: Path, cut: int) -> None:
    path = directory / WEIGHTS
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="not the file that"):
        load_checkpoint(directory)
    hash_anew(directory)
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
            hash_anew(directory)
    with pytest.raises(InputError, match="export it again"):
        load_checkpoint(directory)


def test_files_that_were_not_exported_are_refused(directory: Path) -> None:
    """A tokenizer would read some of them; no loader reads Markdown or hidden files."""
    (directory / "README.md").write_text("words")
    (directory / ".gitattributes").write_text("words")
    load_checkpoint(directory)
    (directory / "special_tokens_map.json").write_text("{}")
    with pytest.raises(InputError, match="not listed in"):
        load_checkpoint(directory)


def slowly_unpacked(stream: bytes, width: int, count: int) -> list[int]:
    number = int.from_bytes(stream, "little")
    return [number >> (width * index) & (2**width - 1) for index in range(count)]


def bank_of(model: torch.nn.Module, bit_map: BitMap, quantizer: str, group_size: int, seed: int) -> WeightBank:
    """Return a bank, quantised by GPTQ on random inputs if the quantizer is ``calibrated``."""
    layers = find_layers(model)
    scheme = Scheme("codebook") if quantizer == "codebook" else Scheme(group_size=group_size)
    bank = WeightBank(model, layers, scheme)
    if quantizer == "calibrated":
        for layer, width in zip(layers, bit_map, strict=True):
            inputs = torch.randn(50, layer.columns, generator=torch.Generator().manual_seed(seed))
            weight = model.get_parameter(layer.parameter).detach()
            factors = HessianFactors.of(inputs.T @ inputs)
            bank.fill(layer, {width: quantize_gptq(weight, width, factors, groups_of(scheme, weight))})
    return bank


def slowly_decoded(stored: dict[str, torch.Tensor], layer: Layer, codes: list[int], width: int, size: int) -> Any:
    """Decode a layer's weights one at a time in double precision."""
    scales = stored[f"{layer.name}.scale"].view(layer.rows, -1).tolist()
    weights = np.empty((layer.rows, layer.columns))
    for index, code in enumerate(codes):
        row, column = divmod(index, layer.columns)
        group = column // size if size else 0
        if f"{layer.name}.codewords" in stored:
            step = stored[f"{layer.name}.codewords"].tolist()[code]
        else:
            byte = int(stored[f"{layer.name}.zero_point"].view(layer.rows, -1)[row, group])
            step = code - byte / 2 ** (8 - width)
        weights[row, column] = scales[row][group] * step
    return weights


@pytest.mark.end_to_end
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    quantizer=st.sampled_from(["affine", "codebook", "calibrated"]),
    group_size=st.integers(0, 13),
    half_hidden=st.integers(2, 8),
    intermediate=st.integers(3, 30),
    vocabulary=st.integers(21, 33),
)
@example(seed=0, quantizer="affine", group_size=0, half_hidden=3, intermediate=7, vocabulary=23)
@example(seed=1, quantizer="calibrated", group_size=0, half_hidden=5, intermediate=9, vocabulary=21)
@example(seed=2, quantizer="calibrated", group_size=4, half_hidden=5, intermediate=13, vocabulary=22)
@example(seed=3, quantizer="codebook", group_size=0, half_hidden=7, intermediate=11, vocabulary=27)
def test_random_maps_of_odd_shapes_load_bit_for_bit(
    seed: int,
    quantizer: str,
    group_size: int,
    half_hidden: int,
    intermediate: int,
    vocabulary: int,
    classifier: Classifier,
) -> None:
    rng = np.random.default_rng(seed)
    shapes = {"hidden_size": 2 * half_hidden, "intermediate_size": intermediate, "vocab_size": vocabulary}
    model = random_bert(seed, num_hidden_layers=1, max_position_embeddings=24, **shapes)
    layers = find_layers(model)
    bit_map = tuple(int(width) for width in rng.choice(WIDTHS, size=len(layers)))
    bank = bank_of(model, bit_map, quantizer, group_size, seed)
    quantized = QuantizedModel.of(model, bank, bit_map)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "packed"
        length = write_checkpoint(Classifier(model, classifier.tokenizer, "random"), quantized, {}, directory)
        assert (directory / WEIGHTS).stat().st_size == length == quantized.footprint.packed_bytes(bit_map)
        stored = load_file(directory / WEIGHTS)
        checkpoint = load_checkpoint(directory)
        packed = load_checkpoint(directory, packed=True) if seed < 8 else checkpoint
    assert checkpoint.bit_map == packed.bit_map == bit_map
    assert checkpoint.footprint == packed.footprint == quantized.footprint
    loaded = checkpoint.classifier.model
    for layer, width in zip(layers, bit_map, strict=True):
        codes = slowly_unpacked(stored[f"{layer.name}.codes"].numpy().tobytes(), width, layer.elements)
        assert codes == bank.entry(layer, width)[0].flatten().tolist()
        weight = loaded.get_parameter(layer.parameter)
        expected = torch.empty_like(weight)
        bank.write_weight(layer, width, expected)
        assert torch.equal(weight, expected)
        slowly = slowly_decoded(stored, layer, codes, width, quantized.scheme.group_size)
        np.testing.assert_allclose(weight.double().numpy(), slowly, rtol=1e-6)
    tokens = torch.from_numpy(rng.integers(5, vocabulary, size=(2, 7)))
    with torch.inference_mode():
        assert torch.equal(packed.model(input_ids=tokens).logits, loaded(input_ids=tokens).logits)
    sentences = [[int(token) for token in rng.integers(5, vocabulary, size=length)] for length in (3, 9, 5, 9)]
    searched = Evaluator(model, layers, sentences, bank=bank).log_odds(bit_map)
    np.testing.assert_allclose(Evaluator(loaded, layers, sentences).fp32_log_odds(), searched, atol=1e-5)
