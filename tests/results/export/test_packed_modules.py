"""Layers that stay packed in memory: outputs to the last bit, memory, and what such a model refuses."""

import copy
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from objectives.errors import InputError
from objectives.layers import WIDTHS, BitMap
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import Classifier, load_classifier
from objectives.memory import give_back_freed
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from results.export.packed import WEIGHTS, Checkpoint, load_checkpoint, packed_tensors, write_checkpoint
from results.export.packed_modules import PackedLayer, pack_layers, unpack_read_layers
from tests.objectives.architectures import tiny_model
from tests.objectives.tiny_bert import make_tiny_bert
from tests.results.checkpoints import hash_anew
from tests.results.random_checkpoint import memory_bytes, memory_of, write_random_checkpoint

SCHEMES = (PER_ROW, Scheme("codebook"), Scheme(group_size=4), Scheme(group_size=5))
TABLE = "deberta.encoder.rel_embeddings"
DECODED = {"deberta": {TABLE}, "deberta-v2": {TABLE}, "roformer": {"roformer.encoder.embed_positions"}}
QUICK = ("albert", "bert", "deberta-v2", "roformer")
OTHERS = (
    *("big_bird", "camembert", "convbert", "data2vec-text", "deberta", "distilbert", "electra", "ernie", "flaubert"),
    *("fnet", "funnel", "longformer", "megatron-bert", "mobilebert", "modernbert", "mpnet", "nomic_bert", "rembert"),
    *("roberta", "roberta-prelayernorm", "squeezebert", "xlm", "xlm-roberta"),
)
SENTENCES = torch.tensor([[2, 7, 8, 9, 3], [2, 9, 3, 0, 0]])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_classifier(str(make_tiny_bert(tmp_path_factory.mktemp("tiny") / "model")))


@pytest.fixture
def directory(classifier: Classifier, tmp_path: Path) -> Path:
    quantized = quantize(classifier.model, PER_ROW)
    write_checkpoint(classifier, quantized, {}, tmp_path / "packed")
    return tmp_path / "packed"


@pytest.fixture
def checkpoint(directory: Path) -> Checkpoint:
    return load_checkpoint(directory, packed=True)


def quantize(model: nn.Module, scheme: Scheme) -> QuantizedModel:
    layers = find_layers(model)
    bit_map: BitMap = tuple(int(width) for width in np.random.default_rng(1).choice(WIDTHS, size=len(layers)))
    return QuantizedModel.of(model, WeightBank(model, layers, scheme), bit_map)


def logits_of(model: nn.Module, tokens: torch.Tensor = SENTENCES) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=tokens).logits
    return logits


def packed_layers(model: nn.Module) -> list[PackedLayer]:
    return [module for module in model.modules() if isinstance(module, PackedLayer)]


@pytest.mark.parametrize("model_type", [*QUICK, *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)])
def test_outputs_are_those_of_the_decoded_model(model_type: str) -> None:
    model = tiny_model(model_type).requires_grad_(False)
    for scheme in SCHEMES if model_type == "bert" else SCHEMES[:1]:
        quantized = quantize(model, scheme)
        decoded, packed = quantized.decoded(model), copy.deepcopy(model)
        kept_apart = pack_layers(packed, quantized.footprint, quantized.bit_map, packed_tensors(quantized))
        kept_apart |= unpack_read_layers(packed, packed.config.pad_token_id)
        assert kept_apart == DECODED.get(model_type, set())
        assert len(packed_layers(packed)) == len(quantized.layers) - len(kept_apart)
        assert torch.equal(logits_of(packed), logits_of(decoded))
        for layer in quantized.layers:
            module: Any = packed.get_submodule(layer.name)
            assert torch.equal(module.weight, decoded.get_parameter(layer.parameter))


def test_a_loaded_checkpoint_keeps_the_tensors_of_its_file(directory: Path, checkpoint: Checkpoint) -> None:
    stored = load_file(directory / WEIGHTS)
    state = checkpoint.model.state_dict()
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[name], stored[name]) for name in stored)
    decoded = load_checkpoint(directory)
    assert torch.equal(logits_of(checkpoint.model), logits_of(decoded.model))
    assert checkpoint.decoded == ()
    assert decoded.decoded == tuple(layer.name for layer in decoded.footprint.layers)
    assert repr(checkpoint) == f"{repr(decoded)[:-1]}, 16 layers packed in memory)"
    assert "packed at" in repr(checkpoint.model)
    assert not any(parameter.requires_grad for parameter in checkpoint.model.parameters())
    assert find_layers(checkpoint.model) == find_layers(decoded.model)
    assert checkpoint.classifier.max_tokens == decoded.classifier.max_tokens


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_say_the_same(duplicate: Callable[[nn.Module], nn.Module], checkpoint: Checkpoint) -> None:
    expected = logits_of(checkpoint.model)
    other = duplicate(checkpoint.model)
    checkpoint.model.get_buffer("bert.pooler.dense.codes").zero_()
    assert torch.equal(logits_of(other), expected)
    assert not torch.equal(logits_of(checkpoint.model), expected)
    other.load_state_dict(checkpoint.model.state_dict())
    assert torch.equal(logits_of(other), logits_of(checkpoint.model))


def test_threads_share_a_model(checkpoint: Checkpoint) -> None:
    sentences = [torch.randint(5, 20, (3, 6), generator=torch.Generator().manual_seed(seed)) for seed in range(12)]
    expected = [logits_of(checkpoint.model, tokens) for tokens in sentences]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            actual = list(pool.map(lambda tokens: logits_of(checkpoint.model, tokens), sentences))
    finally:
        sys.setswitchinterval(interval)
    assert all(map(torch.equal, actual, expected))


def test_a_call_in_one_mode_does_not_spoil_the_next_in_another(checkpoint: Checkpoint) -> None:
    expected = logits_of(checkpoint.model)
    assert torch.equal(checkpoint.model(input_ids=SENTENCES).logits, expected)
    with torch.no_grad():
        assert torch.equal(checkpoint.model(input_ids=SENTENCES).logits, expected)


def test_a_head_can_be_trained_and_nothing_before_it(checkpoint: Checkpoint) -> None:
    model: Any = checkpoint.model
    model.classifier.requires_grad_(True)
    model.train()
    model(input_ids=SENTENCES, labels=torch.tensor([0, 1])).loss.backward()
    assert model.classifier.weight.grad.abs().sum() > 0
    model.requires_grad_(True)
    with pytest.raises(InputError, match=r"no gradients go through.*without packed=True"):
        model(input_ids=SENTENCES)


@pytest.mark.parametrize("move", [lambda model: model.half(), lambda model: model.to("meta")])
def test_other_types_and_devices_are_refused(move: Callable[[nn.Module], object], checkpoint: Checkpoint) -> None:
    expected = logits_of(checkpoint.model)
    with pytest.raises(InputError, match=r"FP32 on the CPU and cannot be moved.*without packed=True"):
        move(checkpoint.model)
    assert torch.equal(logits_of(checkpoint.model.to("cpu").float()), expected)


def test_what_a_packed_model_cannot_do_is_said(directory: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    model: Any = checkpoint.model
    with pytest.raises(InputError, match="cannot be saved"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(InputError, match="decodes on the CPU, not on cuda"):
        load_checkpoint(directory, "cuda", packed=True)
    for row in (-1, 20):
        with pytest.raises(IndexError, match="has 20 rows, was asked for rows"):
            logits_of(checkpoint.model, torch.tensor([[2, row]]))
    assert model.get_input_embeddings()(torch.empty(2, 0, dtype=torch.int32)).shape == (2, 0, 16)


def negate(tensors: dict[str, torch.Tensor]) -> None:
    tensors["bert.pooler.dense.scale"].neg_()


def spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier.bias"][0] = torch.nan


@pytest.mark.parametrize(("edit", "message"), [(negate, "scales out of range"), (spoil, "infinite or NaN")])
def test_damaged_values_are_refused(
    edit: Callable[[dict[str, torch.Tensor]], None], message: str, directory: Path
) -> None:
    tensors = load_file(directory / WEIGHTS)
    edit(tensors)
    save_file(tensors, directory / WEIGHTS, {"format": PER_ROW.format})
    with pytest.raises(InputError, match="not the file that"):
        load_checkpoint(directory, packed=True)
    hash_anew(directory)
    with pytest.raises(InputError, match=message):
        load_checkpoint(directory, packed=True)


def test_layers_that_share_a_weight_are_decoded(classifier: Classifier) -> None:
    model: Any = copy.deepcopy(classifier.model)
    query, key = (model.bert.encoder.layer[0].attention.self.get_submodule(name) for name in ("query", "key"))
    key.weight = query.weight
    quantized = quantize(model, PER_ROW)
    names = pack_layers(model, quantized.footprint, quantized.bit_map, packed_tensors(quantized))
    assert names == {f"bert.encoder.layer.0.attention.self.{name}" for name in ("query", "key")}
    assert type(key) is nn.Linear and key.weight is query.weight


NEEDS_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak memory")


@NEEDS_LINUX
def test_loading_and_calling_takes_the_packed_size_and_one_layer(tmp_path: Path) -> None:
    """The table of tokens has 31 MB in FP32, and 8 MB as 64-bit numbers of a byte each would show too."""
    shapes: dict[str, Any] = {
        "vocab_size": 30_000,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    write_random_checkpoint(tmp_path / "packed", 3, intermediate_size=1024, **shapes)
    size = (tmp_path / "packed" / WEIGHTS).stat().st_size
    give_back_freed()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = memory_bytes("VmRSS")
    model = load_checkpoint(tmp_path / "packed", packed=True).model
    logits_of(model)
    assert memory_bytes("VmHWM") - before < size + 4 * 256 * 1024 + 8_000_000 < 20_000_000


@NEEDS_LINUX
@pytest.mark.slow
def test_bert_base_at_three_bits_takes_as_much_memory_as_its_file_and_one_layer(tmp_path: Path) -> None:
    quantized = write_random_checkpoint(tmp_path / "packed", 3)
    assert quantized.footprint.compression(quantized.bit_map, "nominal") == pytest.approx(10.67, abs=0.01)
    size = (tmp_path / "packed" / WEIGHTS).stat().st_size
    memory = memory_of(tmp_path / "packed", batch=1, tokens=11)
    largest_linear = 4 * 768 * 3072
    assert memory["peak"] < size + largest_linear + 20_000_000
