"""Pieces of an ONNX graph: nodes, and tensors whose sizes are known before their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from objectives.packing.onnx_size import varint_bytes

Values = npt.NDArray[Any]

_OPERATORS = [("", 20), ("com.microsoft", 1)]
_IR_VERSION = 9  # of that operator set
_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}


@dataclass(frozen=True)
class Stored:
    """A tensor of the file.

    Attributes:
        name: its name in the graph.
        dtype: float32, uint8 or int64.
        shape: of the values.
        values: called once, when the file is written.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: Callable[[], Values]

    def proto(self) -> TensorProto:
        """Return the tensor with its values."""
        values = self.values()
        assert values.shape == self.shape and values.dtype == self.dtype, (self, values.shape, values.dtype)
        tensor = self._empty()
        tensor.raw_data = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        return tensor

    @property
    def size_bytes(self) -> int:
        """What the tensor takes in the graph."""
        length = prod(self.shape) * np.dtype(self.dtype).itemsize
        return _in_field(self._empty().ByteSize() + _in_field(length))

    def _empty(self) -> TensorProto:
        return TensorProto(name=self.name, data_type=_TYPES[self.dtype], dims=self.shape)


def constant(name: str, values: Values) -> Stored:
    """Return a tensor of these values."""
    return Stored(name, str(values.dtype), values.shape, lambda: values)


@dataclass(frozen=True)
class Fragment:
    """Some nodes in the order of their computation, and their tensors."""

    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[Stored] = field(default_factory=list)

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node and return its output, which is called like the node."""
        domain = "com.microsoft" if operator == "MatMulNBits" else None
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def tensor(self, name: str, dtype: str, shape: tuple[int, ...], values: Callable[[], Values]) -> str:
        """Append a tensor and return its name."""
        self.tensors.append(Stored(name, dtype, shape, values))
        return name

    def constant(self, name: str, values: Values) -> str:
        """Append a tensor of these values and return its name."""
        self.tensors.append(constant(name, values))
        return name

    def scalar(self, name: str, value: float) -> str:
        """Append a number in FP32 and return its name."""
        return self.constant(name, np.array(value, np.float32))

    @property
    def size_bytes(self) -> int:
        """What nodes and tensors take in the graph."""
        return sum(_in_field(node.ByteSize()) for node in self.nodes) + sum(
            tensor.size_bytes for tensor in self.tensors
        )


def _in_field(length: int) -> int:
    """Return what so many bytes take as a field of a protocol buffer, with their tag and length."""
    return 1 + varint_bytes(length) + length


def empty_model() -> ModelProto:
    """Return a model without a graph."""
    model = ModelProto(ir_version=_IR_VERSION, producer_name="bitfront")
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in _OPERATORS)
    return model


def one_node_model() -> bytes:
    """Return the smallest model, for what a runtime takes by itself."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    model = empty_model()
    model.graph.CopyFrom(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one node", [x], [y]))
    smallest: bytes = model.SerializeToString()
    return smallest
