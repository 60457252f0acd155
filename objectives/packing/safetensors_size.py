"""The length of a safetensors file, computed from the types and shapes of its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

_ITEM_BYTES = {"F32": 4, "U8": 1}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file: its dtype (``F32`` or ``U8``) and shape."""

    dtype: Literal["F32", "U8"]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """The size of its data in bytes."""
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


def safetensors_bytes(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> int:
    """Return the length in bytes of a safetensors file with these tensors, without writing it.

    The layout is that of the safetensors library: eight bytes of header length, the header, then the data. The header
    is compact JSON, padded to a multiple of eight bytes. Tensors are sorted by falling item size, then by name.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-_ITEM_BYTES[item[1].dtype], item[0])):
        end = offset + tensor.size_bytes
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (offset, end)}
        offset = end
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return 8 + (len(encoded) + 7) // 8 * 8 + offset
