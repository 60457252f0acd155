"""torchao: weight-only, round to nearest or with its own choice of scales; embeddings too."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from tests.benchmarks.peers.bed import Bed, Result, Settings, linear_layers, saved_bytes, timed


def settings(bed: Bed) -> Settings:
    """Yield 8, 4, 3 and 2 bits, rows and groups, embeddings left and coded."""
    from torchao.quantization import IntxWeightOnlyConfig, MappingType, PerAxis, PerGroup, quantize_
    from torchao.quantization.quant_api import IntxChooseQParamsAlgorithm as Algorithm

    def made(width: int, group: int, embedding_width: int, algorithm: Any) -> Result:
        model, taken = bed.model(), list[float]()
        linear = set(linear_layers(model))

        def config(width: int, group: int, algorithm: Any) -> Any:
            symmetric = algorithm == Algorithm.HQQ_SCALE_ONLY
            return IntxWeightOnlyConfig(
                weight_dtype=getattr(torch, f"int{width}"),
                granularity=PerGroup(group) if group else PerAxis(0),
                mapping_type=MappingType.SYMMETRIC if symmetric else MappingType.ASYMMETRIC,
                intx_choose_qparams_algorithm=algorithm,
            )

        with timed(taken):
            quantize_(model, config(width, group, algorithm), filter_fn=lambda _, name: name in linear)
            if embedding_width:
                coded = config(embedding_width, 0, Algorithm.AFFINE)
                quantize_(model, coded, filter_fn=lambda module, _: isinstance(module, nn.Embedding))
        weights = {}
        for name, module in model.named_modules():
            weight: Any = getattr(module, "weight", None)
            if type(weight).__name__ == "IntxUnpackedToInt8Tensor":
                bits = width if name in linear else embedding_width
                zero_points = bits if name not in linear or algorithm == Algorithm.AFFINE else 0
                stored = weight.numel() * bits + weight.scale.numel() * (16 + zero_points)
                weights[f"{name}.weight"] = weight.dequantize(), stored
        return Result(weights, taken[0], saved_bytes(model))

    for width, group, embedding_width, algorithm in (
        (8, 0, 8, Algorithm.AFFINE),
        (4, 64, 0, Algorithm.AFFINE),
        (4, 32, 4, Algorithm.AFFINE),
        (4, 64, 4, Algorithm.AFFINE),
        (4, 64, 4, Algorithm.HQQ_SCALE_ONLY),
        (3, 64, 4, Algorithm.AFFINE),
        (2, 64, 4, Algorithm.AFFINE),
    ):
        embeddings = f", its embeddings {embedding_width} bits" if embedding_width else ""
        rows = f"groups of {group}" if group else "rows"
        setting = f"torchao {algorithm.value} {width} bits, {rows}{embeddings}"
        yield setting, partial(made, width, group, embedding_width, algorithm)
