"""auto-round: SignSGD on the blocks' outputs, 4 and 3 bits in groups of 64, and rounding to nearest (no steps)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch

from tests.benchmarks.peers.bed import Bed, Result, linear_layers, saved_bytes, timed

SENTENCES, BATCH, LENGTH = 256, 8, 16
"""Of calibration. The tool needs batches of one length: sentences are padded to 16 tokens, or cut."""
STEPS = 200
"""The tool's own default."""


def results(bed: Bed) -> Iterator[Result]:
    """Yield its results; embeddings stay in FP32."""
    from auto_round import AutoRound

    def made(width: int, steps: int, symmetric: bool) -> Result:
        taken = list[float]()
        model: Any = bed.model()
        model.name_or_path = bed.problem.classifier.source
        names = [*linear_layers(model)]
        with timed(taken):
            tool = AutoRound(
                model,
                tokenizer=bed.problem.classifier.tokenizer,
                scheme={"bits": width, "group_size": 64, "sym": symmetric, "data_type": "int", "act_bits": 16},
                dataset=_padded(bed),
                iters=steps,
                seqlen=LENGTH,
                nsamples=SENTENCES,
                batch_size=BATCH,
                device_map="cpu",
                enable_torch_compile=False,
                low_cpu_mem_usage=False,
            )
            quantized, _ = tool.quantize()
        weights = {}
        for name in names:
            layer = quantized.get_submodule(name)
            if hasattr(layer, "scale"):
                weight = layer.weight.detach().float()
                groups = weight.numel() // 64
                stored = weight.numel() * width + groups * (16 + (0 if symmetric else width))
                weights[f"{name}.weight"] = weight, stored
            else:
                print(f"{name}: left in FP32", file=sys.stderr)
        kind = f"SignSGD, {steps} steps" if steps else "RTN"
        levels = "symmetric" if symmetric else "asymmetric"
        setting = f"auto-round {kind}, {width} bits {levels}, groups of 64"
        return Result(setting, weights, taken[0], saved_bytes(quantized))

    yield made(4, STEPS, False)
    yield made(3, STEPS, False)
    yield made(4, STEPS, True)


def _padded(bed: Bed) -> list[dict[str, torch.Tensor]]:
    chosen = bed.training[:SENTENCES]
    batches = []
    for start in range(0, len(chosen), BATCH):
        ids = torch.zeros(BATCH, LENGTH, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(chosen[start : start + BATCH]):
            kept = [*tokens[: LENGTH - 1], tokens[-1]] if len(tokens) > LENGTH else tokens
            ids[row, : len(kept)] = torch.tensor(kept)
            mask[row, : len(kept)] = 1
        batches.append({"input_ids": ids, "attention_mask": mask})
    return batches
