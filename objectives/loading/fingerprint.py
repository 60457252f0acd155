"""Fingerprints: short hashes that are equal if two runs score bit maps identically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from objectives.scores import Labels

Fingerprint = dict[str, str]
"""The hashes that a resumed run must match: ``model``, ``sentences``, ``quantizer``, and ``confirmation`` if there is a
holdout set."""

# Settings that change no score, such as the model's origin and the library's version.
_IRRELEVANT_CONFIG = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"})


def fingerprint(model: nn.Module, token_ids: Sequence[Sequence[int]], labels: Labels, quantizer: str) -> Fingerprint:
    """Return the fingerprint of a model, its tokenised sentences and the quantiser.

    Args:
        model: a ``transformers`` model; its weights and forward settings count.
        token_ids: each sentence's tokens.
        labels: ``(n_sentences,)`` of 0 and 1.
        quantizer: the quantiser's identity.
    """
    sentences = sentences_fingerprint(token_ids, labels)
    return {"model": model_fingerprint(model), "sentences": sentences, "quantizer": quantizer}


def sentences_fingerprint(token_ids: Sequence[Sequence[int]], labels: Labels) -> str:
    """Return the fingerprint of tokenised sentences and their labels ``(n_sentences,)``."""
    digest = hashlib.sha256(json.dumps([list(ids) for ids in token_ids]).encode())
    digest.update(labels.tobytes())
    return _shorten(digest)


def model_fingerprint(model: nn.Module) -> str:
    """Return the fingerprint of a ``transformers`` model: its weights and forward settings."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in _IRRELEVANT_CONFIG}  # type: ignore[union-attr,operator]
    digest = hashlib.sha256(json.dumps([type(model).__name__, config], sort_keys=True, default=str).encode())
    _add_tensors(digest, model.state_dict())
    return _shorten(digest)


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the fingerprint of named CPU tensors: their types, shapes and bytes."""
    digest = hashlib.sha256()
    _add_tensors(digest, tensors)
    return _shorten(digest)


def short_digest(text: str) -> str:
    """Return a short hash of a text."""
    return _shorten(hashlib.sha256(text.encode()))


def _add_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(
            tensor.contiguous().view(torch.uint8).numpy().data if tensor.dim() else bytes(tensor.numpy().data)
        )


def _shorten(digest: hashlib._Hash) -> str:
    return digest.hexdigest()[:16]
