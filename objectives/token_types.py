"""Token types of pairs: 0 up to the first separator, 1 after it, as BERT's tokenizers give them.

They follow from the tokens, so the sentences that pass through calibration, gradients and distillation are tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_SEPARATOR = "token_type_separator"


def types_by_separator(token_ids: Tensor, separator: int) -> Tensor:
    """Return the types ``(..., length)`` of tokens ``(..., length)``; ``separator`` is the token between the texts."""
    separators = (token_ids == separator).long()
    return (separators.cumsum(dim=-1) - separators).clamp(max=1)


def follow_separators(model: nn.Module, separator: int) -> None:
    """Make a ``transformers`` model, and copies of it, see token types by the separator whenever it is called."""
    if not hasattr(model, _SEPARATOR):
        setattr(model, _SEPARATOR, separator)
        model.register_forward_pre_hook(_add_types, with_kwargs=True)


def types_of(model: nn.Module, token_ids: Sequence[Sequence[int]]) -> list[list[int]] | None:
    """Return the types of each sentence's tokens; None if the model does not follow separators."""
    separator = getattr(model, _SEPARATOR, None)
    if separator is None:
        return None
    return [types_by_separator(torch.tensor(list(ids)), separator).tolist() for ids in token_ids]


def _add_types(
    model: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    separator = getattr(model, _SEPARATOR)
    return args, {"token_type_ids": types_by_separator(inputs["input_ids"], separator), **inputs}
