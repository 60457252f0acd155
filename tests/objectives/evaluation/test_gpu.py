"""What a GPU computes, against the CPU.

Without a GPU, Triton's interpreter runs the kernels on the CPU if triton is installed, as it is in CI:
``TRITON_INTERPRET=1 pytest tests/objectives/evaluation/test_gpu.py``.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import BertConfig, BertForSequenceClassification

from objectives.evaluation.attention import KernelAttention, PaddedAttention, RunAttention
from objectives.evaluation.cuda_graphs import kernels_on, multiplies_bf16
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.forward import WeightSlot
from objectives.evaluation.packed_bert import PackedBert
from objectives.layers import WIDTHS, BitMap, uniform
from objectives.loading.layer_discovery import find_layers
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.bank import FP32_WIDTH, WeightBank
from objectives.quantization.bank_cache import Quantizer, make_bank
from objectives.quantization.dispatch import round_to_nearest
from objectives.quantization.parameters import decode
from objectives.scores import LogOdds, Precision
from tests.objectives.architectures import tiny_model
from tests.objectives.random_models import random_bert, random_types

HAS_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_gpu = pytest.mark.skipif(not HAS_GPU or INTERPRETED, reason="no GPU")
needs_kernels = pytest.mark.skipif(
    not (HAS_GPU or INTERPRETED) or find_spec("triton") is None,
    reason="needs triton, and a GPU or its interpreter (TRITON_INTERPRET=1)",
)
needs_interpreter = pytest.mark.skipif(
    not INTERPRETED or find_spec("triton") is None, reason="needs Triton's interpreter (TRITON_INTERPRET=1)"
)
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DTYPES = [torch.float32] if INTERPRETED else list(TOLERANCE)  # the interpreter multiplies no bf16
HEADS = 3
LENGTHS = [1, 2, 2, 15, 16, 16, 17, 40, 64, 65, 128]


@pytest.fixture
def kernels() -> ModuleType:
    from objectives.evaluation import triton_kernels as kernels

    return kernels


@pytest.fixture
def model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=600,
    )
    made: BertForSequenceClassification = BertForSequenceClassification(config).eval()
    return made


def sentences_of(lengths: Sequence[int]) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[int(token) for token in rng.integers(5, 50, size=length)] for length in lengths]


def random_maps(n_layers: int, n: int = 4) -> list[BitMap]:
    rng = np.random.default_rng(0)
    return [tuple(int(width) for width in rng.choice(WIDTHS, size=n_layers)) for _ in range(n)]


@needs_kernels
@pytest.mark.parametrize("lengths", [LENGTHS, [5], [1, 1]], ids=["many", "one", "shortest"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [16, 64])
def test_attention(kernels: ModuleType, size: int, dtype: torch.dtype, lengths: list[int]) -> None:
    torch.manual_seed(0)
    lengths = [length for length in lengths if kernels.can_attend(length, size, dtype)]
    hidden = HEADS * size
    projected = torch.randn(sum(lengths), 3 * hidden).to(dtype)
    first = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
    queries, keys_values = projected[first, :hidden], projected[:, hidden:].contiguous()
    expected = RunAttention(lengths, HEADS, torch.float32)
    ragged = kernels.Ragged.of(lengths, torch.device(DEVICE))
    found = kernels.attend(projected.to(DEVICE), ragged, HEADS)
    assert found.dtype == dtype
    torch.testing.assert_close(found.cpu().float(), expected(projected.float()), atol=TOLERANCE[dtype], rtol=0)
    found = kernels.attend_from_first(queries.to(DEVICE), keys_values.to(DEVICE), ragged, HEADS)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.cpu().float(),
        expected.of_first_tokens(queries.float(), keys_values.float()),
        atol=TOLERANCE[dtype],
        rtol=0,
    )


@needs_kernels
def test_what_the_kernel_attends_to(kernels: ModuleType) -> None:
    for longest, size, dtype in ((128, 64, torch.bfloat16), (64, 64, torch.float32), (5, 16, torch.float32)):
        assert kernels.can_attend(longest, size, dtype)
    for longest, size, dtype in ((129, 64, torch.bfloat16), (65, 64, torch.float32), (5, 8, torch.float32)):
        assert not kernels.can_attend(longest, size, dtype)
    assert not kernels.can_attend(5, 48, torch.float32)


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_norm_of_a_sum(kernels: ModuleType, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, residual = (torch.randn(5, 48).to(dtype) for _ in range(2))
    weight, bias = (torch.randn(48).to(dtype) for _ in range(2))
    expected = F.layer_norm(x.float() + residual.float(), (48,), weight.float(), bias.float(), 1e-12)
    found = kernels.add_norm(*(part.to(DEVICE) for part in (x, residual, weight, bias)), 1e-12, torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)
    found = kernels.add_norm(*(part.to(DEVICE) for part in (x, residual, weight, bias)), 1e-12, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found.cpu().float(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@needs_kernels
def test_weights_are_decoded_together_as_one_by_one(kernels: ModuleType) -> None:
    torch.manual_seed(0)
    shapes = [(40, 32), (64, 600), (33, 548), (5, 7)]
    picked = [None, torch.tensor([3, 5, 60, 1]).to(DEVICE), None, None]
    dtypes = [torch.float32, torch.float32, torch.bfloat16, torch.bfloat16]
    slots = [
        WeightSlot(torch.full((rows if some is None else len(some), columns), 7.0, dtype=dtype, device=DEVICE), some)
        for (rows, columns), some, dtype in zip(shapes, picked, dtypes, strict=True)
    ]
    decoder = kernels.Decoder(slots)
    expected = [slot.out.clone() for slot in slots]
    widths = {0: 4, 1: 2, 2: 8}  # the last one is left as it is
    for index, width in widths.items():
        codes, parameters = round_to_nearest(PER_ROW, torch.randn(shapes[index]).to(DEVICE), width)
        assert not decoder.has_entry(index, width)
        decoder.add(index, width, codes, *parameters.tensors().values())
        assert decoder.has_entry(index, width)
        weight, some = decode(codes, parameters), picked[index]
        expected[index] = (weight if some is None else weight[some]).to(dtypes[index])
    decoder.decode(widths)
    for slot, weight in zip(slots, expected, strict=True):
        # The interpreter cuts off what a GPU rounds to bf16.
        tolerance = 2**-7 if INTERPRETED and weight.dtype == torch.bfloat16 else 0
        torch.testing.assert_close(slot.out, weight, rtol=tolerance, atol=0)


@needs_interpreter
@pytest.mark.parametrize("scheme", [PER_ROW, Scheme("codebook")], ids=str)
def test_a_map_scores_alike_through_interpreted_kernels(
    kernels: ModuleType, scheme: Scheme, model: BertForSequenceClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, sentences = find_layers(model), sentences_of([3, 17, 7])
    maps = [*random_maps(len(layers), 1), uniform(layers, FP32_WIDTH)]

    def score_maps() -> list[LogOdds]:
        evaluator = Evaluator(model, layers, sentences, bank=WeightBank(model, layers, scheme))
        return [evaluator.log_odds(bit_map) for bit_map in maps]

    def attention_by_kernel(
        lengths: Sequence[int], heads: int, head_size: int, device: torch.device, dtype: torch.dtype
    ) -> KernelAttention:
        assert kernels.can_attend(lengths[-1], head_size, dtype)
        return KernelAttention(kernels, lengths, heads, device)

    expected = score_maps()
    for module in ("weight_writer", "parts"):
        monkeypatch.setattr(f"objectives.evaluation.{module}.kernels_on", lambda _: kernels)
    monkeypatch.setattr("objectives.evaluation.packed_bert.make_attention", attention_by_kernel)
    np.testing.assert_allclose(score_maps(), expected, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize("scheme", [PER_ROW, Scheme("codebook"), Scheme(group_size=16)], ids=str)
@pytest.mark.parametrize("lengths", [[3, 30, 7] * 9, [4, 600, 9]], ids=["short", "longer than the kernel takes"])
def test_a_map_scores_as_on_the_cpu(scheme: Scheme, lengths: list[int], model: BertForSequenceClassification) -> None:
    layers, sentences = find_layers(model), sentences_of(lengths)
    maps = [*random_maps(len(layers)), uniform(layers, FP32_WIDTH)]
    expected = [Evaluator(model, layers, sentences, bank=WeightBank(model, layers, scheme)).log_odds(m) for m in maps]
    model.to("cuda")  # type: ignore[arg-type]
    evaluator = Evaluator(model, layers, sentences, bank=WeightBank(model, layers, scheme))
    search_evaluator = Evaluator(model, layers, sentences, "bf16", evaluator.bank)
    for bit_map, log_odds in zip(maps, expected, strict=True):
        np.testing.assert_allclose(evaluator.log_odds(bit_map), log_odds, atol=1e-5)
        np.testing.assert_allclose(search_evaluator.log_odds(bit_map), log_odds, atol=2e-2)


@needs_gpu
@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "electra"])
def test_pairs_score_as_on_the_cpu_by_other_architectures(model_type: str) -> None:
    other, sentences = tiny_model(model_type, num_labels=3), sentences_of([3, 30, 7] * 9)
    layers, types = find_layers(other), random_types(sentences)
    maps = [*random_maps(len(layers), 2), uniform(layers, FP32_WIDTH)]
    on_cpu = Evaluator(other, layers, sentences, token_types=types)
    expected = [on_cpu.logits(bit_map) for bit_map in maps]
    other.to("cuda")  # type: ignore[arg-type]
    evaluator = Evaluator(other, layers, sentences, token_types=types)
    for bit_map, logits in zip(maps, expected, strict=True):
        np.testing.assert_allclose(evaluator.logits(bit_map, remember=True), logits, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_scores_the_same_whatever_it_scored_before(
    precision: Precision, model: BertForSequenceClassification
) -> None:
    model.to("cuda")  # type: ignore[arg-type]
    layers, sentences = find_layers(model), sentences_of([9, 3, 30] * 9)
    maps = random_maps(len(layers), 2)
    low, high = maps
    changed = [(*low[:at], *high[at:]) for at in range(len(layers))]
    expected = [Evaluator(model, layers, sentences, precision).log_odds(bit_map) for bit_map in changed]
    evaluator, other = (Evaluator(model, layers, sentences, precision) for _ in range(2))
    evaluator.log_odds(low, remember=True)
    for bit_map, log_odds in zip(changed, expected, strict=True):
        other.log_odds(high)  # has graphs and memory of its own
        assert np.array_equal(evaluator.log_odds(bit_map), log_odds)


@needs_gpu
def test_sentences_of_many_chunks(model: BertForSequenceClassification, monkeypatch: pytest.MonkeyPatch) -> None:
    model.to("cuda")  # type: ignore[arg-type]
    layers, sentences = find_layers(model), sentences_of([9, 3, 30] * 9)
    whole = Evaluator(model, layers, sentences).fp32_log_odds()
    monkeypatch.setattr("objectives.evaluation.layout._GPU_CHUNK_TOKENS", 64)
    parts = Evaluator(model, layers, sentences)
    assert isinstance(parts._forward, PackedBert)
    assert len(parts._forward._chunks) > 2
    np.testing.assert_allclose(parts.fp32_log_odds(), whole, atol=1e-5)


@needs_gpu
def test_calibrated_codes_are_those_of_the_cpu(model: BertForSequenceClassification, tmp_path: Path) -> None:
    layers = find_layers(model)
    quantizer = Quantizer("calibrated", tuple(map(tuple, sentences_of([9, 3, 30] * 9))))
    on_cpu = make_bank(quantizer, model, layers, "m", tmp_path / "cpu", lambda _: None)
    model.to("cuda")  # type: ignore[arg-type]
    on_gpu = make_bank(quantizer, model, layers, "m", tmp_path / "gpu", lambda _: None)
    assert on_gpu.fingerprint == on_cpu.fingerprint
    assert {on_gpu.entry(layer, 3)[0].device.type for layer in layers} == {"cuda"}


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_kernels_that_cannot_run_are_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr("objectives.evaluation.cuda_graphs.find_spec", lambda _: True)
    with caplog.at_level("WARNING", logger="bitfront"):
        assert kernels_on.__wrapped__(torch.device("cuda")) is None
    assert "slower" in caplog.text
    assert kernels_on.__wrapped__(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not multiplies_bf16(torch.device("cuda"))


@needs_gpu
def test_heads_that_the_kernel_does_not_take() -> None:
    small = random_bert()
    layers, sentences = find_layers(small), sentences_of([5, 9, 4])
    expected = Evaluator(small, layers, sentences).fp32_log_odds()
    small.to("cuda")  # type: ignore[arg-type]
    evaluator = Evaluator(small, layers, sentences)
    assert isinstance(evaluator._forward, PackedBert)
    assert isinstance(evaluator._forward._chunks[0].attention, PaddedAttention)
    np.testing.assert_allclose(evaluator.fp32_log_odds(), expected, atol=1e-5)
