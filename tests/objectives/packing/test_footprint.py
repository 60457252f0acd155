import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from objectives.bit_maps import documented_bit_map
from objectives.layers import WIDTHS, Layer, uniform
from objectives.loading.layer_discovery import find_layers
from objectives.packing.footprint import Footprint, footprint
from objectives.packing.safetensors_size import StoredTensor, safetensors_bytes
from objectives.packing.scheme import PER_ROW, Scheme
from tests.objectives.example_layers import LAYERS
from tests.objectives.random_models import bert_base_shapes, random_bert

SCHEMES = (PER_ROW, Scheme("codebook"), Scheme(group_size=4))
KEPT = {"bert.embeddings.LayerNorm.weight": (6,), "classifier.weight": (2, 3), "classifier.bias": (2,), "odd ü": (3,)}


@pytest.fixture(scope="module")
def bert_base() -> Footprint:
    model = bert_base_shapes()
    return footprint(find_layers(model), {name: tensor.shape for name, tensor in model.state_dict().items()})


def test_the_documented_map_on_bert_base(bert_base: Footprint) -> None:
    documented = documented_bit_map(bert_base.layers)
    assert bert_base.nominal_bits(documented) == 635_662_848
    assert bert_base.fp32_nominal_bits == 109_360_128 * 32
    assert round(bert_base.compression(documented, "nominal"), 4) == 5.5053
    assert bert_base.exact_compression(documented, "nominal") == Fraction(109_360_128 * 32, 635_662_848)
    assert bert_base.packed_bytes(documented) == 80_565_828
    assert bert_base.fp32_packed_bytes == 437_958_648


def test_the_documented_map_in_other_schemes(bert_base: Footprint) -> None:
    documented = documented_bit_map(bert_base.layers)
    for scheme, size_bytes in ((Scheme("codebook"), 80_485_792), (Scheme(group_size=64), 88_536_712)):
        assert replace(bert_base, scheme=scheme).packed_bytes(documented) == size_bytes


def test_scales_and_zero_points_are_little_beside_the_codes(bert_base: Footprint) -> None:
    """Of a map of 10.67x."""
    parts = {"codes": 0, "scale": 0, "zero_point": 0}
    for name, tensor in bert_base.packed_tensors(uniform(bert_base.layers, 3)).items():
        part = name.rpartition(".")[2]
        if part in parts:
            parts[part] += tensor.size_bytes
    assert parts["scale"] + parts["zero_point"] < 0.05 * parts["codes"]


def test_nominal_size_is_the_sum_over_layers() -> None:
    sizes = footprint(LAYERS, {})
    assert sizes.nominal_bits((2, 3, 4, 8)) == 11 * 6 * 2 + 6 * 6 * 3 + 9 * 6 * 4 + 5 * 3 * 8


@pytest.mark.parametrize("width", WIDTHS)
def test_a_uniform_map_compresses_by_32_over_its_width(bert_base: Footprint, width: int) -> None:
    bit_map = uniform(bert_base.layers, width)
    assert bert_base.exact_compression(bit_map, "nominal") == Fraction(32, width)
    assert bert_base.compression(bit_map, "packed") < 32 / width  # scales, zero points and the rest weigh something
    assert bert_base.highest_compression("nominal") == 16


def write(path: Path, tensors: dict[str, StoredTensor], metadata: dict[str, str]) -> int:
    """Write a file of zeros with the safetensors library and return its length."""
    dtypes = {"F32": torch.float32, "U8": torch.uint8}
    save_file({name: torch.zeros(t.shape, dtype=dtypes[t.dtype]) for name, t in tensors.items()}, path, metadata)
    return path.stat().st_size


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_packed_size_is_the_length_of_the_file(scheme: Scheme, tmp_path: Path) -> None:
    sizes = footprint(LAYERS, KEPT, scheme)
    rng = np.random.default_rng(0)
    for number in range(20):
        bit_map = tuple(int(width) for width in rng.choice(WIDTHS, size=len(LAYERS)))
        path = tmp_path / f"{number}.safetensors"
        assert write(path, sizes.packed_tensors(bit_map), sizes.packed_metadata) == sizes.packed_bytes(bit_map), bit_map


def test_fp32_size_is_the_length_of_the_saved_model(tmp_path: Path) -> None:
    model = random_bert()
    model.save_pretrained(tmp_path)
    sizes = footprint(find_layers(model), {name: tensor.shape for name, tensor in model.state_dict().items()})
    assert (tmp_path / "model.safetensors").stat().st_size == sizes.fp32_packed_bytes


def test_the_file_length_of_random_tensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for number in range(30):
        tensors = {
            f"tensor.{rng.integers(10**6)}": StoredTensor(
                "F32" if rng.random() < 0.5 else "U8",
                tuple(int(n) for n in rng.integers(0, 40, size=rng.integers(0, 3))),
            )
            for _ in range(rng.integers(1, 12))
        }
        metadata = {"format": "x" * int(rng.integers(0, 9))}
        path = tmp_path / f"{number}.safetensors"
        assert write(path, tensors, metadata) == safetensors_bytes(tensors, metadata), json.dumps(list(tensors))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_format_names_its_scheme(scheme: Scheme) -> None:
    assert Scheme.of_format(scheme.format) == scheme
    assert PER_ROW.format == "bitfront-packed-2"  # of the files that are there already
    for text in ("", "pt", scheme.format + " ", scheme.format.upper()):
        with pytest.raises(ValueError, match="no packed format"):
            Scheme.of_format(text)


def test_codewords_take_four_bytes_each_and_no_zero_points() -> None:
    tensors = footprint(LAYERS, {}, Scheme("codebook")).packed_tensors((3, 2, 7, 5))
    assert tensors["bert.pooler.dense.scale"] == StoredTensor("F32", (5,))
    assert tensors["bert.pooler.dense.codewords"] == StoredTensor("F32", (32,))
    assert len(tensors) == 3 * len(LAYERS)


def test_each_group_of_columns_has_a_scale_and_a_zero_point() -> None:
    tensors = footprint(LAYERS, {}, Scheme(group_size=4)).packed_tensors((3, 2, 7, 5))
    assert tensors["bert.encoder.layer.0.intermediate.dense.scale"] == StoredTensor("F32", (9, 2))  # 4 columns and 2
    assert tensors["bert.encoder.layer.0.intermediate.dense.zero_point"] == StoredTensor("U8", (9, 2))
    assert tensors["bert.pooler.dense.scale"] == StoredTensor("F32", (5, 1))


def test_schemes_that_cannot_be_are_refused() -> None:
    for kind, group_size in (("codebook", 4), ("affine", -1)):
        with pytest.raises(ValueError, match="takes no groups"):
            Scheme(kind, group_size)  # type: ignore[arg-type]


def test_a_packed_tensor_holds_every_code() -> None:
    tensors = footprint(LAYERS, {}).packed_tensors((3, 2, 7, 5))
    assert tensors["bert.pooler.dense.codes"].shape == (10,)  # 75 bits in 10 bytes
    assert tensors["bert.pooler.dense.scale"] == StoredTensor("F32", (5,))
    assert tensors["bert.pooler.dense.zero_point"] == StoredTensor("U8", (5,))


def test_weights_that_are_not_searched_are_named_with_their_share() -> None:
    layers = (Layer("body.words", "embedding", 60, 10), Layer("body.block.0.dense", "linear", 10, 10))
    vectors = {"body.block.0.norm.weight": (100,)}
    convolutions = {f"body.block.{block}.conv.weight": (10, 5, 2) for block in range(2)}
    sizes = footprint(layers, vectors | convolutions | {"head.weight": (2, 5)})
    assert sizes.unsearched.startswith(
        "3 weights with 21% of the FP32 bytes stay as they are (body.block.*.conv.weight, head.weight); "
    )
    assert not footprint(layers, vectors | {"head.weight": (2, 4)}).unsearched  # 8 of 808: below one percent
    assert footprint(layers, {"head.weight": (2, 5)}).unsearched
