"""nvidia-modelopt: weight-only blocks of 64, by the greatest weight and by AWQ, and its own mix of widths."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.benchmarks.peers.bed import Bed, Result, Settings, linear_layers, timed

SENTENCES, GROUP = 128, 64


def settings(bed: Bed) -> Settings:
    """Yield its results; embeddings stay in FP32, and no file is written: its exports are for GPUs."""
    import modelopt.torch.quantization as mtq

    batches = [*bed.batches(SENTENCES, max_tokens=1024)]

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

    def uniform(preset: dict[str, Any], width: int) -> Result:
        model, taken = bed.model(), list[float]()
        with timed(taken):
            mtq.quantize(model, config(preset, width), run_all)
        return Result(_weights(model), taken[0])

    def forward(model: nn.Module, batch: Any) -> Any:
        return model(**batch).logits

    def loss(logits: torch.Tensor, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, logits.argmax(1))  # labels play no part

    formats = [*(config(mtq.INT4_AWQ_CFG, width) for width in (2, 3, 4)), mtq.INT8_WEIGHT_ONLY_CFG]

    def mixed(bits: float) -> Result:
        model, taken = bed.model(), list[float]()
        model.requires_grad_(True)
        with timed(taken):
            mtq.auto_quantize(
                model,
                constraints={"effective_bits": bits},
                quantization_formats=formats,
                disabled_layers="*classifier*",
                data_loader=batches,
                forward_step=forward,
                loss_func=loss,
                num_calib_steps=len(batches),
                num_score_steps=len(batches),
            )
        return Result(_weights(model), taken[0])

    for name, preset, width in (
        ("RTN", mtq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, 4),
        ("AWQ", mtq.INT4_AWQ_CFG, 4),
        ("AWQ", mtq.INT4_AWQ_CFG, 3),
    ):
        yield f"modelopt {name} {width} bits, blocks of {GROUP}", partial(uniform, preset, width)
    for bits in (2.6, 4.0):
        yield f"modelopt auto_quantize, {bits} bits, of 2 to 4 (AWQ) and 8", partial(mixed, bits)


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
