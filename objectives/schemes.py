"""Schemes: how codes stand for weights, what is stored of a layer beside them, and rounding to the nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from objectives.codebook import CodebookParameters, quantize_codebook
from objectives.codes import Entry, Parameters
from objectives.layers import Layer
from objectives.quantize import AffineParameters, choose_affine, column_groups, encode, zero_point_of_byte
from objectives.stored import StoredTensor

_FORMAT = "bitfront-packed-2"


@dataclass(frozen=True)
class Scheme:
    """What a model's codes are decoded with.

    Attributes:
        kind: ``affine``, scales and zero points; or ``codebook``, codewords for each layer and a scale for each row.
        group_size: so many neighbouring columns have a scale and a zero point of their own in each row, the last ones
            of a row may be fewer; 0 for a scale and a zero point a row. A codebook has no groups.

    Raises:
        ValueError: the group size is negative, or that of a codebook.
    """

    kind: Literal["affine", "codebook"] = "affine"
    group_size: int = 0

    def __post_init__(self) -> None:
        if self.group_size < 0 or (self.group_size and self.kind == "codebook"):
            raise ValueError(f"{self.kind} takes no groups of {self.group_size}")

    @property
    def format(self) -> str:
        """What a packed file says of itself."""
        if self.kind == "codebook":
            return f"{_FORMAT} codebook"
        return f"{_FORMAT} groups of {self.group_size}" if self.group_size else _FORMAT

    @classmethod
    def of_format(cls, text: str) -> Scheme:
        """Return the scheme of a packed file.

        Raises:
            ValueError: there is none of that name.
        """
        grouped = re.fullmatch(f"{_FORMAT} groups of ([1-9][0-9]{{0,8}})", text)
        schemes = (cls(group_size=int(grouped[1])),) if grouped else (cls("affine"), cls("codebook"))
        for scheme in schemes:
            if scheme.format == text:
                return scheme
        raise ValueError(f"no packed format is called {text!r}")

    def parts(self, layer: Layer, width: int) -> dict[str, StoredTensor]:
        """Return what a packed file has of a layer beside its codes.

        ``scale``, FP32, ``(rows,)``, or ``(rows, n_groups)`` with groups; and ``zero_point``, a byte for each scale, in
        steps of ``2**(bits - 8)``, or ``codewords``, FP32 ``(2**bits,)``.
        """
        scale = StoredTensor("F32", (layer.rows, self._n_groups(layer)) if self.group_size else (layer.rows,))
        if self.kind == "codebook":
            return {"scale": scale, "codewords": StoredTensor("F32", (2**width,))}
        return {"scale": scale, "zero_point": StoredTensor("U8", scale.shape)}

    def nearest(self, weight: Tensor, width: int) -> Entry:
        """Return the entry of a weight ``(rows, columns)`` by rounding to the nearest, at a width of 2..8 bits."""
        if self.kind == "codebook":
            return quantize_codebook(weight, width)
        parameters = choose_affine(weight, width, self.groups(weight))
        return encode(weight, parameters), parameters

    def groups(self, weight: Tensor) -> Tensor | None:
        """Return the group of each column of a weight ``(rows, columns)``, as ``column_groups`` does."""
        return column_groups(weight.shape[1], self.group_size, weight.device)

    def parameters(self, codes: Tensor, width: int, tensors: Mapping[str, Tensor]) -> Parameters:
        """Return the parameters of a layer's codes ``(rows, columns)`` from their own tensors, by field."""
        if self.kind == "codebook":
            return CodebookParameters(tensors["scale"], tensors["codewords"], width)
        return AffineParameters(tensors["scale"], tensors["zero_point"], width, self.groups(codes))

    def of_stored(self, codes: Tensor, width: int, stored: Mapping[str, Tensor]) -> Parameters:
        """Return the parameters of a layer's codes ``(rows, columns)`` from ``parts``, types and shapes being right."""
        tensors = {part: tensor.view(len(codes), -1) for part, tensor in stored.items() if part != "codewords"}
        if self.kind == "codebook":
            return self.parameters(codes, width, {**tensors, "codewords": stored["codewords"]})
        return self.parameters(
            codes, width, {**tensors, "zero_point": zero_point_of_byte(tensors["zero_point"], width)}
        )

    def fits(self, layer: Layer, parameters: Parameters) -> bool:
        """Return whether parameters have the shapes that a layer's have."""
        shapes = {part: tensor.shape for part, tensor in self.parts(layer, parameters.bits).items()}
        shapes |= {part: (layer.rows, self._n_groups(layer)) for part in shapes if part != "codewords"}
        return {part: tuple(tensor.shape) for part, tensor in parameters.tensors().items()} == shapes

    def _n_groups(self, layer: Layer) -> int:
        return -(-layer.columns // self.group_size) if self.group_size else 1


PER_ROW = Scheme()
"""A scale and a zero point for each row: what is meant unless another scheme is named."""
