"""What an ONNX export of bert-base-uncased's shapes costs: bytes of its file, resident memory, milliseconds a sentence.

Random weights, codes and widths of 5.5 bits a weight. The models take turns at each sentence, with one thread and with
two; memory is what a session adds to a process that has one of a single node.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from objectives.layers import WIDTHS, BitMap
from objectives.loading.layer_discovery import footprint_of
from objectives.loading.models import Classifier, load_classifier
from objectives.packing.footprint import Footprint
from objectives.quantization.affine import AffineParameters
from objectives.quantization.parameters import Entry
from objectives.quantization.quantized_model import QuantizedModel
from results.export.costs import resident_bytes, seconds
from results.export.onnx import check_onnx
from results.export.onnx_session import ONNX_FILE, OnnxSession, padded
from tests.objectives.tiny_bert import make_tiny_bert

MEAN_WIDTH = 5.5
SENTENCES, TOKENS = 15, 11
MOST_FILE_BYTES, MOST_RESIDENT_BYTES = 88_000_000, 135 * 2**20


def main(arguments: list[str]) -> None:
    """Print the table."""
    check_onnx()
    from results.export.onnx.writer import write_fp32_onnx, write_onnx  # an extra

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig()).eval()
    sizes = footprint_of(model)
    seed, bit_map = random_map(sizes)
    mean = sizes.nominal_bits(bit_map) / sum(layer.elements for layer in sizes.layers)
    print(f"random map (seed {seed}) of {mean:.2f} bits a weight, sentences of {TOKENS} tokens")
    quantized = random_codes(model, sizes, bit_map)
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in ("FP32", "fp32 activations", "int8 activations")}
        tokenizer = load_classifier(str(make_tiny_bert(Path(folder) / "tiny"))).tokenizer
        classifier = Classifier(model, tokenizer, "random")
        write_fp32_onnx(classifier, {}, places["FP32"])
        write_onnx(classifier, quantized, {}, places["fp32 activations"], "fp32")
        write_onnx(classifier, quantized, {}, places["int8 activations"], "int8")
        files = {name: place / ONNX_FILE for name, place in places.items()}
        lengths = {name: file.stat().st_size for name, file in files.items()}
        held = {name: (resident_bytes("onnx", file) or 0) / 2**20 for name, file in files.items()}
        taken = latencies_ms(files)
    print(f"{'':18} {'bytes on disk':>13} {'memory':>9} {'1 thread':>10} {'2 threads':>10}")
    for name, length in lengths.items():
        one, two = (f"{taken[name, threads]:.1f} ms" for threads in (1, 2))
        print(f"{name:18} {length:13,} {held[name]:5.0f} MiB {one:>10} {two:>10}")
    print(f"targets: at most {MOST_FILE_BYTES:,} bytes and {MOST_RESIDENT_BYTES / 2**20:.0f} MiB")


def random_map(sizes: Footprint) -> tuple[int, BitMap]:
    """Return the first random map of about the mean width, every width as likely, and its seed."""
    weights = sum(layer.elements for layer in sizes.layers)
    seed = 0
    while True:
        drawn = np.random.default_rng(seed).choice(WIDTHS, size=len(sizes.layers))
        bit_map = tuple(int(width) for width in drawn)
        if abs(sizes.nominal_bits(bit_map) / weights - MEAN_WIDTH) < 0.02:
            return seed, bit_map
        seed += 1


def random_codes(model: torch.nn.Module, sizes: Footprint, bit_map: BitMap) -> QuantizedModel:
    """Return random codes of a map: no size or speed depends on which they are."""
    entries: list[Entry] = []
    for layer, width in zip(sizes.layers, bit_map, strict=True):
        codes = torch.randint(0, 2**width, (layer.rows, layer.columns), dtype=torch.uint8)
        scale, zero_point = (torch.full((layer.rows, 1), value) for value in (0.16 / 2**width, 2.0**width / 2))
        entries.append((codes, AffineParameters(scale, zero_point, width)))
    state = model.state_dict()
    return QuantizedModel(sizes.layers, bit_map, tuple(entries), {name: state[name] for name in sizes.kept})


def latencies_ms(files: dict[str, Path]) -> dict[tuple[str, int], float]:
    """Return the median milliseconds of a sentence by file and number of threads."""
    rng = np.random.default_rng(0)
    sentences = [padded([rng.integers(1000, 30000, size=TOKENS).tolist()]) for _ in range(SENTENCES)]
    sessions = {(name, threads): OnnxSession(file, threads) for name, file in files.items() for threads in (1, 2)}
    models = {f"{name}/{threads}": session.logits for (name, threads), session in sessions.items()}
    taken = seconds(models, sentences, [])
    return {(name, threads): 1000 * taken[f"{name}/{threads}"][0] for name, threads in sessions}
