"""Runs ONNX exports in onnxruntime: outputs of sentences, for `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.files import file_hash

ONNX_FILE = "onnx/model.onnx"
"""The model's place in an export, where optimum and transformers.js look for it."""

Batch = dict[str, npt.NDArray[np.int64]]
"""A model's inputs by name, each ``(n_sentences, longest)``."""

Logits = npt.NDArray[np.float32]
"""Outputs of sentences, ``(n_sentences, n_logits)``."""

_REMEDY = "export it again with `bitfront export --format onnx`"
_ERRORS = 3  # the severity from which onnxruntime logs


class OnnxSession:
    """A model file in onnxruntime, on the CPU.

    Attributes:
        inputs: the names of the model's inputs.
    """

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        """Load a model.

        Args:
            model: its file, or what would be in it.
            threads: that one run may use.

        Raises:
            InputError: onnxruntime cannot load the file.
        """
        import onnxruntime  # an extra

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, _ERRORS
        given = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base but this
            if type(error).__module__.startswith("onnxruntime"):
                raise InputError(f"{given!r}: onnxruntime cannot load it ({error}); {_REMEDY}") from None
            raise
        self.inputs = tuple(given.name for given in self._session.get_inputs())

    def logits(self, batch: Batch) -> Logits:
        """Return the logits of what ``padded`` returns; inputs that the model does not have are left out."""
        logits: Logits = self._session.run(["logits"], {name: batch[name] for name in self.inputs})[0]
        return logits


def padded(token_ids: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None) -> Batch:
    """Return a model's inputs for one batch of sentences.

    Padding is token 0 of type 0, and masked; ``token_types`` None is 0 throughout.
    """
    shape = len(token_ids), max(map(len, token_ids))
    batch = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    for row, tokens in enumerate(token_ids):
        batch["input_ids"][row, : len(tokens)] = tokens
        batch["attention_mask"][row, : len(tokens)] = 1
        if token_types is not None:
            batch["token_type_ids"][row, : len(tokens)] = token_types[row]
    return batch


def described_file(directory: Path, described: Mapping[str, Any]) -> Path:
    """Return the model's file of an export; it must be the one that the manifest describes.

    Args:
        directory: of the export.
        described: what its manifest says of ONNX.

    Raises:
        InputError: it is missing or another.
    """
    path = directory / ONNX_FILE
    hashes = described.get("sha256")
    expected = hashes.get(ONNX_FILE) if isinstance(hashes, dict) else None
    if not path.is_file() or expected != file_hash(path):
        raise InputError(f"{path}: missing, or not the file that the manifest describes; {_REMEDY}")
    return path
