"""What a search of bert-base-uncased's shapes takes on this machine: the codes of its bank, and its peak memory.

`python -m tests.benchmarks bert_base [MAPS]` runs `bitfront search` with nothing in its cache, until so many maps (16)
are scored, baselines included: random weights, a classification head that is right more often than not, and CoLA's
sentences. Each line of its log has the peak memory since the line before it; Linux only.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from objectives.evaluation.evaluator import Evaluator
from objectives.heads import TWO_CLASSES
from objectives.loading.hub import quiet_libraries
from objectives.loading.layer_discovery import find_layers
from objectives.loading.sentences import load_sentences
from objectives.loading.tokenization import tokenize
from objectives.metrics import metric_value
from tests.shared import ABSENT, COLA, MODEL

MAPS = 16


def main(arguments: list[str]) -> None:
    """Print how long codes and the rest took, and the peak memory."""
    if ABSENT:
        print(ABSENT)
        return
    maps = arguments[0] if arguments else str(MAPS)
    with tempfile.TemporaryDirectory() as folder:
        model, run = Path(folder) / "bert-base", Path(folder) / "run"
        write_model(model)
        flags = {"--run": run, "--model": model, "--data": COLA, "--trials": maps, "--unseen": 0}
        words = [str(word) for pair in flags.items() for word in pair]
        environment = os.environ | {"BITFRONT_CACHE": str(Path(folder) / "cache")}
        bitfront = Path(sys.executable).with_name("bitfront")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        largest = 0.0
        command = [str(bitfront), "search", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as searching:
            assert searching.stderr is not None
            for line in searching.stderr:
                peak = peak_gib(searching.pid)
                largest = max(largest, peak)
                print(f"{peak:5.2f} GiB  {line}", end="", flush=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(f"all of it: {cpu_s / 60:.1f} minutes of CPU time on {torch.get_num_threads()} threads")
    print(f"peak memory of the search: {largest:.2f} GiB")


def peak_gib(process: int) -> float:
    """Return the most memory that a process had since this was asked last, files that it maps included."""
    proc = Path("/proc") / str(process)
    status = (proc / "status").read_text().splitlines()
    peaks = [int(line.split()[1]) / 2**20 for line in status if line.startswith("VmHWM")]
    if not peaks:
        return 0.0  # it has ended
    (proc / "clear_refs").write_text("5")  # forgets the peak so far
    return peaks[0]


def write_model(directory: Path) -> None:
    """Write a random bert-base as a ``transformers`` directory, its head turned so that its MCC is positive."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig()).eval()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    sentences = load_sentences(str(COLA), "validation")
    log_odds = Evaluator(model, find_layers(model), tokenize(tokenizer, sentences.texts, 512)).fp32_log_odds()
    head, bias = model.classifier.weight.data, model.classifier.bias.data
    bias[1] -= float(np.median(log_odds))
    if metric_value("mcc", TWO_CLASSES, TWO_CLASSES.predictions(log_odds - np.median(log_odds)), sentences.labels) < 0:
        head.copy_(head.flip(0))
        bias.copy_(bias.flip(0))
    with quiet_libraries():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
