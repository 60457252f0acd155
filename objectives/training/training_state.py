"""The file that an interrupted distillation continues from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from objectives.quantization.dispatch import parameters_of
from objectives.quantization.quantized_model import QuantizedModel
from objectives.tensor_files import save_tensors

_SCHEMA = "bitfront-training-1"


@dataclass(frozen=True)
class TrainingState:
    """How far a distillation is: its steps, and the best model so far with its damage on the held-out sentences.

    ``last_damage`` is that of the last epoch in this process.
    """

    step: int = 0
    best: QuantizedModel | None = None
    best_damage: float = float("inf")
    last_damage: float = float("nan")


def save_state(path: Path, identity: str, state: TrainingState, student: Mapping[str, Tensor]) -> None:
    """Write a distillation's state and its student's, replacing the file atomically.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    tensors = {f"student {name}": tensor.contiguous() for name, tensor in student.items()}
    if state.best is not None:
        for index, (codes, parameters) in enumerate(state.best.entries):
            tensors[f"codes {index}"] = codes
            tensors |= {f"{name} {index}": tensor.contiguous() for name, tensor in parameters.tensors().items()}
        tensors |= {f"kept {name}": tensor for name, tensor in state.best.kept.items()}
    metadata = {"schema": _SCHEMA, "identity": identity, "step": str(state.step), "best": repr(state.best_damage)}
    save_tensors(path, tensors, metadata)


def load_state(path: Path, identity: str, quantized: QuantizedModel) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """Return what ``save_state`` wrote; None if there is no such file, it is damaged, or is of another distillation.

    Args:
        path: the file.
        identity: what the distillation trains, on what and how.
        quantized: the model that it began with.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if (metadata.get("schema"), metadata.get("identity")) != (_SCHEMA, identity):
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # it is no mapping
    except (OSError, SafetensorError):
        return None
    best = None
    if "codes 0" in tensors:
        entries = []
        for index, (_, start) in enumerate(quantized.entries):
            codes = tensors[f"codes {index}"]
            parts = {name: tensors[f"{name} {index}"] for name in start.tensors()}
            entries.append((codes, parameters_of(quantized.scheme, codes, start.width, parts)))
        kept = {name: tensors[f"kept {name}"] for name in quantized.kept}
        best = QuantizedModel(quantized.layers, quantized.bit_map, tuple(entries), kept, quantized.scheme)
    student = {name.removeprefix("student "): own for name, own in tensors.items() if name.startswith("student ")}
    return TrainingState(int(metadata["step"]), best, float(metadata["best"])), student
