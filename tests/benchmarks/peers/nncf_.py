"""NNCF on OpenVINO's form of the model: mixed 4 and 8 bits, with AWQ, scale estimation and GPTQ; 8 bits alone."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.benchmarks.peers.bed import Bed, Result, Settings, inputs_of, timed

SUBSET = 256
"""Calibration sentences; its own default is 128."""


def settings(bed: Bed) -> Settings:
    """Yield its ways; embeddings take 8 bits, or 4 if all layers take part."""
    import nncf
    import openvino

    core, mode = openvino.Core(), nncf.CompressWeightsMode
    calibration = [
        {name: part.numpy() for name, part in inputs_of(torch.tensor([ids])).items()} for ids in bed.training[:SUBSET]
    ]
    ways: dict[str, dict[str, Any]] = {
        "int8": {"mode": mode.INT8_ASYM},
        "int4 of all, groups of 64": {"mode": mode.INT4_ASYM, "all_layers": True},
        "int4, groups of 64": {"mode": mode.INT4_ASYM},
        "int4 of 80%, groups of 64": {"mode": mode.INT4_ASYM, "ratio": 0.8},
        "int4 AWQ, groups of 64": {"mode": mode.INT4_ASYM, "awq": True},
        "int4 scale estimation, groups of 64": {"mode": mode.INT4_ASYM, "scale_estimation": True},
        "int4 GPTQ, groups of 64": {"mode": mode.INT4_ASYM, "gptq": True},
        "int4 of all, GPTQ, groups of 64": {"mode": mode.INT4_ASYM, "gptq": True, "all_layers": True},
    }
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "fp32.xml"
        # From torch, as most users get here; NNCF's GPTQ refuses the untransposed weights of our ONNX files.
        example = inputs_of(torch.tensor([bed.training[0]] * 2))
        openvino.save_model(openvino.convert_model(bed.model(), example_input=example), source, compress_to_fp16=False)

        def made(number: int, options: dict[str, Any]) -> Result:
            taken, given = list[float](), dict(options)
            if given["mode"] != mode.INT8_ASYM:
                given |= {"group_size": 64}
            if {"awq", "scale_estimation", "gptq", "ratio"} & set(given):
                given |= {"dataset": nncf.Dataset(calibration), "subset_size": SUBSET}
            model = core.read_model(source)
            with timed(taken):
                model = nncf.compress_weights(model, **given)
            path = Path(folder) / f"{number}.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            length = path.stat().st_size + path.with_suffix(".bin").stat().st_size
            compiled = core.compile_model(
                model,
                "CPU",
                {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
            )
            return Result({}, taken[0], length, _logits(compiled), _stored_bits(model))

        for number, (name, options) in enumerate(ways.items()):
            yield f"nncf {name}", partial(made, number, options)


def _logits(compiled: Any) -> Any:
    def logits(tokens: Tensor) -> npt.NDArray[np.float32]:
        given = {name: part.numpy() for name, part in inputs_of(tokens).items()}
        outputs: npt.NDArray[np.float32] = compiled(given)[0]
        return outputs

    return logits


def _stored_bits(model: Any) -> int:
    """Return the bits of a graph's constants: NNCF's scales have 16 bits already."""
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    return sum(int(np.prod(list(node.shape), dtype=np.int64)) * node.get_element_type().bitwidth for node in constants)
