"""An embedding of any width in standard operators, which every runtime computes exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from objectives.packing.bitstream import pack
from results.export.onnx.coded import Coded, Place
from results.export.onnx.fragments import Fragment, Values

_FEW_ROWS = 16  # an embedding of so few is decoded once, when the file is loaded


def embedding(place: Place, coded: Coded) -> Fragment:
    """Return nodes that gather packed rows and unpack only those, and their tensors."""
    layer, width, name = coded.layer, coded.width, coded.layer.name
    eights = -(-layer.columns // 8)  # eight codes take as many bytes as the width has bits
    fragment = Fragment()

    def packed() -> Values:
        padded = np.zeros((layer.rows, 8 * eights), np.uint8)
        padded[:, : layer.columns] = coded.codes()
        return pack(padded.ravel(), width).reshape(layer.rows, eights * width)

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
