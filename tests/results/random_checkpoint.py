"""Packed checkpoints of random codes, for what depends on shapes alone; and their memory, measured in a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from objectives.layers import BitMap
from objectives.loading.layer_discovery import footprint_of
from objectives.loading.models import Classifier
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.dispatch import stored_parameters
from objectives.quantization.quantized_model import QuantizedModel
from results.export.packed import load_checkpoint, write_checkpoint
from tests.objectives.tiny_bert import SPECIAL, WORDS
from tests.shared import ROOT

WARM_UP: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def write_random_checkpoint(
    directory: Path, width: int | BitMap, scheme: Scheme = PER_ROW, **settings: Any
) -> QuantizedModel:
    """Write a BERT of random codes; ``settings`` go to its config, whose defaults are bert-base-uncased's shapes."""
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(**settings))
    sizes = footprint_of(model, scheme)
    bit_map = (width,) * len(sizes.layers) if isinstance(width, int) else width
    generator = torch.Generator().manual_seed(0)
    entries = []
    for layer, bits in zip(sizes.layers, bit_map, strict=True):
        codes = torch.empty(layer.rows, layer.columns, dtype=torch.uint8).random_(0, 2**bits, generator=generator)
        parts = {}
        for part, tensor in scheme.parts(layer, bits).items():
            values = torch.rand(tensor.shape, generator=generator)
            parts[part] = values.sort().values if part == "codewords" else values.mul_(0.05)
            if tensor.dtype == "U8":
                parts[part] = torch.empty(tensor.shape, dtype=torch.uint8).random_(generator=generator)
        entries.append((codes, stored_parameters(scheme, codes, bits, parts)))
    kept = {name: torch.rand(shape, generator=generator) for name, shape in sizes.kept.items()}
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *WORDS))}
    classifier = Classifier(model, BertTokenizer(vocab=vocabulary, model_max_length=512), "random")
    quantized = QuantizedModel(sizes.layers, bit_map, tuple(entries), kept, scheme)
    write_checkpoint(classifier, quantized, {}, directory)
    return quantized


def memory_of(directory: Path, batch: int, tokens: int) -> dict[str, int]:
    """Return by how many bytes a process grew at its peak while it loaded a checkpoint packed and ran a batch.

    The process has imported everything and used a tiny checkpoint before. ``loaded`` is without the batch.
    """
    tiny = directory.with_name(f"{directory.name}-tiny")
    write_random_checkpoint(tiny, 3, vocab_size=30, **WARM_UP)
    command = [sys.executable, "-m", "tests.results.random_checkpoint", *map(str, (tiny, directory, batch, tokens))]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    figures: dict[str, int] = json.loads(told)
    return figures


def main(arguments: Sequence[str]) -> None:
    """Load, run and print the memory of it: the process of ``memory_of``."""
    tiny, directory, batch, tokens = arguments
    ids = torch.full((int(batch), int(tokens)), 7)
    with torch.inference_mode():
        load_checkpoint(tiny, packed=True).model(input_ids=ids[:1, :8])
        before = memory_bytes("VmRSS")
        model = load_checkpoint(directory, packed=True).model
        loaded = memory_bytes("VmHWM")
        held = memory_bytes("VmRSS")
        model(input_ids=ids)
    figures = {"loaded": loaded - before, "held": held - before, "peak": memory_bytes("VmHWM") - before}
    print(json.dumps(figures))


def memory_bytes(field: str) -> int:
    """Return a figure of this process's memory: ``VmRSS`` is now, ``VmHWM`` the peak."""
    # Linux alone tells this; ru_maxrss would count what the parent held when it started this process.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main(sys.argv[1:])
