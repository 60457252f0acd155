"""Exports to ONNX: one file that onnxruntime runs, whose weights stay packed in memory too."""

from importlib.util import find_spec
from typing import Literal

from objectives.errors import InputError

Activations = Literal["fp32", "int8"]
"""What linear layers multiply: FP32, which is exact, or activations rounded to 8 bits, which is faster."""


def check_onnx() -> None:
    """Check that onnx, which writes such files, and onnxruntime, which runs them, are installed.

    Raises:
        InputError: one is not.
    """
    if missing := [package for package in ("onnx", "onnxruntime") if find_spec(package) is None]:
        raise InputError(f"ONNX needs {' and '.join(missing)}: install with pip install -e '.[onnx]'")
