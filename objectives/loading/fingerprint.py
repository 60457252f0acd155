"""Fingerprints: short hashes that tell whether two runs score the same maps the same way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from objectives.scores import Labels

Fingerprint = dict[str, str]
"""What must be equal for two runs to be one: ``model``, ``sentences`` and ``quantizer``, and ``holdout`` where
sentences were held back."""

# What does not change a score: where the model was loaded from and by which version.
_IRRELEVANT_CONFIG = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"})


def fingerprint(model: nn.Module, token_ids: Sequence[Sequence[int]], labels: Labels, quantizer: str) -> Fingerprint:
    """Return the fingerprint of a model, the sentences as it sees them, and the quantiser.

    Args:
        model: a ``transformers`` model; its weights and the settings of its forward pass count.
        token_ids: each sentence's tokens.
        labels: ``(n_sentences,)`` of 0 and 1.
        quantizer: its identity.
    """
    sentences = sentences_fingerprint(token_ids, labels)
    return {"model": model_fingerprint(model), "sentences": sentences, "quantizer": quantizer}


def sentences_fingerprint(token_ids: Sequence[Sequence[int]], labels: Labels) -> str:
    """Return the fingerprint of sentences as a model sees them, and of their labels ``(n_sentences,)``."""
    sentences = hashlib.sha256(json.dumps([list(ids) for ids in token_ids]).encode())
    sentences.update(labels.tobytes())
    return _short(sentences)


def model_fingerprint(model: nn.Module) -> str:
    """Return the fingerprint of a ``transformers`` model's weights and of the settings of its forward pass."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in _IRRELEVANT_CONFIG}  # type: ignore[union-attr,operator]
    weights = hashlib.sha256(json.dumps([type(model).__name__, config], sort_keys=True, default=str).encode())
    _add(weights, model.state_dict())
    return _short(weights)


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the fingerprint of named tensors on the CPU: their types, shapes and bytes."""
    digest = hashlib.sha256()
    _add(digest, tensors)
    return _short(digest)


def short_digest(text: str) -> str:
    """Return a short hash of a text."""
    return _short(hashlib.sha256(text.encode()))


def _add(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(
            tensor.contiguous().view(torch.uint8).numpy().data if tensor.dim() else bytes(tensor.numpy().data)
        )


def _short(digest: hashlib._Hash) -> str:
    return digest.hexdigest()[:16]
