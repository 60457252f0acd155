"""Atomic writing of safetensors files, with a full disk reported as an OSError."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from objectives.files import replacing


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file to ``path``, replacing the file atomically.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    with replacing(path) as temporary, safetensor_errors_as_os_errors():
        save_file(dict(tensors), temporary, metadata=dict(metadata))


@contextmanager
def safetensor_errors_as_os_errors() -> Iterator[None]:
    """Re-raise SafetensorError as OSError: while writing, it means that the disk is full."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error
