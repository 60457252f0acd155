"""What a search of bert-base-uncased's shapes takes on this machine: the codes of its bank, and its peak memory.

`python -m tests.benchmarks bert_base [MAPS]` runs `bitfront search` with nothing in its cache, until so many maps (16)
are scored, baselines included: random weights, a classification head that is right more often than not, and CoLA's
sentences. Each line of its log has the peak memory since the line before it; Linux only.

`bert_base mnli [MAPS] [PAIRS]` does the same with a head of three classes and random pairs as long as MNLI's (3 maps,
2,000 pairs), the quantiser `affine` and sensitivities by gradients. The head's own predictions are the labels.
"""

from __future__ import annotations

import csv
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
from objectives.layers import uniform
from objectives.loading.hub import quiet_libraries
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import load_classifier
from objectives.loading.sentences import load_sentences
from objectives.loading.tokenization import tokenize
from objectives.metrics import metric_value
from objectives.quantization.bank import FP32_WIDTH
from tests.shared import ABSENT, COLA, MODEL

MAPS = 16
PAIRS = 2000
PAIR_WORDS = (20, 10)  # on average in premises and hypotheses, as in MNLI


def main(arguments: list[str]) -> None:
    """Print how long codes and the rest took, and the peak memory."""
    if ABSENT:
        print(ABSENT)
        return
    numbers = [int(argument) for argument in arguments if argument.isdigit()]
    with tempfile.TemporaryDirectory() as folder:
        model, run, data = (Path(folder) / name for name in ("bert-base", "run", "pairs.csv"))
        if "mnli" in arguments:
            maps, pairs = [*numbers, *(3, PAIRS)[len(numbers) :]]
            write_pairs(model, data, pairs)
            flags = {"--data": data, "--trials": maps, "--quantizer": "affine", "--sensitivity": "gradient"}
        else:
            write_model(model)
            flags = {"--data": COLA, "--trials": [*numbers, MAPS][0]}
        flags |= {"--run": run, "--model": model, "--unseen": 0}
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


def write_pairs(directory: Path, data: Path, pairs: int) -> None:
    """Write a random bert-base of three classes, and random pairs that it labels, each class a third of them."""
    torch.manual_seed(0)
    config = BertConfig()
    config.num_labels = 3
    rng = np.random.default_rng(0)
    words = sorted({word for text in load_sentences(str(COLA), "validation").texts for word in str(text).split()})
    lengths = np.clip(rng.gamma(4.0, np.array(PAIR_WORDS) / 4.0, size=(pairs, 2)).round(), 2, 80).astype(int)
    texts = [(" ".join(rng.choice(words, one)), " ".join(rng.choice(words, two))) for one, two in lengths]
    with quiet_libraries():
        BertForSequenceClassification(config).save_pretrained(directory)
        AutoTokenizer.from_pretrained(MODEL).save_pretrained(directory)
    classifier = load_classifier(str(directory))
    model, layers = classifier.model, find_layers(classifier.model)
    tokens = classifier.encode(texts)
    print(f"{pairs} pairs, {sum(map(len, tokens.ids))} tokens", flush=True)
    logits = Evaluator(model, layers, tokens.ids, token_types=tokens.types).logits(uniform(layers, FP32_WIDTH))
    middle = np.median(logits, axis=0)
    model.get_parameter("classifier.bias").data -= torch.from_numpy(middle)
    labels = (logits - middle).argmax(axis=1)
    with data.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(("sentence1", "sentence2", "label"))
        csv.writer(file).writerows((*both, label) for both, label in zip(texts, labels.tolist(), strict=True))
    with quiet_libraries():
        model.save_pretrained(directory)
