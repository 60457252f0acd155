"""First-order effects of quantising each layer alone, from one backward pass over the sentences.

Notation, for one layer and one sentence:

    x_i  input of the layer at token i
    g_i  gradient of the sentence's log-odds with respect to the layer's output at token i
    D    change of the layer's weight when it is quantised
    r    first-order shift of the log-odds: r = sum_i g_i' D x_i
    p    probability of class 1 in FP32

Sentences do not interact, so one backward pass from the sum of their log-odds gives every g. The second-order estimate
of the damage (mean KL divergence from FP32) is mean p (1 - p) r^2 / 2: the quadratic form of the layer's full Fisher
matrix, without diagonal or block approximation (Martens, JMLR 21 (2020), section 9; by its trace, for mixed precision:
Dong et al., NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from objectives.batching import device_of, equal_length_batches
from objectives.errors import InputError, is_out_of_memory
from objectives.layers import WIDTHS, Layer
from objectives.memory import give_back_freed
from objectives.quantization.bank import FP32_WIDTH, WeightBank

# Tokens a batch: all activations and their gradients are in memory at once, half a GB of them for bert-base.
_BATCH_TOKENS = 384


def first_order_shifts(
    model: nn.Module,
    layers: Sequence[Layer],
    token_ids: Sequence[Sequence[int]],
    bank: WeightBank,
    should_stop: Callable[[], bool] = lambda: False,
    report_progress: Callable[[int, int], object] = lambda done, total: None,
) -> npt.NDArray[np.float32] | None:
    """Return the first-order shift of each sentence's log-odds when one layer alone is quantised.

    Args:
        model: a two-class ``transformers`` sequence classifier in FP32; not changed.
        layers: its searchable layers.
        token_ids: each sentence's tokens, special ones included.
        bank: gives the layers' weights at each width.
        should_stop: checked before each batch.
        report_progress: called before each batch with the number of batches done and their total.

    Returns:
        r, ``(n_layers, n_widths, n_sentences)``, in nats; None if ``should_stop`` became true.

    Raises:
        InputError: hooks cannot record the layers of this architecture.
    """
    # On the model's device: no batch waits for a GPU.
    shifts = torch.zeros(len(layers), len(WIDTHS), len(token_ids), device=device_of(model))
    batches = list(equal_length_batches(token_ids, _BATCH_TOKENS))
    with recording(model, layers) as recorded:
        for done, (indices, tokens) in enumerate(batches):
            report_progress(done, len(batches))
            if should_stop():
                return None
            backward(model, tokens, "--sensitivity none --sampler nsga2")
            at = torch.tensor(indices, device=shifts.device)
            for index, inputs, outputs in recorded:
                if outputs.grad is not None:  # else the log-odds do not depend on it
                    shifts[index].index_add_(1, at, _layer_shifts(layers[index], inputs, outputs.grad, bank))
    give_back_freed()
    return shifts.cpu().numpy()


def backward(model: nn.Module, tokens: Tensor, alternative: str) -> None:
    """Run a forward pass on sentences of one length, and a backward pass from the sum of their log-odds.

    Args:
        model: a two-class classifier.
        tokens: ``(n_sentences, n_tokens)``.
        alternative: options that need no gradients, for the error message.

    Raises:
        InputError: hooks cannot record the layers of this architecture.
    """
    try:
        logits = model(input_ids=tokens.to(device_of(model))).logits
        (logits[:, 1] - logits[:, 0]).sum().backward()
    except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{type(model).__name__}: cannot compute the gradients of its layers ({type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}); use {alternative}"
        ) from error


@contextmanager
def recording(model: nn.Module, layers: Sequence[Layer]) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
    """Yield the list of (layer index, inputs, outputs) of the last forward pass; outputs keep their gradients.

    Call the model with ``input_ids`` as a keyword. Parameters take no gradients inside the context.
    """
    recorded: list[tuple[int, Tensor, Tensor]] = []
    sentences = 0

    def begin(module: nn.Module, args: object, kwargs: dict[str, Tensor]) -> None:
        nonlocal sentences
        recorded.clear()
        sentences = len(kwargs["input_ids"])

    def hook_of(index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            x = inputs[0].detach()
            if len(outputs) != sentences:  # positions, looked up once for all: each sentence needs its own gradient
                x = x.expand(sentences, *x.shape[1:])
                outputs = outputs.expand(sentences, *outputs.shape[1:]).clone()
            if not outputs.requires_grad:
                outputs.requires_grad_()
            outputs.retain_grad()
            recorded.append((index, x, outputs))
            return outputs

        return hook

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles = [model.register_forward_pre_hook(begin, with_kwargs=True)]
    for index, layer in enumerate(layers):
        handles.append(model.get_submodule(layer.name).register_forward_hook(hook_of(index)))
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield recorded
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for handle in handles:
            handle.remove()


def _layer_shifts(layer: Layer, inputs: Tensor, gradient: Tensor, bank: WeightBank) -> Tensor:
    """Return r, ``(n_widths, n_sentences)``, from x and g, both ``(n_sentences, [n_tokens,] ...)``."""
    shifts = torch.empty(len(WIDTHS), len(gradient), device=gradient.device)
    with torch.inference_mode():
        rows = None
        if layer.kind == "embedding":
            rows, inputs = torch.unique(inputs, return_inverse=True)
        n_rows = layer.rows if rows is None else len(rows)
        exact, changed = (torch.empty(n_rows, layer.columns, device=inputs.device) for _ in range(2))
        bank.write_weight(layer, FP32_WIDTH, exact, rows)
        for column, width in enumerate(WIDTHS):
            bank.write_weight(layer, width, changed, rows)
            changed -= exact
            moved = changed[inputs] if rows is not None else torch.nn.functional.linear(inputs, changed)
            shifts[column] = (moved * gradient).flatten(1).sum(dim=1)
    return shifts
