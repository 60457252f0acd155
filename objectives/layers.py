"""The searchable layers of a model, and their bit maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
"""The widths a layer may have, in bits."""

BitMap = tuple[int, ...]
"""The width of each layer, in the order of the layers."""


@dataclass(frozen=True)
class Layer:
    """One searchable weight tensor, named by its module: ``rows`` (output channels or embedding rows) x ``columns``."""

    name: str
    kind: Literal["embedding", "linear"]
    rows: int
    columns: int

    @property
    def elements(self) -> int:
        """The number of weights."""
        return self.rows * self.columns

    @property
    def parameter(self) -> str:
        """The name of the weight in the model's state dict."""
        return f"{self.name}.weight"


def uniform(layers: Sequence[Layer], width: int) -> BitMap:
    """Return the bit map that gives every layer the same width."""
    return (width,) * len(layers)
