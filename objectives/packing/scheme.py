"""Names of quantisers, and storage schemes: which parameters are stored beside a layer's codes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from objectives.layers import Layer
from objectives.packing.safetensors_size import StoredTensor

QuantizerName = Literal["affine", "codebook", "calibrated"]
"""``affine`` rounds each weight to the nearest of its row's evenly spaced levels. ``codebook`` rounds it to the nearest
of its layer's codewords. ``calibrated`` chooses evenly spaced levels by GPTQ."""

_FORMAT = "bitfront-packed-2"


@dataclass(frozen=True)
class Scheme:
    """The parameters that decode a model's codes.

    Attributes:
        kind: ``affine`` has scales and zero points; ``codebook`` has codewords for each layer and a scale for each row.
        group_size: number of neighbouring columns in a row that share a scale and a zero point. The last group of a row
            may be smaller. 0 means one group a row. A codebook has no groups.

    Raises:
        ValueError: the group size is negative, or a codebook has one.
    """

    kind: Literal["affine", "codebook"] = "affine"
    group_size: int = 0

    def __post_init__(self) -> None:
        if self.group_size < 0 or (self.group_size and self.kind == "codebook"):
            raise ValueError(f"{self.kind} takes no groups of {self.group_size}; give 0, or affine a positive size")

    @property
    def format(self) -> str:
        """The name of the format in a packed file."""
        if self.kind == "codebook":
            return f"{_FORMAT} codebook"
        return f"{_FORMAT} groups of {self.group_size}" if self.group_size else _FORMAT

    @classmethod
    def of_format(cls, text: str) -> Scheme:
        """Return the scheme of a format's name.

        Raises:
            ValueError: no format has that name.
        """
        grouped = re.fullmatch(f"{_FORMAT} groups of ([1-9][0-9]{{0,8}})", text)
        if grouped:
            return cls(group_size=int(grouped[1]))
        for scheme in (cls(), cls("codebook")):
            if scheme.format == text:
                return scheme
        raise ValueError(f"no packed format is called {text!r}")

    def parts(self, layer: Layer, width: int) -> dict[str, StoredTensor]:
        """Return the tensors that a packed file stores for a layer beside its codes.

        ``scale`` is FP32, ``(rows,)`` or ``(rows, n_groups)``. ``affine`` adds ``zero_point``, a byte for each scale in
        steps of ``2**(width - 8)``. ``codebook`` adds ``codewords``, FP32 ``(2**width,)``.
        """
        scale = StoredTensor("F32", (layer.rows, self.n_groups(layer)) if self.group_size else (layer.rows,))
        if self.kind == "codebook":
            return {"scale": scale, "codewords": StoredTensor("F32", (2**width,))}
        return {"scale": scale, "zero_point": StoredTensor("U8", scale.shape)}

    def n_groups(self, layer: Layer) -> int:
        """Return the number of scales in each row of a layer."""
        return -(-layer.columns // self.group_size) if self.group_size else 1


PER_ROW = Scheme()
"""The default scheme: a scale and a zero point for each row."""
