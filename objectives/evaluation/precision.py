"""Which precision multiplies a model's matrices faster on this processor."""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor, nn

from objectives.batching import device_of
from objectives.evaluation.cuda_graphs import multiplies_bf16
from objectives.evaluation.evaluator import DTYPES
from objectives.evaluation.linear import Product, make_product
from objectives.scores import Precision

log = logging.getLogger("bitfront")

LEAST_GAIN = 1.3
"""How many times as fast bf16 must be; below that, scoring the best maps again in FP32 takes what it saves."""
_LEAST_WEIGHTS = 1 << 18  # a smaller layer is multiplied in microseconds, and its timing is noise
_ROWS, _GPU_ROWS = 256, 8192  # tokens; a product of bert-base then takes about 12 ms on two cores in FP32
_REPEATS = 3


def faster_precision(network: nn.Module) -> Precision:
    """Return bf16 if the device of a network multiplies it in hardware and gains by it, else FP32.

    The gain is timed with the product of the network's largest linear layer, which takes a fraction of a second. So
    on a busy machine the answer may differ from one call to the next: keep it.
    """
    device = device_of(network)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    largest = max(linear, key=lambda module: module.weight.numel(), default=None)
    if largest is None or largest.weight.numel() < _LEAST_WEIGHTS or not multiplies_bf16(device):
        return "fp32"
    gain = _gain(largest, device)
    log.info("a product of this model is %.1f times as fast in bf16 as in FP32", gain)
    return "bf16" if gain >= LEAST_GAIN else "fp32"


@torch.inference_mode()
def _gain(linear: nn.Linear, device: torch.device) -> float:
    """Return the time of a layer's product in FP32, as a multiple of that in bf16."""
    rows = _GPU_ROWS if device.type == "cuda" else _ROWS
    products: dict[Precision, tuple[Product, Tensor]] = {}
    for precision in ("fp32", "bf16"):
        weight = linear.weight.to(DTYPES[precision])
        product = make_product(weight.shape[1], weight.new_zeros(weight.shape[0]))
        product.weight.copy_(weight)
        product.refresh()
        products[precision] = product, weight.new_ones(rows, weight.shape[1])
        product(products[precision][1])  # the first call prepares kernels
    # The best of some in turn, because other processes may take the processor meanwhile.
    in_turn = [{precision: _seconds(*product) for precision, product in products.items()} for _ in range(_REPEATS)]
    return min(times["fp32"] for times in in_turn) / min(times["bf16"] for times in in_turn)


def _seconds(product: Product, x: Tensor) -> float:
    """Return what one product takes."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    began = time.perf_counter()
    product(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began
