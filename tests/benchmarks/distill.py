"""What a training step of `distill --train weights` costs, against `transformers`' own FP32 step in the same process.

bert-base's shapes with random weights, every layer at 2 bits; batches of 32 equally long CoLA sentences, the same AdamW
and threads. The teacher's forward pass is listed apart: every distillation needs it. Memory is the peak of a process
above what it held before the model, in bytes a weight: with that batch, and what twice the batch adds, which is as much
as the activations of one.

`python -m tests.benchmarks distill [ours N | transformers N]`: with a word, be one of these processes, of N sentences.

`python -m tests.benchmarks distill RUN`: the distilled maps of a run, as `bitfront distill` made them, each with the
paired difference of `weights` from `scales` on the validation sentences where there are both.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from objectives.batching import by_length
from objectives.evaluation.evaluator import DTYPES
from objectives.evaluation.precision import faster_precision
from objectives.heads import TWO_CLASSES
from objectives.layers import uniform
from objectives.loading.layer_discovery import find_layers
from objectives.memory import give_back_large_blocks
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import Precision
from objectives.training.distillation import loss_of, network_in
from objectives.training.student import Student
from results.report.distilled import read_distilled
from results.statistics.bootstrap import Resamples
from search.run.checkpoints import evaluate_checkpoint, problem_of_run
from search.run.run_directory import RunDirectory
from tests.benchmarks.evaluate import cola_tokens
from tests.benchmarks.timing import medians_s
from tests.results.random_checkpoint import memory_bytes

BATCH, REPEATS = 32, 5


def main(arguments: list[str]) -> None:
    """Print the table; with a way's name, print its memory as JSON; with a run, print its distilled maps."""
    if arguments and arguments[0] not in ("ours", "transformers"):
        _compare(Path(arguments[0]))
        return
    if arguments:
        print(_memory(arguments[0], int(arguments[1])))
        return
    model, batch = _model(), _batch()
    print(f"{BATCH} sentences of {batch.shape[1]} tokens, {torch.get_num_threads()} threads, medians of {REPEATS}")
    precisions: list[Precision] = ["fp32"]
    if faster_precision(model) == "bf16":
        precisions.append("bf16")
    steps: dict[str, Callable[[], object]] = {"transformers, FP32": _plain_step(copy.deepcopy(model), batch)}
    for precision in precisions:
        steps[f"distillation, {precision}"], steps[f"its teacher, {precision}"] = _our_step(model, batch, precision)
    seconds = medians_s(steps, REPEATS)
    plain = seconds["transformers, FP32"]
    for name, taken in seconds.items():
        print(f"{name:22} {taken:6.3f} s, {taken / plain:.2f} of transformers' step")
    for precision in precisions:
        own = seconds[f"distillation, {precision}"] - seconds[f"its teacher, {precision}"]
        print(f"distillation without its teacher, {precision}: {own / plain:.2f} of transformers' step")
    for way in ("transformers", "ours"):
        command = [sys.executable, "-m", "tests.benchmarks", "distill", way]
        peak, double = (
            float(
                subprocess.run([*command, str(n)], capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            )
            for n in (BATCH, 2 * BATCH)
        )
        print(f"peak memory, {way}: {peak:.1f} bytes a weight, of which activations {double - peak:.1f}")


def _model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig())
    model.eval()
    return model


def _batch(count: int = BATCH) -> Tensor:
    """Return the tokens of CoLA sentences of the commonest length."""
    tokens = cola_tokens()
    _, indices = max(by_length(tokens), key=lambda group: len(group[1]))
    return torch.tensor([tokens[index] for index in indices[:count]])


def _plain_step(model: BertForSequenceClassification, batch: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    labels = torch.zeros(len(batch), dtype=torch.long)

    def step() -> None:
        model(input_ids=batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _our_step(
    model: BertForSequenceClassification, batch: Tensor, precision: Precision
) -> tuple[Callable[[], None], Callable[[], object]]:
    """Return a step, and its teacher's forward pass."""
    layers = find_layers(model)
    quantized = QuantizedModel.of(model, WeightBank(model, layers), uniform(layers, 2))
    student = Student(quantized, model, "weights", DTYPES[precision])
    student.network = network_in(student.network, precision)
    teacher = network_in(model, precision)

    def step() -> None:
        student.step(loss_of(student.network, teacher, TWO_CLASSES, batch), 0.1)

    def teach() -> None:
        with torch.no_grad():
            teacher(input_ids=batch, output_hidden_states=True)

    return step, teach


def _memory(way: str, count: int) -> float:
    before = memory_bytes("VmRSS")
    model, batch = _model(), _batch(count)
    if way == "transformers":
        step = _plain_step(model, batch)
    else:
        give_back_large_blocks()
        step = _our_step(model, batch, "fp32")[0]
    for _ in range(3):
        step()
    weights = sum(parameter.numel() for parameter in model.parameters())
    return (memory_bytes("VmHWM") - before) / weights


def _compare(run: Path) -> None:
    settings, maps = RunDirectory(run).read_settings(), read_distilled(run)
    problem = problem_of_run(settings)
    resamples = Resamples.draw(problem.labels, problem.in_domain)
    heads = (
        "map",
        "size",
        "trained",
        "epochs",
        "searched",
        "distilled",
        "unseen searched",
        "unseen",
        "below scales by",
    )
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    damages = {}
    for one in maps:
        log_odds = evaluate_checkpoint(problem, run / one.checkpoint)[0].log_odds
        damages[one.checkpoint] = resamples.mean(problem.head.divergences(log_odds, problem.fp32_log_odds)[None])
    for one in maps:
        scales = [other.checkpoint for other in maps if (other.number, other.trained) == (one.number, "scales")]
        gain = ""
        if one.trained == "weights" and scales:
            difference = damages[scales[0]] - damages[one.checkpoint]
            [interval] = difference.intervals()
            gain = f"{difference.point[0]:.4f} ({interval.low:.4f} to {interval.high:.4f})"
        cells = [one.label, f"{one.nominal_compression:.2f}x", one.trained, str(one.epochs), f"{one.damage_before:.4f}"]
        cells += [f"{one.damage_after:.4f} ({one.damage_after_low:.4f} to {one.damage_after_high:.4f})"]
        cells += [f"{one.unseen_before:.4f}", f"{one.unseen_after:.4f}", gain]
        print(f"| {' | '.join(cells)} |")
