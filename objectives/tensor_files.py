"""Writing tensors so that a reader sees the old file or the new, and a full disk is told as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from objectives.files import replacing


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file to ``path``, replacing what was there in one step.

    Raises:
        OSError: it cannot be written, or the disk is full.
    """
    with replacing(path) as temporary, plain_errors():
        save_file(dict(tensors), temporary, metadata=dict(metadata))


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise as the OSError that it is what safetensors has a name of its own for while it writes: a full disk."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error
