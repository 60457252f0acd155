"""A layer of each width as ONNX nodes and tensors: linear layers for MatMulNBits, embeddings in plain operators.

Notation, for one row of a weight (see ``objectives.quantization.affine``):
    w = s (q - z), with a byte Z = z 2^(8 - b) for the zero point

MatMulNBits holds codes q' of 2, 4 or 8 bits and computes x . s' (q' - d) with whole zero points d. A rank-one term adds
the rest, sum(x) s (d - z).

    b          q'                 s'             d
    2          q                  s              round(z), at most 3
    3, 4       q                  s              round(z), at most 15
    5 to 8     q 2^(8 - b)        s / 2^(8-b)    Z, exact, so nothing rests

It is exact that d is near z: most weights are small, and q' - d is too. For products in FP32, 5 to 8 bits are two nodes
of 4 bits each, the halves of q' = 16 h + l and of Z, that share their scales: 16 x . s' (h - d) + x . s' (l - d). A
node of 8 bits would decode its weights at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.layers import Layer
from objectives.packing.bitstream import pack, packed_length
from objectives.packing.scheme import Scheme
from objectives.quantization.parameters import Entry
from results.export.onnx import Activations
from results.export.onnx.fragments import Fragment, Values

_BLOCKS = {2: (128, 64, 32, 16), 4: (256, 128, 64, 32, 16), 8: (256, 128, 64, 32, 16)}  # for 2 bits, the fast ones
_ACCURACY_LEVELS: dict[Activations, int] = {"fp32": 0, "int8": 4}
_FEW_ROWS = 16  # an embedding of so few is decoded once, when the file is loaded


@dataclass(frozen=True)
class Place:
    """Where a layer stands in the graph: its input and output by name, and its bias, if it has one.

    A linear layer's input is ``(tokens, columns)``; an embedding's is the index of each row, ``(tokens,)``.
    """

    layer: Layer
    input: str
    output: str
    bias: str = ""


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
    coded = _Coded(place.layer, width, scheme, entry)
    return _embedding(place, coded) if place.layer.kind == "embedding" else _linear(place, coded, activations)


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


@dataclass(frozen=True)
class _Coded:
    """A layer's codes and parameters as arrays; ``n_groups`` scales a row, of ``group_size`` columns."""

    layer: Layer
    width: int
    scheme: Scheme
    entry: Entry | None

    @property
    def n_groups(self) -> int:
        return self.scheme.n_groups(self.layer)

    @property
    def group_size(self) -> int:
        """The columns of a group; of all but the last, which may be smaller."""
        return self.scheme.group_size if self.n_groups > 1 else self.layer.columns

    def codes(self) -> npt.NDArray[np.uint8]:
        """Return the codes, ``(rows, columns)``."""
        assert self.entry is not None
        codes: npt.NDArray[np.uint8] = self.entry[0].cpu().numpy()
        return codes

    def part(self, name: str) -> Values:
        """Return the scales or the bytes of the zero points, ``(rows, n_groups)``."""
        assert self.entry is not None
        part: Values = self.entry[1].stored()[name].cpu().numpy().reshape(self.layer.rows, self.n_groups)
        return part

    def zero_points(self) -> npt.NDArray[np.float32]:
        """Return the zero points, ``(rows, n_groups)``."""
        return self.part("zero_point").astype(np.float32) * np.float32(2.0 ** (self.width - 8))

    def whole_zero_points(self, stored: int) -> npt.NDArray[np.uint8]:
        """Return the zero points of MatMulNBits at so many stored bits, ``(rows, n_groups)``."""
        if stored == 8:
            byte: npt.NDArray[np.uint8] = self.part("zero_point")
            return byte
        nearest: npt.NDArray[np.uint8] = np.minimum(np.rint(self.zero_points()), 2**stored - 1).astype(np.uint8)
        return nearest


def _linear(place: Place, coded: _Coded, activations: Activations) -> Fragment:
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


def _rank_one(fragment: Fragment, place: Place, coded: _Coded, rests: str) -> str:
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


def _block(coded: _Coded, bits: int) -> int:
    """Return the block size that takes the fewest bytes, codes and scales; of equal ones the largest."""
    fitting = [block for block in _BLOCKS[bits] if coded.n_groups == 1 or coded.group_size % block == 0]

    def row_bytes(block: int) -> int:
        return -(-coded.layer.columns // block) * (block * bits // 8 + 4)

    return min(fitting, key=row_bytes)


def _embedding(place: Place, coded: _Coded) -> Fragment:
    """Gather the packed rows and unpack only those, in operators that every runtime computes exactly."""
    layer, width, name = coded.layer, coded.width, coded.layer.name
    eights = -(-layer.columns // 8)  # eight codes take as many bytes as the width has bits
    fragment = Fragment()

    def packed() -> Values:
        padded = np.zeros((layer.rows, 8 * eights), np.uint8)
        padded[:, : layer.columns] = coded.codes()
        return pack(padded.ravel(), width).reshape(layer.rows, eights * width)

    assert packed_length(8 * eights, width) == eights * width
    n_groups = coded.n_groups
    parts = {
        "codes": fragment.tensor(f"{name}.codes", "uint8", (layer.rows, eights * width), packed),
        "scale": fragment.tensor(f"{name}.scale", "float32", (layer.rows, n_groups), lambda: coded.part("scale")),
        "zero_point": fragment.tensor(
            f"{name}.zero_point", "uint8", (layer.rows, n_groups), lambda: coded.part("zero_point")
        ),
    }
    few = layer.rows <= _FEW_ROWS
    if not few:
        parts = {
            part: fragment.node("Gather", [table, place.input], f"{name}.rows.{part}") for part, table in parts.items()
        }
    scale = parts["scale"]
    zero_point = fragment.node("Cast", [parts["zero_point"]], f"{name}.zero_point.float", to=1)
    step = fragment.scalar(f"{name}.zero_point.step", 2.0 ** (width - 8))
    zero_point = fragment.node("Mul", [zero_point, step], f"{name}.zero_point.whole")
    if n_groups > 1:
        groups = fragment.constant(f"{name}.groups", np.arange(layer.columns) // coded.group_size)
        scale, zero_point = (
            fragment.node("Gather", [part, groups], f"{part}.by_column", axis=1) for part in (scale, zero_point)
        )
    codes = _unpacked(fragment, name, parts["codes"], width, eights, layer.columns)
    centred = fragment.node("Sub", [codes, zero_point], f"{name}.centred")
    decoded = fragment.node("Mul", [centred, scale], f"{name}.table" if few else place.output)
    if few:
        fragment.node("Gather", [decoded, place.input], place.output)
    return fragment


def _unpacked(fragment: Fragment, name: str, packed: str, width: int, eights: int, columns: int) -> str:
    """Add the codes ``(n, columns)``, in FP32, of packed rows, and return their name.

    A code of b bits begins at bit o of a byte: with that byte and the next as one number v, it is
    floor(v / 2^o) - 2^b floor(v / 2^(o + b)).
    """
    values = fragment.node("Cast", [packed], f"{name}.bytes", to=1)
    if width < 8:
        starts = np.arange(8) * width
        first, bit = starts // 8, starts % 8
        shape = fragment.constant(f"{name}.eights", np.array([-1, eights, width]))
        grouped = fragment.node("Reshape", [values, shape], f"{name}.grouped")
        index = fragment.constant(f"{name}.first", first)
        values = fragment.node("Gather", [grouped, index], f"{name}.first_bytes", axis=2)
        if 8 % width:  # some codes continue in the next byte
            index = fragment.constant(f"{name}.next", np.minimum(first + 1, width - 1))
            following = fragment.node("Gather", [grouped, index], f"{name}.next_bytes", axis=2)
            byte = fragment.scalar(f"{name}.byte", 256)
            following = fragment.node("Mul", [following, byte], f"{name}.next_bits")
            values = fragment.node("Add", [values, following], f"{name}.bits")

        def above(bits: npt.NDArray[np.int64], part: str) -> str:
            factor = fragment.constant(f"{name}.{part}.factor", (2.0**-bits).astype(np.float32))
            return fragment.node(
                "Floor", [fragment.node("Mul", [values, factor], f"{name}.{part}.bits")], f"{name}.{part}"
            )

        kept, over = above(bit, "from"), above(bit + width, "above")
        size = fragment.scalar(f"{name}.levels", 2**width)
        over = fragment.node("Mul", [over, size], f"{name}.above.levels")
        values = fragment.node("Sub", [kept, over], f"{name}.eight_codes")
        shape = fragment.constant(f"{name}.row", np.array([-1, 8 * eights]))
        values = fragment.node("Reshape", [values, shape], f"{name}.padded_codes")
    if columns % 8:
        index = fragment.constant(f"{name}.columns", np.arange(columns))
        values = fragment.node("Gather", [values, index], f"{name}.own_codes", axis=1)
    return values
