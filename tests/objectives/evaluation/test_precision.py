"""Which precision a search takes if it is asked for the faster one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from objectives.evaluation import precision
from objectives.evaluation.precision import LEAST_GAIN, faster_precision
from objectives.scores import Precision

MULTIPLIES, GAIN = "objectives.evaluation.precision.multiplies_bf16", "objectives.evaluation.precision._gain"


def model(columns: int, rows: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(1 << 12, columns), nn.Linear(columns, columns), nn.Linear(columns, rows))


@pytest.mark.parametrize(
    ("gain", "chosen"), [(0.9, "fp32"), (LEAST_GAIN - 0.01, "fp32"), (LEAST_GAIN, "bf16"), (8.0, "bf16")]
)
def test_bf16_is_taken_if_a_product_gains_enough(
    gain: float, chosen: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[int, ...]] = []

    def gain_of(linear: nn.Linear, device: torch.device) -> float:
        timed.append(tuple(linear.weight.shape))
        return gain

    monkeypatch.setattr(MULTIPLIES, lambda device: True)
    monkeypatch.setattr(GAIN, gain_of)
    assert faster_precision(model(512, 1024)) == chosen
    assert timed == [(1024, 512)]  # the largest product, not the table of words


@pytest.mark.parametrize(
    ("network", "multiplies"),
    [(model(512, 1024), False), (model(64, 128), True), (nn.Embedding(1 << 10, 1 << 10), True)],
    ids=["processor without bf16", "small layers", "no layer"],
)
def test_fp32_is_taken_without_a_timing_where_bf16_cannot_gain(
    network: nn.Module, multiplies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gain_of(*_: object) -> float:
        raise AssertionError("timed")

    monkeypatch.setattr(MULTIPLIES, lambda device: multiplies)
    monkeypatch.setattr(GAIN, gain_of)
    assert faster_precision(network) == "fp32"


def test_the_gain_is_the_best_time_in_fp32_over_that_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: iter([0.9, 0.3, 0.5]), torch.bfloat16: iter([0.2, 0.4, 0.1])}
    shapes = set()

    def seconds_of(product: object, x: torch.Tensor) -> float:
        shapes.add(tuple(x.shape))
        return next(seconds[x.dtype])

    monkeypatch.setattr("objectives.evaluation.precision._seconds", seconds_of)
    assert precision._gain(nn.Linear(32, 16), torch.device("cpu")) == pytest.approx(0.3 / 0.1)
    assert {columns for _, columns in shapes} == {32}


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()"))]
)
def test_a_real_product_is_timed(device: str) -> None:
    linear = nn.Linear(128, 64).to(device)
    assert 0 < precision._gain(linear, torch.device(device)) < float("inf")
    assert faster_precision(linear) == "fp32"
