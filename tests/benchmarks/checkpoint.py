"""What loading a packed checkpoint costs, against loading the FP32 one, and against quantising that too.

bert-base-uncased's shapes with random weights and the documented map. Each way loads in a process of its own, which
tells its seconds and by how much its peak memory grew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from objectives.bit_maps import documented_bit_map
from objectives.loading.hub import quiet_libraries
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import load_classifier
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from results.export.packed import load_checkpoint, write_checkpoint
from tests.objectives.tiny_bert import SPECIAL, WORDS

REPEATS = 3
PACKED, PLAIN, FP32 = "packed", "FP32", "FP32 and quantised"


def main(arguments: list[str]) -> None:
    """Print the table; with ``load WAY DIR``, be one of its processes."""
    if arguments:
        _load(arguments[1], Path(arguments[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        directories = {PACKED: Path(folder) / "packed", PLAIN: Path(folder) / "fp32", FP32: Path(folder) / "fp32"}
        _write(directories)
        results = {way: [_measured(way, directory) for _ in range(REPEATS)] for way, directory in directories.items()}
    print("memory is the process's resident memory (RSS) at its peak, and once the model is loaded")
    for way, runs in results.items():
        seconds, grown = sorted(run["seconds"] for run in runs)[REPEATS // 2], max(run["grown"] for run in runs)
        model = runs[0]["model_bytes"]
        held = max(run["held"] for run in runs)
        print(
            f"{way:20} {seconds:6.2f} s, peak {grown / 2**20:6.0f} MiB more, {grown / model:.2f} of the model; "
            f"loaded {held / 2**20:6.0f} MiB more, {held / model:.2f}"
        )


def _write(directories: dict[str, Path]) -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig()).eval()
    with quiet_libraries():
        model.save_pretrained(directories[FP32])
        vocabulary = {token: index for index, token in enumerate((*SPECIAL, *WORDS))}
        BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(directories[FP32])
    sizes, bit_map = footprint_of(model), documented_bit_map(find_layers(model))
    started = time.perf_counter()
    quantized = QuantizedModel.of(model, WeightBank(model, sizes.layers), bit_map)
    print(f"quantising took {time.perf_counter() - started:.1f} s, {torch.get_num_threads()} threads")
    length = write_checkpoint(load_classifier(str(directories[FP32])), quantized, {}, directories[PACKED])
    print(f"documented map: {sizes.nominal_bits(bit_map):,} bits, {sizes.compression(bit_map, 'nominal'):.4f}x nominal")
    packed = sizes.compression(bit_map, "packed")
    print(f"on disk: {length:,} bytes against {sizes.fp32_packed_bytes:,}, {packed:.4f}x packed")
    codes = -(-sizes.nominal_bits(bit_map) // 8)
    scales = 5 * sum(layer.rows for layer in sizes.layers)
    print(f"of these {codes:,} codes, {scales:,} scales and zero points, {length - codes - scales:,} all the rest")


def _measured(way: str, directory: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks", "checkpoint", "load", way, str(directory)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures: dict[str, float] = json.loads(told.splitlines()[-1])
    return figures


def _load(way: str, directory: Path) -> None:
    before = _memory_bytes("VmRSS")
    started = time.perf_counter()
    if way == PACKED:
        model = load_checkpoint(directory).model
    elif way == PLAIN:
        model = load_classifier(str(directory)).model
    else:
        fp32 = load_classifier(str(directory)).model
        bit_map = documented_bit_map(find_layers(fp32))
        model = QuantizedModel.of(fp32, WeightBank(fp32, find_layers(fp32)), bit_map).decoded(fp32)
    figures = {
        "seconds": time.perf_counter() - started,
        "held": _memory_bytes("VmRSS") - before,
        "grown": _memory_bytes("VmHWM") - before,
        "model_bytes": sum(tensor.nbytes for tensor in model.state_dict().values()),
    }
    print(json.dumps(figures))


def _memory_bytes(field: str) -> int:
    # Linux alone tells this; ru_maxrss would count what the parent held when it started this process.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
