"""onnxruntime: 4-bit blocks (RTN and HQQ), and dynamic int8."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from results.export.onnx.writer import write_fp32_onnx
from results.export.onnx_session import ONNX_FILE, OnnxSession
from tests.benchmarks.peers.bed import HAND_WIDTHS, Bed, Result, Settings, timed

_SUBBYTE = {"INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2}


def settings(bed: Bed) -> Settings:
    """Yield 4-bit linear layers with embeddings in FP32, by hand and in blocks of its own, and dynamic int8."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fp32"
        write_fp32_onnx(bed.problem.classifier, {}, path)
        source = path / ONNX_FILE

        def blocks(config: Any, hand: int = 0) -> Result:
            model, taken, by_hand = (
                onnx.load(str(source)),
                list[float](),
                bed.by_hand(bed.embeddings(), hand) if hand else {},
            )
            for initializer in model.graph.initializer:
                if initializer.name in by_hand:
                    decoded = by_hand[initializer.name][0].numpy()
                    initializer.CopyFrom(onnx.numpy_helper.from_array(decoded, initializer.name))
            excluded = [node.name for node in model.graph.node if "classifier.weight" in node.input]
            with timed(taken):
                quantizer = nbits.MatMulNBitsQuantizer(model, nodes_to_exclude=excluded, algo_config=config)
                quantizer.process()
            content = quantizer.model.model.SerializeToString()
            bits = _stored_bits(quantizer.model.model, {name: of for name, (_, of) in by_hand.items()})
            return _result(content, bits, taken[0], not hand)

        def dynamic(per_channel: bool) -> Result:
            file, taken = Path(folder) / f"int8-{per_channel}.onnx", list[float]()
            with timed(taken):
                quantize_dynamic(source, file, per_channel=per_channel, weight_type=QuantType.QInt8)
            return _result(file.read_bytes(), _stored_bits(onnx.load(str(file)), {}), taken[0], True)

        for name, config in (
            ("RTN 4 bits, blocks of 64", nbits.DefaultWeightOnlyQuantConfig(block_size=64)),
            ("HQQ 4 bits, blocks of 64", nbits.HQQWeightOnlyQuantConfig(block_size=64)),
        ):
            for hand in (0, *HAND_WIDTHS):
                with_hand = f", embeddings by hand at {hand} bits" if hand else ""
                yield f"onnxruntime {name}{with_hand}", partial(blocks, config, hand)
        both = nbits.DefaultWeightOnlyQuantConfig(
            block_size=64, op_types_to_quantize=("MatMul", "Gather"), quant_axes=(("MatMul", 0), ("Gather", 1))
        )
        yield "onnxruntime RTN 4 bits, blocks of 64, its embeddings 4 bits", partial(blocks, both)
        for per_channel in (False, True):
            rows = "columns" if per_channel else "tensors"
            yield f"onnxruntime dynamic int8, {rows}", partial(dynamic, per_channel)


def _result(content: bytes, bits: int, seconds: float, whole: bool) -> Result:
    session = OnnxSession(content)

    def logits(tokens: Tensor) -> npt.NDArray[np.float32]:
        ids = tokens.numpy()
        return session.logits(
            {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        )

    return Result({}, seconds, len(content) if whole else 0, logits, bits)


def _stored_bits(model: Any, by_hand: dict[str, int]) -> int:
    """Return the bits of a graph's initializers, by the rule; those coded by hand take what the hand says."""
    import onnx

    total = 0
    for initializer in model.graph.initializer:
        if initializer.name in by_hand:
            total += by_hand[initializer.name]
            continue
        kind = onnx.TensorProto.DataType.Name(initializer.data_type)
        elements = int(np.prod(initializer.dims, dtype=np.int64))
        # HQQ's zero points are numbers of floating point, too.
        last = initializer.name.rsplit(".", 1)[-1].lower()
        scale = kind == "FLOAT" and any(part in last for part in ("_scale", "_zero_point", "_zp"))
        width = _SUBBYTE.get(kind) or 8 * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(initializer.data_type)).itemsize
        total += elements * (16 if scale else int(width))
    return total
