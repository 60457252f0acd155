"""The evaluator: the head's outputs for any bit map."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from objectives.batching import device_of
from objectives.errors import InputError
from objectives.evaluation.architectures import architecture_of
from objectives.evaluation.forward import Forward, Logits, States, TransformersForward
from objectives.evaluation.packed_bert import PackedBert
from objectives.evaluation.weight_writer import WeightWriter
from objectives.heads import head_of
from objectives.layers import BitMap, Layer, uniform
from objectives.quantization.bank import FP32_WIDTH, WeightBank
from objectives.scores import LogOdds, Precision
from objectives.token_types import types_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_REMEMBERED_BYTES = 1 << 29


class Evaluator:
    """Scores bit maps of one model on one set of sentences.

    It holds the weights of the last map, and writes only layers whose width differs. For remembered maps it keeps the
    hidden states between encoder layers, so that another map is computed only from the first layer that differs.
    Results do not depend on earlier evaluations.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        token_ids: Sequence[Sequence[int]],
        precision: Precision = "fp32",
        bank: WeightBank | None = None,
        token_types: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Lay out the sentences and copy the parts of the model that scoring needs.

        Args:
            model: a ``transformers`` sequence classifier in FP32; not changed.
            layers: its searchable layers.
            token_ids: each sentence's tokens, special ones included.
            precision: of the matrix products; architectures that PackedBert does not support always run in FP32.
            bank: a bank of this model's weights to share; made if None.
            token_types: each token's type, beside ``token_ids``: 1 in the second sentence of a pair. None for
                those of a model that follows separators, else its default, 0 throughout. Not read if the model has no
                token types.

        Raises:
            InputError: the model has no embedding of a token type.
            ValueError: the model is on a GPU that is not the current one, or a token lacks its type.
        """
        device = device_of(model)
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            raise ValueError(
                f"the model is on {device}, not the current GPU: call torch.cuda.set_device({device.index})"
            )
        if token_types is None:
            token_types = types_of(model, token_ids)
        if token_types is not None:
            _check_types(model, token_ids, token_types)
        self.layers = tuple(layers)
        self._outputs = head_of(model).outputs
        self.bank = bank or WeightBank(model, layers)
        architecture = architecture_of(model)
        self._forward: Forward = (
            TransformersForward(model, layers, token_ids, token_types)
            if architecture is None
            else PackedBert(model, architecture, layers, token_ids, token_types, DTYPES[precision])
        )
        self._writer = WeightWriter(self.bank, self.layers, self._forward.slots)
        self._loaded: list[int | None] = [None] * len(self.layers)
        # How many layers lie below each boundary: its hidden states depend on those alone.
        above = [self._forward.first_boundary_above(index) for index in range(len(self.layers))]
        self._below = [sum(first <= boundary for first in above) for boundary in range(self._forward.n_boundaries)]
        self._states: OrderedDict[BitMap, States] = OrderedDict()

    @property
    def description(self) -> str:
        """How the forward pass is computed, for the log."""
        return self._forward.description

    @property
    def precision(self) -> Precision:
        """The precision of the matrix products."""
        return "fp32" if self._forward.dtype == torch.float32 else "bf16"

    def logits(self, bit_map: BitMap, remember: bool = False) -> Logits:
        """Return the logits ``(n_sentences, n_logits)`` of a map, in the order of the sentences.

        Args:
            bit_map: a width for each layer, 2..8, or ``FP32_WIDTH`` for a layer that keeps its FP32 weights.
            remember: keep the hidden states for maps that share lower layers with this one. The least recently used
                states are dropped if memory runs short.
        """
        start, states = self._deepest_remembered(bit_map)
        self._load(bit_map, first=0 if states is None else self._below[start])
        keep = _LatestStates() if remember else None
        logits = self._forward.run(start, states, keep)
        if keep is not None:
            self._remember(bit_map, keep)
        return logits

    def log_odds(self, bit_map: BitMap, remember: bool = False) -> LogOdds:
        """Return the outputs ``(n_sentences, *head.shape)`` of a map: log-odds for two classes; see :meth:`logits`."""
        outputs: LogOdds = self._outputs(torch.from_numpy(self.logits(bit_map, remember))).numpy()
        return outputs

    def fp32_log_odds(self, remember: bool = False) -> LogOdds:
        """Return the outputs ``(n_sentences, *head.shape)`` of the model itself, in the evaluator's precision."""
        return self.log_odds(uniform(self.layers, FP32_WIDTH), remember)

    def forget(self) -> None:
        """Drop the remembered hidden states."""
        self._states.clear()

    def share_above(self, index: int) -> float:
        """Return the share of a pass that a map takes if all layers below this one are as in a remembered map."""
        remembered = sum(below <= index for below in self._below)
        return 1 - max(remembered - 1, 0) / max(len(self._below), 1)

    def _deepest_remembered(self, bit_map: BitMap) -> tuple[int, States | None]:
        """Return the highest boundary with remembered states for a map, and these; -1 and None if there is none."""
        for boundary in reversed(range(len(self._below))):
            prefix = bit_map[: self._below[boundary]]
            if prefix in self._states:
                self._states.move_to_end(prefix)
                return boundary, self._states[prefix]
        return -1, None

    def _remember(self, bit_map: BitMap, kept: dict[int, States]) -> None:
        for boundary, states in kept.items():
            self._states[bit_map[: self._below[boundary]]] = states
        used = sum(map(_size_bytes, self._states.values()))
        while used > _REMEMBERED_BYTES:
            used -= _size_bytes(self._states.popitem(last=False)[1])

    def _load(self, bit_map: BitMap, first: int) -> None:
        changed = [index for index in range(first, len(self.layers)) if self._loaded[index] != bit_map[index]]
        for index in changed:
            self._loaded[index] = None  # neither old nor new if the writing is interrupted
        self._writer.write({index: bit_map[index] for index in changed})
        self._forward.refresh(changed)
        for index in changed:
            self._loaded[index] = bit_map[index]


class _LatestStates(dict[int, States]):
    """Hidden states by boundary, of which only the latest are kept: those of all layers may be gigabytes."""

    def __setitem__(self, boundary: int, states: States) -> None:
        super().__setitem__(boundary, states)
        while len(self) > 1 and sum(map(_size_bytes, self.values())) > _REMEMBERED_BYTES:
            del self[next(iter(self))]


def _check_types(model: nn.Module, token_ids: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]]) -> None:
    if list(map(len, token_types)) != list(map(len, token_ids)):
        raise ValueError("each token needs one token type")
    n_types = int(getattr(model.config, "type_vocab_size", 0))  # 0: the model has none
    highest = max(max(types, default=0) for types in token_types)
    if 0 < n_types <= highest:
        raise InputError(
            f"the tokenizer gives token type {highest}, but the model has {n_types} token types, counted from 0; use "
            "the tokenizer that the model was trained with"
        )


def _size_bytes(states: States) -> int:
    return sum(part.nbytes for part in states)
