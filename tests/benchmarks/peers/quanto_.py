"""optimum-quanto: qint8, qint4 and qint2 weights of the linear layers, with both of its optimisers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tests.benchmarks.peers.bed import Bed, Result, Settings, linear_layers, saved_bytes, timed


def settings(bed: Bed) -> Settings:
    """Yield its three widths; the narrow ones with either optimiser."""
    from optimum.quanto import HqqOptimizer, MaxOptimizer, freeze, qint2, qint4, qint8, quantize

    def made(qtype: Any, optimizer: Any) -> Result:
        model, taken = bed.model(), list[float]()
        names = [*linear_layers(model)]
        with timed(taken), torch.no_grad():
            quantize(model, weights=qtype, optimizer=optimizer, include=names)
            freeze(model)
        weights = {}
        for name in names:
            weight: Any = model.get_submodule(name).weight
            scales = weight._scale.numel() * 16  # a shift is a number of floating point, too
            shifts = 0 if qtype == qint8 else weight._shift.numel() * 16
            decoded = weight.dequantize()
            weights[f"{name}.weight"] = decoded, decoded.numel() * qtype.bits + scales + shifts
        return Result(weights, taken[0], saved_bytes(model))

    for qtype, optimizer in (
        (qint8, None),
        (qint4, MaxOptimizer()),
        (qint4, HqqOptimizer()),
        (qint2, HqqOptimizer()),
    ):
        kind = "" if optimizer is None else f" {type(optimizer).__name__}"
        yield f"quanto {qtype.name}{kind}", partial(made, qtype, optimizer)
