"""auto-round: SignSGD on the blocks' outputs at one width, and with the widths that its AutoScheme chooses."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.benchmarks.peers.bed import Bed, Result, Settings, linear_layers, saved_bytes, timed

SENTENCES, BATCH, GROUP = 128, 8, 64
"""Of calibration: the tool's own defaults are 128 and 8."""
PADDED, EXACT = 16, 12
"""Tokens of a sentence. SignSGD sees sentences padded or cut; AutoScheme reads texts, and takes those of one length."""
STEPS = 200
"""A block; the tool's own default."""


def settings(bed: Bed) -> Settings:
    """Yield its settings; embeddings and pooler stay in FP32."""
    from auto_round import AutoRound, AutoScheme
    from auto_round.schemes import QuantizationScheme

    def scheme(width: int, symmetric: bool = False) -> Any:
        return QuantizationScheme(bits=width, group_size=GROUP, sym=symmetric, data_type="int", act_bits=16)

    def made(chosen: Any, mixed: bool) -> Result:
        model, taken = _with_loss(bed.model()), list[float]()
        model.name_or_path = bed.problem.classifier.source
        names = [*linear_layers(model)]
        gc.collect()
        gc.freeze()  # the tool collects garbage after every step; most of its time would go there
        with tempfile.TemporaryDirectory() as folder, timed(taken):
            os.environ["AR_AUTO_SCHEME_CACHE"] = folder  # else it stays at home, and the next time counts nothing
            tool = AutoRound(
                model,
                tokenizer=bed.problem.classifier.tokenizer,
                scheme=chosen,
                dataset=_texts(bed, Path(folder)) if mixed else [*_padded(bed)],
                iters=STEPS,
                seqlen=EXACT if mixed else PADDED,
                nsamples=SENTENCES,
                batch_size=BATCH,
                device_map="cpu",
                enable_torch_compile=False,
                low_cpu_mem_usage=False,
                amp=False,  # FP32, as everything here
            )
            quantized, _ = tool.quantize()
        weights = {}
        for name in names:
            layer = quantized.get_submodule(name)
            if not hasattr(layer, "scale"):
                continue  # left in FP32
            weight, width = layer.weight.detach().float(), layer.bits
            zero_points = 0 if layer.sym else width
            stored = weight.numel() * width + weight.numel() // GROUP * (16 + zero_points)
            weights[f"{name}.weight"] = weight, stored
        return Result(weights, taken[0], saved_bytes(quantized))

    for width, symmetric in ((4, False), (3, False), (4, True)):
        levels = "symmetric" if symmetric else "asymmetric"
        setting = f"auto-round SignSGD, {width} bits {levels}, groups of {GROUP}"
        yield setting, partial(made, scheme(width, symmetric), False)
    for bits in (3.8,):
        mix = AutoScheme(
            avg_bits=bits,
            options=[scheme(width) for width in (2, 3, 4, 8)],
            nsamples=SENTENCES,
            seqlen=EXACT,
            batch_size=BATCH,
            device_map="cpu",
            low_gpu_mem_usage=False,
            low_cpu_mem_usage=False,
        )
        yield f"auto-round AutoScheme, SignSGD, {bits} bits with scales", partial(made, mix, True)


def _with_loss(model: nn.Module) -> Any:
    """Make a model take labels as a language model does, for AutoScheme; its loss is against its own prediction."""
    forward = model.forward

    def with_loss(*given: Any, labels: Any = None, use_cache: bool = False, **named: Any) -> Any:
        outputs = forward(*given, **named)
        if labels is not None:
            outputs.loss = nn.functional.cross_entropy(outputs.logits, outputs.logits.argmax(1))
        return outputs

    model.forward = with_loss
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # AutoScheme puts the model into training mode
    return model


def _texts(bed: Bed, folder: Path) -> str:
    chosen = [ids for ids in bed.training[:2048] if len(ids) == EXACT][:SENTENCES]
    texts = bed.problem.classifier.tokenizer.batch_decode(chosen, skip_special_tokens=True)
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def _padded(bed: Bed) -> Iterator[dict[str, torch.Tensor]]:
    for start in range(0, SENTENCES, BATCH):
        ids = torch.zeros(BATCH, PADDED, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(bed.training[start : start + BATCH]):
            kept = [*tokens[: PADDED - 1], tokens[-1]] if len(tokens) > PADDED else tokens
            ids[row, : len(kept)] = torch.tensor(kept)
            mask[row, : len(kept)] = 1
        yield {"input_ids": ids, "attention_mask": mask}
