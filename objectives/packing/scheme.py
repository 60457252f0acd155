"""Quantisers by name, and schemes: how codes stand for weights, and what is stored of a layer beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from objectives.layers import Layer
from objectives.packing.safetensors_size import StoredTensor

QuantizerName = Literal["affine", "codebook", "calibrated"]
"""``affine``: each weight rounded to the nearest of its row's even levels. ``codebook``: to the nearest of its layer's
own codewords. ``calibrated``: even levels, by ``quantize_gptq``."""

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
        steps of ``2**(width - 8)``, or ``codewords``, FP32 ``(2**width,)``.
        """
        scale = StoredTensor("F32", (layer.rows, self.n_groups(layer)) if self.group_size else (layer.rows,))
        if self.kind == "codebook":
            return {"scale": scale, "codewords": StoredTensor("F32", (2**width,))}
        return {"scale": scale, "zero_point": StoredTensor("U8", scale.shape)}

    def n_groups(self, layer: Layer) -> int:
        """Return how many scales each row of a layer has."""
        return -(-layer.columns // self.group_size) if self.group_size else 1


PER_ROW = Scheme()
"""A scale and a zero point for each row: what is meant unless another scheme is named."""
