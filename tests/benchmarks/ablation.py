"""What each part of `distill --train weights` is worth: the same training without it, or with another in its place.

`python -m tests.benchmarks ablation RUN [EPOCHS [VARIANT...]]` distils uniform 2 bits of a run's model in each way, or
in those whose names are given. Damage is in nats a sentence, on validation sentences and on unseen ones; the paired
difference from the training as it is has a 95% interval. What is not in the product stands here alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from objectives.heads import Head
from objectives.layers import uniform
from objectives.quantization.quantized_model import QuantizedModel
from objectives.training import distillation, student
from objectives.training.distillation import loss_of
from search.run.checkpoints import problem_of_run
from search.run.run_directory import RunDirectory
from tests.benchmarks.distilled import Distillery

EPOCHS = 2
_AS_IT_IS = "as it is"


def main(arguments: list[str]) -> None:
    """Print a line for each way of training."""
    if not arguments:
        print(__doc__)
        return
    directory, *others = arguments
    epochs = int(others[0]) if others else EPOCHS
    problem = problem_of_run(RunDirectory(Path(directory)).read_settings())
    variants = _variants()
    print(f"uniform 2 bits, {epochs} epochs, {torch.get_num_threads()} threads")
    print("| way | validation | unseen | against as it is | minutes of CPU |\n| --- | --- | --- | --- | --- |")
    distillery, first = Distillery(problem, epochs), None
    for name in [_AS_IT_IS, *(others[1:] or [name for name in variants if name != _AS_IT_IS])]:
        began = time.process_time()
        with ExitStack() as stack:
            for (place, own), value in variants[name].items():
                stack.enter_context(patch.object(place, own, value))
            model = distillery.distilled(uniform(problem.layers, 2))
        minutes = (time.process_time() - began) / 60
        damage = distillery.damage(model)
        first = first or damage
        print(f"| {name} | {damage} | {damage.against(first)} | {minutes:.1f} |", flush=True)


def _variants() -> dict[str, Mapping[tuple[Any, str], object]]:
    """Return what stands in place of what, by module and name, in each way of training."""
    return {
        _AS_IT_IS: {},
        "hidden states not matched": {(distillation, "_HIDDEN_WEIGHT"): 0.0},
        "attention matched too": {(distillation, "loss_of"): partial(_with_attention, weight=1.0)},
        "no words exchanged": {(distillation, "_AUGMENTED_SHARE"): 0.0},
        "codes fixed": {(distillation, "Student"): _StudentOfScales},
        "gains and shifts fixed": {(student, "_LEVEL_RATE"): 0.0},
        "biases, LayerNorms and head fixed": {(student, "_OTHER_RATE"): 0.0},
        "latent weights twice as fast": {(distillation, "LATENT_RATE"): 2 * student.LATENT_RATE},
        "latent weights half as fast": {(distillation, "LATENT_RATE"): 0.5 * student.LATENT_RATE},
        "latent weights start at the search's codes": {(student, "_START_INSIDE"): 0.0},
        "latent weights start at the edge": {(student, "_START_INSIDE"): 0.499},
    }


class _StudentOfScales(student.Student):
    def __init__(
        self,
        quantized: QuantizedModel,
        fp32: nn.Module,
        trained: student.Trained,
        dtype: torch.dtype,
        latent_rate: float,
    ) -> None:
        super().__init__(quantized, fp32, "scales", dtype, latent_rate)


def _with_attention(student: nn.Module, teacher: nn.Module, head: Head, tokens: Tensor, weight: float) -> Tensor:
    """Return the loss, and that of the attention's probabilities over their variance."""
    loss = loss_of(student, teacher, head, tokens)
    with torch.no_grad():
        wanted = teacher(input_ids=tokens, output_attentions=True).attentions
    own = student(input_ids=tokens, output_attentions=True).attentions
    errors = [F.mse_loss(a.float(), b.float()) / b.float().var() for a, b in zip(own, wanted, strict=True)]
    return loss + weight * torch.stack(errors).mean()
