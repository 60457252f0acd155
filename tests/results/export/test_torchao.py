from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from objectives.bit_maps import read_bit_map
from objectives.errors import InputError
from objectives.layers import WIDTHS, uniform
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import load_classifier
from objectives.packing.scheme import Scheme
from objectives.quantization.affine import AffineParameters, storable_zero_point
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from results.export.packed import read_quantized, write_checkpoint
from results.export.torchao import WEIGHTS, write_torchao
from tests.objectives.tiny_bert import make_tiny_bert

NEEDS_TORCHAO = pytest.mark.skipif(not find_spec("torchao"), reason="torchao is not installed; it is an extra")


@NEEDS_TORCHAO
@pytest.mark.parametrize("group_size", [0, 8, 16])  # layers have 16 and 32 columns
@pytest.mark.parametrize("fractional", [False, True], ids=["whole zero points", "fractional zero points"])
def test_from_pretrained_loads_the_same_weights(fractional: bool, group_size: int, tmp_path: Path) -> None:
    classifier = load_classifier(str(make_tiny_bert(tmp_path / "model")))
    layers = find_layers(classifier.model)
    bit_map = tuple(WIDTHS[index % len(WIDTHS)] for index in range(len(layers)))
    bank = WeightBank(classifier.model, layers, Scheme(group_size=group_size))
    if fractional:
        for layer, width in zip(layers, bit_map, strict=True):
            codes, chosen = bank.entry(layer, width)
            assert isinstance(chosen, AffineParameters)
            zero_point = storable_zero_point(chosen.zero_point + 0.37, width)
            bank.fill(layer, {width: (codes, replace(chosen, zero_point=zero_point))})
    quantized = QuantizedModel.of(classifier.model, bank, bit_map)
    length = write_torchao(classifier, quantized, {"run": "x"}, tmp_path / "ao")
    assert (tmp_path / "ao" / WEIGHTS).stat().st_size == length
    assert read_bit_map(tmp_path / "ao" / "bitmap.txt", layers) == bit_map

    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ao").eval()
    decoded = quantized.decoded(classifier.model)
    for layer, width in zip(layers, bit_map, strict=True):
        weight = loaded.get_parameter(layer.parameter)
        assert weight.target_dtype == getattr(torch, f"int{width}")
        assert torch.equal(weight.dequantize(), decoded.get_parameter(layer.parameter))
    inputs = AutoTokenizer.from_pretrained(tmp_path / "ao")("the cat sleeps", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, decoded(**inputs).logits)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme("codebook"), "cannot hold a codebook's codewords; export --format packed"),
        (Scheme(group_size=5), "bert.embeddings.word_embeddings has 16 columns in groups of 5"),
    ],
)
def test_schemes_that_torchao_cannot_express_are_refused(scheme: Scheme, message: str, tmp_path: Path) -> None:
    classifier = load_classifier(str(make_tiny_bert(tmp_path / "model")))
    layers = find_layers(classifier.model)
    bank = WeightBank(classifier.model, layers, scheme)
    with pytest.raises(InputError, match=message):
        write_torchao(
            classifier, QuantizedModel.of(classifier.model, bank, uniform(layers, 4)), {}, tmp_path / "torchao"
        )
    assert not (tmp_path / "torchao").exists()


@NEEDS_TORCHAO
def test_a_packed_checkpoint_exports_unchanged(tmp_path: Path) -> None:
    classifier = load_classifier(str(make_tiny_bert(tmp_path / "model")))
    layers = find_layers(classifier.model)
    bit_map = tuple(WIDTHS[index % len(WIDTHS)] for index in range(len(layers)))
    bank = WeightBank(classifier.model, layers, Scheme(group_size=8))
    quantized = QuantizedModel.of(classifier.model, bank, bit_map)
    polished = replace(quantized, kept={name: tensor * 1.25 for name, tensor in quantized.kept.items()})
    write_checkpoint(classifier, polished, {}, tmp_path / "packed")
    write_torchao(*read_quantized(tmp_path / "packed"), {}, tmp_path / "ao")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ao").eval()
    inputs = classifier.tokenizer("the cat sleeps", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, polished.decoded(classifier.model)(**inputs).logits)


@NEEDS_TORCHAO
def test_a_directory_is_never_overwritten(tmp_path: Path) -> None:
    classifier = load_classifier(str(make_tiny_bert(tmp_path / "model")))
    layers = find_layers(classifier.model)
    quantized = QuantizedModel.of(classifier.model, WeightBank(classifier.model, layers), uniform(layers, 4))
    with pytest.raises(FileExistsError):
        write_torchao(classifier, quantized, {}, tmp_path / "model")
