"""What loading a packed checkpoint costs, against loading the FP32 one, and against quantising that too.

bert-base-uncased's shapes with random weights and the documented map. Each way loads in a process of its own, which
tells its seconds and by how much its peak memory grew. Then a model that stays packed in memory is timed against the
decoded one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
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
from tests.benchmarks.timing import medians_s
from tests.objectives.tiny_bert import SPECIAL, WORDS
from tests.results.random_checkpoint import memory_bytes

REPEATS = 3
PACKED, PLAIN, FP32 = "packed", "FP32", "FP32 and quantised"
STAYS = "packed in memory"
BATCHES = ((1, 11), (1, 64), (32, 11), (32, 64))  # sentences, tokens


def main(arguments: list[str]) -> None:
    """Print the table; with ``load WAY DIR``, be one of its processes."""
    if arguments:
        _load(arguments[1], Path(arguments[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        directories = {PACKED: Path(folder) / "packed", PLAIN: Path(folder) / "fp32", FP32: Path(folder) / "fp32"}
        directories[STAYS] = directories[PACKED]
        _write(directories)
        results = {way: [_measured(way, directory) for _ in range(REPEATS)] for way, directory in directories.items()}
        ratios = _slower(directories[PACKED])
    print("memory is the process's resident memory (RSS) at its peak, and once the model is loaded")
    for way, runs in results.items():
        seconds, grown = sorted(run["seconds"] for run in runs)[REPEATS // 2], max(run["grown"] for run in runs)
        model = results[PLAIN][0]["model_bytes"]
        held = max(run["held"] for run in runs)
        print(
            f"{way:20} {seconds:6.2f} s, peak {grown / 2**20:6.0f} MiB more, {grown / model:.2f} of the model; "
            f"loaded {held / 2**20:6.0f} MiB more, {held / model:.2f}"
        )
    for (sentences, tokens), ratio in ratios.items():
        print(f"a batch of {sentences} x {tokens} tokens takes {ratio:.2f} of the decoded model's time")


def _slower(directory: Path) -> dict[tuple[int, int], float]:
    """Return the time of a batch in the model that stays packed over that in the decoded one."""
    models = {packed: load_checkpoint(directory, packed=packed).model for packed in (False, True)}
    ratios = {}
    with torch.inference_mode():
        for batch in BATCHES:
            ids = torch.randint(5, 30_000, batch)
            assert torch.equal(models[True](input_ids=ids).logits, models[False](input_ids=ids).logits)
            runs = {str(packed): partial(model, input_ids=ids) for packed, model in models.items()}
            seconds = medians_s(runs, REPEATS)
            ratios[batch] = seconds["True"] / seconds["False"]
    return ratios


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
    before = memory_bytes("VmRSS")
    started = time.perf_counter()
    if way in (PACKED, STAYS):
        model = load_checkpoint(directory, packed=way == STAYS).model
    elif way == PLAIN:
        model = load_classifier(str(directory)).model
    else:
        fp32 = load_classifier(str(directory)).model
        bit_map = documented_bit_map(find_layers(fp32))
        model = QuantizedModel.of(fp32, WeightBank(fp32, find_layers(fp32)), bit_map).decoded(fp32)
    figures = {
        "seconds": time.perf_counter() - started,
        "held": memory_bytes("VmRSS") - before,
        "grown": memory_bytes("VmHWM") - before,
        "model_bytes": sum(tensor.nbytes for tensor in model.state_dict().values()),
    }
    print(json.dumps(figures))
