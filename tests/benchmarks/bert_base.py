"""What a search of bert-base-uncased's shapes takes on this machine: the codes of its bank, and its peak memory.

`python -m tests.benchmarks bert_base [MAPS]` runs `bitfront search` with nothing in its cache, until so many maps (16)
are scored, contenders included: random weights, a classification head that is right more often than not, and CoLA's
sentences. What a step took is read from the run's log; peak memory is the largest of any process, children included.
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

from objectives.evaluate import Evaluator
from objectives.hub import quiet_libraries
from objectives.layers import find_layers
from objectives.scores import mcc, predictions
from objectives.sentences import encode, load_sentences
from tests.shared import COLA, MODEL, SHARED

MAPS = 16


def main(arguments: list[str]) -> None:
    """Print how long codes and the rest took, and the peak memory."""
    if not (MODEL.is_dir() and COLA.is_dir()):
        print(f"no shared model and sentences in {SHARED}; set BITFRONT_SHARED")
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
        told = subprocess.run([bitfront, "search", *words], check=True, capture_output=True, text=True, env=environment)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(told.stderr)
    print(f"all of it: {cpu_s / 60:.1f} minutes of CPU time on {torch.get_num_threads()} threads")
    print(f"peak memory of the search: {used.ru_maxrss / 2**20:.2f} GiB")


def write_model(directory: Path) -> None:
    """Write a random bert-base as a ``transformers`` directory, its head turned so that its MCC is positive."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig()).eval()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    sentences = load_sentences(str(COLA), "validation")
    log_odds = Evaluator(model, find_layers(model), encode(tokenizer, sentences.texts, 512)).fp32_log_odds()
    head, bias = model.classifier.weight.data, model.classifier.bias.data
    bias[1] -= float(np.median(log_odds))
    if mcc(predictions(log_odds - np.median(log_odds)), sentences.labels) < 0:
        head.copy_(head.flip(0))
        bias.copy_(bias.flip(0))
    with quiet_libraries():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
