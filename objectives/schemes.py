"""Schemes: how codes stand for weights, what is stored of a layer beside them, and rounding to the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from objectives.codebook import CodebookParameters, quantize_codebook
from objectives.codes import Entry, Parameters
from objectives.layers import Layer
from objectives.quantize import AffineParameters, choose_affine, encode, zero_point_of_byte
from objectives.stored import StoredTensor

_FORMAT = "bitfront-packed-2"


@dataclass(frozen=True)
class Scheme:
    """What a model's codes are decoded with.

    Attributes:
        kind: ``affine``, a scale and a zero point for each row; or ``codebook``, codewords for each layer and a scale
            for each row.
    """

    kind: Literal["affine", "codebook"] = "affine"

    @property
    def format(self) -> str:
        """What a packed file says of itself."""
        return _FORMAT if self.kind == "affine" else f"{_FORMAT} {self.kind}"

    @classmethod
    def of_format(cls, text: str) -> Scheme:
        """Return the scheme of a packed file.

        Raises:
            ValueError: there is none of that name.
        """
        for scheme in (cls("affine"), cls("codebook")):
            if scheme.format == text:
                return scheme
        raise ValueError(f"no packed format is called {text!r}")

    def parts(self, layer: Layer, width: int) -> dict[str, StoredTensor]:
        """Return what a packed file has of a layer beside its codes.

        ``scale``, FP32 a row; ``zero_point``, a byte a row, in steps of ``2**(bits - 8)``, or ``codewords``, FP32.
        """
        scale = StoredTensor("F32", (layer.rows,))
        if self.kind == "codebook":
            return {"scale": scale, "codewords": StoredTensor("F32", (2**width,))}
        return {"scale": scale, "zero_point": StoredTensor("U8", scale.shape)}

    def nearest(self, weight: Tensor, width: int) -> Entry:
        """Return the entry of a weight ``(rows, columns)`` by rounding to the nearest, at a width of 2..8 bits."""
        if self.kind == "codebook":
            return quantize_codebook(weight, width)
        parameters = choose_affine(weight, width)
        return encode(weight, parameters), parameters

    def parameters(self, layer: Layer, width: int, tensors: Mapping[str, Tensor]) -> Parameters:
        """Return the parameters of a layer that ``Parameters.tensors`` gave.

        Raises:
            ValueError: one of them is missing, or of another type or shape.
        """
        expected = {name: tensor.shape for name, tensor in self.parts(layer, width).items()}
        expected |= {name: (*shape, 1) for name, shape in expected.items() if name != "codewords"}
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
            raise ValueError(f"{layer.name} at {width} bits has tensors {expected}")
        if self.kind == "codebook":
            return CodebookParameters(tensors["scale"], tensors["codewords"], width)
        return AffineParameters(tensors["scale"], tensors["zero_point"], width)

    def of_stored(self, layer: Layer, width: int, stored: Mapping[str, Tensor]) -> Parameters:
        """Return the parameters of a layer from what a packed file has of them, types and shapes being right."""
        rows = {name: tensor[:, None] for name, tensor in stored.items() if name != "codewords"}
        if self.kind == "codebook":
            return CodebookParameters(rows["scale"], stored["codewords"], width)
        return AffineParameters(rows["scale"], zero_point_of_byte(rows["zero_point"], width), width)


PER_ROW = Scheme()
"""A scale and a zero point for each row: what is meant unless another scheme is named."""
