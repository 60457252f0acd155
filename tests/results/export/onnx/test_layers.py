from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="onnx is not installed; it is an extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; it is an extra")

from objectives.errors import InputError
from objectives.layers import WIDTHS, Layer
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.affine import AffineParameters, column_groups, storable_zero_point
from objectives.quantization.dispatch import round_to_nearest
from objectives.quantization.parameters import Entry, decode
from results.export.onnx import Activations
from results.export.onnx.coded import Place
from results.export.onnx.fragments import Fragment
from results.export.onnx.layers import check_scheme, fp32_layer, quantized_layer

ROWS = 21
TOKENS = 5


def random_entry(layer: Layer, width: int, scheme: Scheme, seed: int) -> Entry:
    """Return random codes with fractional zero points, as distillation makes them."""
    rng = torch.Generator().manual_seed(seed)
    groups = column_groups(layer.columns, scheme.group_size)
    shape = layer.rows, scheme.n_groups(layer)
    zero_point = storable_zero_point(torch.rand(shape, generator=rng) * 2**width, width)
    parameters = AffineParameters(torch.rand(shape, generator=rng) + 0.01, zero_point, width, groups)
    codes = torch.randint(0, 2**width, (layer.rows, layer.columns), generator=rng, dtype=torch.uint8)
    return codes, parameters


def computed(fragments: list[Fragment], outputs: list[str], given: np.ndarray) -> list[np.ndarray]:
    """Return what onnxruntime computes of one input that all fragments read."""
    kind = onnx.TensorProto.FLOAT if given.dtype == np.float32 else onnx.TensorProto.INT64
    shape = ["tokens", *given.shape[1:]]
    graph = onnx.helper.make_graph(
        [node for fragment in fragments for node in fragment.nodes],
        "layers",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["tokens", f"columns of {name}"])
            for name in outputs
        ],
        [tensor.proto() for fragment in fragments for tensor in fragment.tensors],
    )
    for fragment in fragments:  # what is said of sizes is what is written
        alone = onnx.GraphProto(node=fragment.nodes, initializer=[tensor.proto() for tensor in fragment.tensors])
        assert alone.ByteSize() == fragment.size_bytes
    operators = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=operators, ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(outputs, {"x": given}))


@pytest.mark.parametrize("activations", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("columns", "group_size"),
    [(16, 0), (30, 0), (312, 0), (384, 0), (768, 0), (96, 32), (312, 48), (100, 16), (100, 256), (520, 512)],
)
def test_each_width_computes_the_exact_products(columns: int, group_size: int, activations: Activations) -> None:
    """Of ragged last blocks and groups, too; inputs are whole numbers that 8 bits hold, so int8 is exact here."""
    scheme = Scheme(group_size=group_size)
    rng = np.random.default_rng(columns)
    x = rng.integers(-100, 101, size=(TOKENS, columns)).astype(np.float32)
    x[:, ::16] = 127  # in each block: a step of 8 bits is 1
    fragments, outputs, expected = [], [], []
    for width in WIDTHS:
        layer = Layer(f"layer.{width}", "linear", ROWS, columns)
        check_scheme((layer,), scheme)
        codes, parameters = random_entry(layer, width, scheme, seed=width)
        bias = rng.normal(size=ROWS).astype(np.float32)
        fragment = quantized_layer(
            Place(layer, "x", f"y.{width}", f"b.{width}"), width, scheme, activations, (codes, parameters)
        )
        fragment.constant(f"b.{width}", bias)
        fragments.append(fragment)
        outputs.append(f"y.{width}")
        expected.append(x.astype(np.float64) @ decode(codes, parameters).double().numpy().T + bias)
    for width, got, wanted in zip(WIDTHS, computed(fragments, outputs, x), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=3e-6 * np.abs(wanted).max(), err_msg=str(width))


def test_rows_with_one_large_weight_lose_no_digits() -> None:
    """Nearly all their codes are the zero point, far from the middle of the codes, and inputs add up to much."""
    rng = np.random.default_rng(0)
    x = (5 + rng.normal(size=(TOKENS, 768))).astype(np.float32)
    weight = torch.from_numpy(rng.normal(scale=1e-3, size=(ROWS, 768)).astype(np.float32))
    weight[:, 3] = 1
    fragments, outputs, expected = [], [], []
    for width in WIDTHS:
        layer = Layer(f"layer.{width}", "linear", ROWS, 768)
        entry = round_to_nearest(PER_ROW, weight, width)
        fragments.append(quantized_layer(Place(layer, "x", f"y.{width}"), width, PER_ROW, "fp32", entry))
        outputs.append(f"y.{width}")
        expected.append(x.astype(np.float64) @ decode(*entry).double().numpy().T)
    for width, got, wanted in zip(WIDTHS, computed(fragments, outputs, x), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-6, err_msg=str(width))


@pytest.mark.parametrize("rows", [3, 40])  # few rows are decoded at once
@pytest.mark.parametrize(("columns", "group_size"), [(8, 0), (30, 0), (312, 0), (30, 7)])
def test_each_width_embeds_exactly(columns: int, group_size: int, rows: int) -> None:
    scheme = Scheme(group_size=group_size)
    index = np.random.default_rng(0).integers(0, rows, size=50)
    fragments, outputs, expected = [], [], []
    for width in WIDTHS:
        layer = Layer(f"layer.{width}", "embedding", rows, columns)
        entry = random_entry(layer, width, scheme, seed=width)
        fragments.append(quantized_layer(Place(layer, "x", f"y.{width}"), width, scheme, "fp32", entry))
        outputs.append(f"y.{width}")
        expected.append(decode(*entry).numpy()[index])
    for width, got, wanted in zip(WIDTHS, computed(fragments, outputs, index), expected, strict=True):
        np.testing.assert_array_equal(got, wanted, err_msg=str(width))


def test_fp32_layers_are_plain() -> None:
    rng = np.random.default_rng(0)
    weight, bias, x = (rng.normal(size=size).astype(np.float32) for size in ((4, 7), 4, (3, 7)))
    linear = Place(Layer("linear", "linear", 4, 7), "x", "y", "bias")
    fragment = fp32_layer(linear, lambda: weight)
    fragment.constant("bias", bias)
    unbiased = fp32_layer(replace(linear, layer=Layer("other", "linear", 4, 7), output="z", bias=""), lambda: weight)
    got, without = computed([fragment, unbiased], ["y", "z"], x)
    np.testing.assert_allclose(got, x @ weight.T + bias, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(without, x @ weight.T, rtol=1e-6, atol=1e-6)
    table = fp32_layer(Place(Layer("table", "embedding", 4, 7), "x", "y"), lambda: weight)
    np.testing.assert_array_equal(computed([table], ["y"], np.array([3, 0]))[0], weight[[3, 0]])


def blocks(width: int, columns: int, activations: Activations, scheme: Scheme = PER_ROW) -> set[tuple[int, int]]:
    """Return the bits and the block sizes of a layer's nodes."""
    place = Place(Layer("layer", "linear", 8, columns), "x", "y")
    fragment = quantized_layer(place, width, scheme, activations)
    chosen = [{part.name: part.i for part in node.attribute} for node in fragment.nodes if node.domain]
    return {(attributes["bits"], attributes["block_size"]) for attributes in chosen}


def test_blocks_take_the_fewest_bytes() -> None:
    assert blocks(2, 768, "int8") == {(2, 128)}
    assert blocks(3, 768, "int8") == blocks(4, 3072, "fp32") == {(4, 256)}
    assert blocks(4, 384, "fp32") == {(4, 128)}
    assert blocks(5, 768, "int8") == {(8, 256)}
    assert blocks(5, 768, "fp32") == {(4, 256)}  # two halves
    assert blocks(2, 312, "fp32") == {(2, 64)}  # 128 would be padded by 72
    assert blocks(4, 768, "int8", Scheme(group_size=96)) == {(4, 32)}


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme("codebook"), "evenly spaced levels"),
        (Scheme(group_size=24), "groups of a multiple of 16 columns, and layer has groups of 24"),
    ],
)
def test_schemes_that_no_runtime_has_are_refused(scheme: Scheme, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_scheme((Layer("table", "embedding", 8, 64), Layer("layer", "linear", 8, 64)), scheme)
    check_scheme((Layer("layer", "linear", 8, 24),), Scheme(group_size=24))  # one group a row
    check_scheme((Layer("table", "embedding", 8, 64),), Scheme(group_size=24))
