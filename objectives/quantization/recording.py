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
# Outputs that share a forward pass, and what is done to the layers' inputs. Their gradients are in memory at once: an
# eighth of a GB for each, with bert-base and the batches of first-order effects.
_OUTPUTS_TOGETHER = 4


_Gradients = tuple[Tensor | None, ...]
"""Of one tensor by each of some outputs; None for an output that does not depend on it."""


@dataclass(frozen=True)
class Use:
    """A layer's part in a forward and backward pass.

    Attributes:
        layer: the layer's index.
        sentences: the sentence in the batch that each of the n entries belongs to, ``(n,)``.
        inputs: of the layer, ``(n, ...)``: hidden states, or whole numbers that name rows of its weight.
        gradients: of each of some outputs of the sentence's head with respect to the layer's outputs, or to those rows,
            each ``(n, ...)``.
    """

    layer: int
    sentences: Tensor
    inputs: Tensor
    gradients: tuple[Tensor, ...]


class Recorder:
    """Runs a model and records what its layers see; see :func:`recording`.

    Attributes:
        one_by_one: whether each sentence has a pass of its own.
        n_outputs: of the model's head.
        outputs_together: its outputs, in groups to ask for together.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], alternative: str) -> None:
        """Take a model whose parameters take no gradients, and the options that need none, for error messages."""
        self.one_by_one = False
        self._model = model
        self._head = head_of(model)
        self.n_outputs = self._head.n_outputs
        outputs = range(self.n_outputs)
        self.outputs_together = [outputs[at : at + _OUTPUTS_TOGETHER] for at in outputs[::_OUTPUTS_TOGETHER]]
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
            gradients = self._backward(torch.tensor([sentence] * copies))
        except InputError:  # what stops a batch need not stop a sentence
            self.one_by_one = True
        else:
            outside = map(_without_gaps, gradients[len(self._calls.recorded) :])
            self.one_by_one = any(outside) or not self._calls.are_apart()
        self._track_weights(self.one_by_one)

    def uses(self, tokens: Tensor, outputs: Sequence[int]) -> Iterator[Use]:
        """Yield the layers' parts in some outputs of each sentence.

        Args:
            tokens: sentences of one length, ``(n_sentences, n_tokens)``.
            outputs: which of the head's outputs; they share a forward pass, and each takes a backward pass of its own.

        Raises:
            InputError: the model has no gradients, or another error ends its passes.
        """
        if not self.one_by_one:
            gradients = self._backward(tokens, outputs)
            if not self._calls.are_apart():
                raise self._error("the calls of its layers vary")
            everyone = torch.arange(len(tokens), device=device_of(self._model))
            for (index, inputs, _), found in zip(self._calls.recorded, gradients, strict=False):  # weights have none
                if present := _without_gaps(found):
                    yield Use(index, everyone, inputs, present)
            return
        kept: dict[tuple[int, bool], list[tuple[int, Tensor, tuple[Tensor, ...]]]] = {}
        kept_bytes = 0
        for sentence in range(len(tokens)):
            gradients = self._backward(tokens[sentence : sentence + 1], outputs)
            for index, inputs, present in self._single_uses(gradients):
                kept.setdefault((index, inputs.is_floating_point()), []).append((sentence, inputs, present))
                kept_bytes += inputs.nbytes + sum(gradient.nbytes for gradient in present)
            if kept_bytes > _KEPT_BYTES:
                yield from self._joined(kept)
                kept, kept_bytes = {}, 0
        yield from self._joined(kept)

    def _single_uses(self, gradients: Sequence[_Gradients]) -> Iterator[tuple[int, Tensor, tuple[Tensor, ...]]]:
        """Yield a layer's index, inputs ``(n, [columns])`` and gradients ``(n, rows or columns)`` of one sentence."""
        calls = self._calls.recorded
        for (index, inputs, outputs), found in zip(calls, gradients, strict=False):
            flat = inputs.reshape(-1, inputs.shape[-1]) if inputs.is_floating_point() else inputs.flatten()
            if present := _without_gaps(found):
                yield index, flat, tuple(gradient.reshape(-1, outputs.shape[-1]) for gradient in present)
        for index, (weight, found) in enumerate(zip(self._weights, gradients[len(calls) :], strict=True)):
            if present := _without_gaps(found):
                yield index, torch.arange(len(weight), device=weight.device), present

    def _joined(self, kept: dict[tuple[int, bool], list[tuple[int, Tensor, tuple[Tensor, ...]]]]) -> Iterator[Use]:
        for (index, _), uses in kept.items():
            inputs = torch.cat([x for _, x, _ in uses])
            gradients = tuple(map(torch.cat, zip(*(found for _, _, found in uses), strict=True)))
            lengths = torch.tensor([len(x) for _, x, _ in uses], device=inputs.device)
            sentences = torch.tensor([sentence for sentence, _, _ in uses], device=inputs.device)
            yield Use(index, sentences.repeat_interleave(lengths), inputs, gradients)

    def _track_weights(self, track: bool) -> None:
        self._tracking = track
        for weight in self._weights:
            weight.grad = None
            weight.requires_grad_(track)

    def _backward(self, tokens: Tensor, outputs: Sequence[int] = (0,)) -> list[_Gradients]:
        """Run a forward pass, and a backward pass from the sum over sentences of each of some outputs.

        Return the gradients of each call's outputs, and after them those of each weight.
        """
        self._calls = _Calls(len(tokens), tokens.shape[1], self.one_by_one)
        try:
            logits = self._model(input_ids=tokens.to(device_of(self._model))).logits
            sums = self._head.outputs(logits).reshape(len(logits), -1).sum(dim=0)
            watched = [*(tensor for _, _, tensor in self._calls.recorded), *self._weights]
            found = []
            for output in outputs:
                sums[output].backward(retain_graph=output != outputs[-1])
                found.append([tensor.grad for tensor in watched])
                for tensor in watched:
                    tensor.grad = None
            return list(zip(*found, strict=True))
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


def _without_gaps(gradients: _Gradients) -> tuple[Tensor, ...]:
    """Return the gradients by each output, 0 for an output that does not depend; none if no output does."""
    like = next((gradient for gradient in gradients if gradient is not None), None)
    if like is None:
        return ()
    return tuple(torch.zeros_like(like) if gradient is None else gradient for gradient in gradients)


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
