"""What layers see of each sentence: the inputs of their calls, and the gradients of the head's outputs there.

Most architectures call a layer with all sentences of a batch, one after the other in the first dimension. Some look up
relative positions once for all sentences, or use a weight without calling its layer (DeBERTa, MPNet). Nothing then
tells the sentences of a batch apart, so they run one by one: whatever happens in a pass is that sentence's. Which it is
shows in one pass over a few copies of a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from objectives.batching import device_of
from objectives.errors import InputError, is_out_of_memory
from objectives.heads import head_of
from objectives.layers import Layer

_COPIES = 5  # of the sentence that shows how a model is called; another number than its tokens
_PLAIN = (nn.Linear, nn.Embedding)  # others take anything: a layer of RoFormer's looks up a shape
_KEPT_BYTES = 1 << 28  # of single sentences, before they are handed on together


@dataclass(frozen=True)
class Use:
    """A layer's part in a forward and backward pass.

    Attributes:
        layer: the layer's index.
        sentences: the sentence in the batch that each of the n entries belongs to, ``(n,)``.
        inputs: of the layer, ``(n, ...)``: hidden states, or whole numbers that name rows of its weight.
        gradient: of one output of the sentence's head with respect to the outputs, or to those rows, ``(n, ...)``.
    """

    layer: int
    sentences: Tensor
    inputs: Tensor
    gradient: Tensor


class Recorder:
    """Runs a model and records what its layers see; see :func:`recording`.

    Attributes:
        one_by_one: whether each sentence has a pass of its own.
        n_outputs: of the model's head.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], alternative: str) -> None:
        """Take a model whose parameters take no gradients, and the options that need none, for error messages."""
        self.one_by_one = False
        self._model = model
        self._head = head_of(model)
        self.n_outputs = self._head.n_outputs
        self._layers = layers
        self._alternative = alternative
        self._weights = [model.get_parameter(layer.parameter) for layer in layers]
        self._calls = _Calls()
        self._tracking = False

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Record every call of a layer inside the context."""
        handles = []
        for index, layer in enumerate(self._layers):
            module = self._model.get_submodule(layer.name)
            handles.append(module.register_forward_pre_hook(self._before(index)))
            handles.append(module.register_forward_hook(self._after(index)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for weight in self._weights:
                weight.requires_grad_(False)
                weight.grad = None

    def find_mode(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Find out whether sentences can run in batches, from one of them."""
        sentence = min(map(list, token_ids), key=len)
        copies = _COPIES + (len(sentence) == _COPIES)
        self._track_weights(True)
        try:
            self._backward(torch.tensor([sentence] * copies))
        except InputError:  # what stops a batch need not stop a sentence
            self.one_by_one = True
        else:
            outside = any(weight.grad is not None for weight in self._weights)
            self.one_by_one = outside or not self._calls.are_apart()
        self._track_weights(self.one_by_one)

    def uses(self, tokens: Tensor, output: int = 0) -> Iterator[Use]:
        """Yield the layers' parts in one output of each sentence.

        Args:
            tokens: sentences of one length, ``(n_sentences, n_tokens)``.
            output: which of the head's outputs; each takes a pass of its own.

        Raises:
            InputError: the model has no gradients, or another error ends its passes.
        """
        if not self.one_by_one:
            self._backward(tokens, output)
            if not self._calls.are_apart():
                raise self._error("the calls of its layers vary")
            everyone = torch.arange(len(tokens), device=device_of(self._model))
            for index, inputs, outputs in self._calls.recorded:
                if outputs.grad is not None:  # else the output does not depend on it
                    yield Use(index, everyone, inputs, outputs.grad)
            return
        kept: dict[tuple[int, bool], list[tuple[int, Tensor, Tensor]]] = {}
        kept_bytes = 0
        for sentence in range(len(tokens)):
            self._backward(tokens[sentence : sentence + 1], output)
            for index, inputs, gradient in self._single_uses():
                kept.setdefault((index, inputs.is_floating_point()), []).append((sentence, inputs, gradient))
                kept_bytes += inputs.nbytes + gradient.nbytes
            if kept_bytes > _KEPT_BYTES:
                yield from self._joined(kept)
                kept, kept_bytes = {}, 0
        yield from self._joined(kept)

    def _single_uses(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield a layer's index, inputs ``(n, [columns])`` and gradients ``(n, rows or columns)`` of one sentence."""
        for index, inputs, outputs in self._calls.recorded:
            if outputs.grad is not None:
                flat = inputs.reshape(-1, inputs.shape[-1]) if inputs.is_floating_point() else inputs.flatten()
                yield index, flat, outputs.grad.reshape(-1, outputs.shape[-1])
        for index, weight in enumerate(self._weights):
            if weight.grad is not None:
                yield index, torch.arange(len(weight), device=weight.device), weight.grad
                weight.grad = None

    def _joined(self, kept: dict[tuple[int, bool], list[tuple[int, Tensor, Tensor]]]) -> Iterator[Use]:
        for (index, _), uses in kept.items():
            inputs, gradients = (torch.cat([use[part] for use in uses]) for part in (1, 2))  # type: ignore[misc]
            lengths = torch.tensor([len(x) for _, x, _ in uses], device=inputs.device)
            sentences = torch.tensor([sentence for sentence, _, _ in uses], device=inputs.device)
            yield Use(index, sentences.repeat_interleave(lengths), inputs, gradients)

    def _track_weights(self, track: bool) -> None:
        self._tracking = track
        for weight in self._weights:
            weight.grad = None
            weight.requires_grad_(track)

    def _backward(self, tokens: Tensor, output: int = 0) -> None:
        """Run a forward pass, and a backward pass from the sum over sentences of one output."""
        self._calls = _Calls(len(tokens), tokens.shape[1], self.one_by_one)
        try:
            logits = self._model(input_ids=tokens.to(device_of(self._model))).logits
            outputs = self._head.outputs(logits)
            (outputs if outputs.dim() == 1 else outputs[:, output]).sum().backward()
        except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise self._error(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error

    def _error(self, reason: str) -> InputError:
        return InputError(
            f"{type(self._model).__name__}: cannot compute the gradients of its layers ({reason}); use "
            f"{self._alternative}"
        )

    def _before(self, index: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        layer, weight = self._layers[index], self._weights[index]

        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if type(module) not in _PLAIN:
                return
            entries = inputs[0].numel() // (layer.columns if layer.kind == "linear" else 1)
            # The gradient of the weight takes less than those of more outputs than there are tokens.
            weight.requires_grad_(self.one_by_one and entries > self._calls.tokens)

        return before

    def _after(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        weight = self._weights[index]

        def after(module: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> Tensor:
            if weight.requires_grad or type(module) not in _PLAIN:
                return outputs
            weight.requires_grad_(self._tracking)  # outside of its calls, if the layer's weight is used there
            return self._calls.record(index, inputs[0], outputs)

        return after


@dataclass
class _Calls:
    """The calls of layers in one pass over ``sentences`` of so many ``tokens``."""

    sentences: int = 0
    tokens: int = 0
    one_by_one: bool = False
    apart: bool = True
    recorded: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def record(self, index: int, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Record a call; return the outputs that the model goes on with."""
        x = inputs.detach().clone() if self.one_by_one else inputs.detach()  # the model may change it in place
        if not self.one_by_one and len(x) != self.sentences:
            if x.is_floating_point() or x.shape != (1, self.tokens):
                self.apart = False
            else:  # absolute positions, looked up once for all: each sentence needs its own gradient
                x = x.expand(self.sentences, -1)
                outputs = outputs.expand(self.sentences, -1, -1).clone()
        if not outputs.requires_grad:
            outputs.requires_grad_()
        outputs.retain_grad()
        self.recorded.append((index, x, outputs))
        self.versions.append(x._version)
        return outputs.clone()  # changed in place, the gradient would be another's

    def are_apart(self) -> bool:
        """Return whether the entries of each call are those of the sentences, and its inputs as they were."""
        unchanged = (x._version == version for (_, x, _), version in zip(self.recorded, self.versions, strict=True))
        return self.apart and all(unchanged)


@contextmanager
def recording(
    model: nn.Module, layers: Sequence[Layer], token_ids: Sequence[Sequence[int]], alternative: str
) -> Iterator[Recorder]:
    """Provide a recorder of a model's layers. Parameters take no gradients of their own inside the context.

    Args:
        model: a ``transformers`` sequence classifier in FP32; not changed.
        layers: its searchable layers.
        token_ids: sentences, to see how the model is called.
        alternative: options that need no gradients, for the error message.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        recorder = Recorder(model, layers, alternative)
        with recorder.hooked():
            recorder.find_mode(token_ids)
            yield recorder
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
