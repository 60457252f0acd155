"""A layer of each width as ONNX nodes and tensors, and in FP32; linear layers for MatMulNBits.

Notation, for one row of a weight (see ``objectives.quantization.affine``):
    w = s (q - z), with a byte Z = z 2^(8 - b) for the zero point

MatMulNBits holds codes q' of 2, 4 or 8 bits and computes x . s' (q' - d) with whole zero points d. A rank-one term adds
the rest, sum(x) s (d - z).

    b          q'                 s'             d
    2          q                  s              round(z), at most 3
    3, 4       q                  s              round(z), at most 15
    5 to 8     q 2^(8 - b)        s / 2^(8-b)    Z, exact, so nothing rests

With d near z no digits are lost: most weights are small, and then q' - d is too. For products in FP32, 5 to 8 bits are
two nodes of 4 bits each, the halves of q' = 16 h + l and of Z, that share their scales:
16 x . s' (h - d) + x . s' (l - d). A node of 8 bits would decode its weights at each call.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.layers import Layer
from objectives.packing.bitstream import pack
from objectives.packing.scheme import Scheme
from objectives.quantization.parameters import Entry
from results.export.onnx import Activations
from results.export.onnx.coded import Coded, Place
from results.export.onnx.embeddings import embedding
from results.export.onnx.fragments import Fragment, Values

_BLOCKS = {2: (128, 64, 32, 16), 4: (256, 128, 64, 32, 16), 8: (256, 128, 64, 32, 16)}  # for 2 bits, the fast ones
_ACCURACY_LEVELS: dict[Activations, int] = {"fp32": 0, "int8": 4}


def check_scheme(layers: tuple[Layer, ...], scheme: Scheme) -> None:
    """Check that onnxruntime can hold a model's codes.

    Raises:
        InputError: they are a codebook's, or in groups that are no whole number of blocks.
    """
    if scheme.kind == "codebook":
        raise InputError(
            "--format onnx: onnxruntime has evenly spaced levels, which cannot hold a codebook's codewords; "
            "export --format packed, or search with another quantizer"
        )
    for layer in layers:
        grouped = layer.kind == "linear" and 0 < scheme.group_size < layer.columns
        if grouped and scheme.group_size % _BLOCKS[4][-1]:
            raise InputError(
                f"--format onnx: onnxruntime needs groups of a multiple of {_BLOCKS[4][-1]} columns, and {layer.name} "
                f"has groups of {scheme.group_size}; export --format packed, or search with another --group-size"
            )


def quantized_layer(
    place: Place, width: int, scheme: Scheme, activations: Activations, entry: Entry | None = None
) -> Fragment:
    """Return a layer's nodes and tensors at a width.

    Args:
        place: where it stands.
        width: 2..8.
        scheme: affine, checked by ``check_scheme``.
        activations: of linear layers.
        entry: the layer's codes and parameters; without them only sizes may be asked for.
    """
    coded = Coded(place.layer, width, scheme, entry)
    return embedding(place, coded) if place.layer.kind == "embedding" else _linear(place, coded, activations)


def fp32_layer(place: Place, weight: Callable[[], Values]) -> Fragment:
    """Return the nodes and tensors of a layer in FP32.

    Args:
        place: where it stands.
        weight: returns its ``(rows, columns)``, when the file is written.
    """
    layer, fragment = place.layer, Fragment()
    if layer.kind == "embedding":
        table = fragment.tensor(layer.parameter, "float32", (layer.rows, layer.columns), weight)
        fragment.node("Gather", [table, place.input], place.output)
        return fragment
    table = fragment.tensor(layer.parameter, "float32", (layer.columns, layer.rows), lambda: weight().T)
    product = fragment.node("MatMul", [place.input, table], f"{layer.name}.product" if place.bias else place.output)
    if place.bias:
        fragment.node("Add", [product, place.bias], place.output)
    return fragment


def _linear(place: Place, coded: Coded, activations: Activations) -> Fragment:
    layer, width = coded.layer, coded.width
    stored = 2 if width == 2 else 4 if width <= 4 else 8
    shift = 2 ** (8 - width) if stored == 8 else 1
    halves = stored == 8 and activations == "fp32"
    bits = 4 if halves else stored
    block = _block(coded, bits)
    n_blocks = -(-layer.columns // block)
    fragment = Fragment()

    def packed(values: npt.NDArray[np.uint8], low: int, count: int) -> Values:
        """Return the bits of values ``(rows, n)`` from ``low`` on, padded to ``count`` a row, as packed rows."""
        padded = np.zeros((layer.rows, count), np.uint8)
        padded[:, : values.shape[1]] = values >> low & 2**bits - 1
        return pack(padded.ravel(), bits).reshape(layer.rows, -1)

    def by_block(values: Values) -> Values:
        return np.repeat(values, -(-coded.group_size // block), axis=1)[:, :n_blocks]

    def scale() -> Values:
        return coded.part("scale") / np.float32(shift)

    scales = fragment.tensor(f"{layer.name}.scale", "float32", (layer.rows, n_blocks), lambda: by_block(scale()))

    def product(x: str, output: str, part: str = "", low: int = 0, bias: str = "") -> str:
        """Add a node that multiplies the bits of the codes from ``low`` on."""

        def codes() -> Values:
            rows = packed(coded.codes() * np.uint8(shift), low, n_blocks * block)
            return rows.reshape(shape)

        def zero_points() -> Values:
            return packed(by_block(coded.whole_zero_points(stored)), low, zeros * 8 // bits)

        shape, zeros = (layer.rows, n_blocks, block * bits // 8), -(-n_blocks * bits // 8)
        inputs = [
            x,
            fragment.tensor(f"{layer.name}.codes{part}", "uint8", shape, codes),
            scales,
            fragment.tensor(f"{layer.name}.zero_point{part}", "uint8", (layer.rows, zeros), zero_points),
            *(["", bias] if bias else []),
        ]
        return fragment.node(
            "MatMulNBits",
            inputs,
            output,
            K=layer.columns,
            N=layer.rows,
            bits=bits,
            block_size=block,
            accuracy_level=_ACCURACY_LEVELS[activations],
        )

    if halves:
        sixteen = fragment.scalar(f"{layer.name}.sixteen", 16)
        raised = fragment.node("Mul", [place.input, sixteen], f"{layer.name}.raised")
        high = product(raised, f"{layer.name}.high", "_high", low=4, bias=place.bias)
        low = product(place.input, f"{layer.name}.low", "_low")
        fragment.node("Add", [high, low], place.output)
    elif stored == 8:
        product(place.input, place.output, bias=place.bias)
    else:
        whole = product(place.input, f"{layer.name}.product", bias=place.bias)

        def rest() -> Values:
            rests: Values = scale() * (coded.whole_zero_points(stored) - coded.zero_points())
            return rests.T

        rests = fragment.tensor(f"{layer.name}.rest", "float32", (coded.n_groups, layer.rows), rest)
        fragment.node("Add", [whole, _rank_one(fragment, place, coded, rests)], place.output)
    return fragment


def _rank_one(fragment: Fragment, place: Place, coded: Coded, rests: str) -> str:
    """Add the product of each group's sum with a factor for each row, and return its name."""
    name, x = coded.layer.name, place.input
    axes = fragment.constant(f"{name}.sum.axes", np.array([-1]))
    if coded.n_groups == 1:
        sums = fragment.node("ReduceSum", [x, axes], f"{name}.sum", keepdims=1)
        return fragment.node("Mul", [sums, rests], f"{name}.shift")
    if missing := coded.n_groups * coded.group_size - coded.layer.columns:
        pads = fragment.constant(f"{name}.pads", np.array([0, 0, 0, missing]))
        x = fragment.node("Pad", [x, pads], f"{name}.padded")
    shape = fragment.constant(f"{name}.groups", np.array([-1, coded.n_groups, coded.group_size]))
    x = fragment.node("Reshape", [x, shape], f"{name}.grouped")
    sums = fragment.node("ReduceSum", [x, axes], f"{name}.sum", keepdims=0)
    return fragment.node("MatMul", [sums, rests], f"{name}.shift")


def _block(coded: Coded, bits: int) -> int:
    """Return the block size that takes the fewest bytes, codes and scales; of equal ones the largest."""
    fitting = [block for block in _BLOCKS[bits] if coded.n_groups == 1 or coded.group_size % block == 0]

    def row_bytes(block: int) -> int:
        return -(-coded.layer.columns // block) * (block * bits // 8 + 4)

    return min(fitting, key=row_bytes)
