"""Atomic writing of safetensors files, with a full disk reported as an OSError; reading and hashing one at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from objectives.files import replacing

_TYPES = {"F32": torch.float32, "U8": torch.uint8}


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


def read_tensors(path: Path, into: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file once; return its tensors by name, and the file's SHA-256.

    The safetensors library maps files into memory: a hash of them would be another reading, and what is hashed need not
    be what is used. Here each tensor has memory of its own, aligned as torch's kernels like it.

    Args:
        path: the file, whose header the library has checked; its types are FP32 and bytes.
        into: contiguous tensors on the CPU, of the file's types and shapes, that take those of their names.
    """
    tensors = {}
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(length + header)
        described = json.loads(header)
        described.pop("__metadata__", None)
        for name, entry in sorted(described.items(), key=lambda item: item[1]["data_offsets"]):
            tensor = into[name] if name in into else torch.empty(entry["shape"], dtype=_TYPES[entry["dtype"]])
            content = tensor.detach().view(-1).view(torch.uint8).numpy().data
            file.readinto(content)
            digest.update(content)
            tensors[name] = tensor
        digest.update(file.read())
    return tensors, digest.hexdigest()
