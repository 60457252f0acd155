"""First-order effects of quantising each layer alone, from one backward pass over the sentences for each output.

Notation, for one layer and one sentence:

    x_i  input of the layer at token i
    g_i  gradient of one of the sentence's outputs with respect to the layer's output at token i
    D    change of the layer's weight when it is quantised
    r    first-order shift of that output: r = sum_i g_i' D x_i
    H    curvature of the damage by the outputs; p (1 - p) for two classes

Sentences do not interact, so one backward pass from the sum of an output over them gives every g. The second-order
estimate of the damage (mean KL divergence from FP32) is mean r' H r / 2: the quadratic form of the layer's full Fisher
matrix, without diagonal or block approximation (Martens, JMLR 21 (2020), section 9; by its trace, for mixed precision:
Dong et al., NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from objectives.batching import device_of, equal_length_batches
from objectives.layers import WIDTHS, Layer
from objectives.memory import give_back_freed
from objectives.quantization.bank import FP32_WIDTH, WeightBank
from objectives.quantization.recording import recording

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
    """Return the first-order shift of each sentence's outputs when one layer alone is quantised.

    Args:
        model: a ``transformers`` sequence classifier in FP32; not changed.
        layers: its searchable layers.
        token_ids: each sentence's tokens, special ones included.
        bank: gives the layers' weights at each width.
        should_stop: checked before each batch.
        report_progress: called before each batch with the number of batches done and their total.

    Returns:
        r, ``(n_layers, n_widths, n_sentences)``, in nats, and ``(..., n_sentences, n_outputs)`` for more outputs than
        one; None if ``should_stop`` became true.

    Raises:
        InputError: the model has no gradients, or another error ends its passes.
    """
    batches = list(equal_length_batches(token_ids, _BATCH_TOKENS))
    with recording(model, layers, token_ids, "--sensitivity none --sampler nsga2") as recorder:
        # On the model's device: no batch waits for a GPU.
        shape = (recorder.n_outputs, len(layers), len(WIDTHS), len(token_ids))
        shifts = torch.zeros(shape, device=device_of(model))
        for done, (indices, tokens) in enumerate(batches):
            report_progress(done, len(batches))
            if should_stop():
                return None
            at = torch.tensor(indices, device=shifts.device)
            for together in recorder.outputs_together:
                for use in recorder.uses(tokens, together):
                    moved = _layer_shifts(layers[use.layer], use.inputs, use.gradients, bank)
                    for output, own in zip(together, moved, strict=True):
                        shifts[output, use.layer].index_add_(1, at[use.sentences], own)
    give_back_freed()
    return (shifts[0] if len(shifts) == 1 else shifts.movedim(0, -1).contiguous()).cpu().numpy()


def _layer_shifts(layer: Layer, inputs: Tensor, gradients: Sequence[Tensor], bank: WeightBank) -> Tensor:
    """Return r of some outputs, ``(n_outputs, n_widths, n)``, from x and each output's g.

    Both are ``(n, [n_tokens,] ...)``; x may name rows of the weight.
    """
    shifts = torch.empty(len(gradients), len(WIDTHS), len(inputs), device=inputs.device)
    with torch.inference_mode():
        rows = None
        if not inputs.is_floating_point():
            rows, inputs = torch.unique(inputs, return_inverse=True)
        n_rows = layer.rows if rows is None else len(rows)
        exact, changed = (torch.empty(n_rows, layer.columns, device=inputs.device) for _ in range(2))
        bank.write_weight(layer, FP32_WIDTH, exact, rows)
        for column, width in enumerate(WIDTHS):
            bank.write_weight(layer, width, changed, rows)
            changed -= exact
            moved = changed[inputs] if rows is not None else torch.nn.functional.linear(inputs, changed)
            for own, gradient in zip(shifts, gradients, strict=True):
                own[column] = (moved * gradient).flatten(1).sum(dim=1)
    return shifts
