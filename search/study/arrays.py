"""Arrays as text, for the attributes of an Optuna study."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt


def pack_array(array: npt.NDArray[Any]) -> str:
    """Return an array's bytes as base64 text, without its type and shape."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def unpack_array(text: str, dtype: type[np.generic] | str, shape: tuple[int, ...] = ()) -> npt.NDArray[Any]:
    """Return the array that :func:`pack_array` packed, ``(n, *shape)``, read-only.

    Raises:
        ValueError: the text is damaged.
    """
    array = np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).reshape(-1, *shape)
    array.flags.writeable = False
    return array
