"""nvidia-modelopt: weight-only blocks of 64, by the greatest weight and by AWQ, and its own mix of 4 and 8 bits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tests.benchmarks.peers.bed import Bed, Result, linear_layers, timed

SENTENCES, GROUP = 256, 64


def results(bed: Bed) -> Iterator[Result]:
    """Yield its results; embeddings stay in FP32, and no file is written: its exports are for GPUs."""
    import modelopt.torch.quantization as mtq

    batches = [*bed.batches(SENTENCES)]

    def run_all(model: nn.Module) -> None:
        for batch in batches:
            model(**batch)

    def config(preset: dict[str, Any], width: int) -> dict[str, Any]:
        made = copy.deepcopy(preset)
        for rule in made["quant_cfg"]:
            if (of := rule.get("cfg")) and "block_sizes" in of and "weight_quantizer" in rule["quantizer_name"]:
                of["num_bits"] = width
                of["block_sizes"] = {**of["block_sizes"], -1: GROUP}
        return made

    for name, preset, width in (
        ("RTN", mtq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, 4),
        ("AWQ", mtq.INT4_AWQ_CFG, 4),
        ("AWQ", mtq.INT4_AWQ_CFG, 3),
    ):
        model, taken = bed.model(), list[float]()
        with timed(taken):
            mtq.quantize(model, config(preset, width), run_all)
        yield Result(f"modelopt {name} {width} bits, blocks of {GROUP}", _weights(model), taken[0])

    def forward(model: nn.Module, batch: Any) -> Any:
        return model(**batch).logits

    def loss(logits: torch.Tensor, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, logits.argmax(1))  # labels play no part

    for bits in (6.0, 5.0):
        model, taken = bed.model(), list[float]()
        model.requires_grad_(True)
        with timed(taken):
            mtq.auto_quantize(
                model,
                constraints={"effective_bits": bits},
                quantization_formats=[config(mtq.INT4_AWQ_CFG, 4), mtq.INT8_WEIGHT_ONLY_CFG],
                data_loader=batches,
                forward_step=forward,
                loss_func=loss,
                num_calib_steps=len(batches),
                num_score_steps=len(batches),
            )
        yield Result(f"modelopt auto_quantize, {bits:g} bits of 4 (AWQ) and 8", _weights(model), taken[0])


def _weights(model: nn.Module) -> dict[str, tuple[torch.Tensor, int]]:
    weights = {}
    for name in linear_layers(model):
        layer: Any = model.get_submodule(name)
        quantizer = layer.weight_quantizer
        if not quantizer.is_enabled:
            continue
        with torch.no_grad():
            decoded = quantizer(layer.weight).detach().float()
        blocks = quantizer.block_sizes
        scales = decoded.numel() // blocks[-1] if blocks else len(decoded)
        stored = decoded.numel() * int(quantizer.num_bits) + 16 * scales
        before = getattr(layer.input_quantizer, "pre_quant_scale", None)  # AWQ's, one a column
        if before is not None:
            decoded, stored = decoded * before.detach().reshape(1, -1), stored + 16 * decoded.shape[1]
        weights[f"{name}.weight"] = decoded, stored
    return weights
