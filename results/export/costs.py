"""What models cost to hold and to run, side by side: resident memory, and the time of one sentence and of batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

_ROUNDS = 3  # of each batch


Kind = Literal["onnx", "torch", "decoded", "packed"]
"""How a model is loaded: by onnxruntime, by transformers, or from a packed checkpoint, decoded or kept packed."""


def resident_bytes(kind: Kind, source: Path | str) -> int | None:
    """Return what a loaded model adds to the memory of a new process that has its libraries loaded.

    Args:
        kind: how it is loaded.
        source: of ``onnx`` the model's file, of ``torch`` a directory or hub name, else a packed checkpoint.

    Returns:
        bytes; None if the system does not tell, as only Linux does.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_LOADERS[kind], str(source)).result()


# The new process imports this module, so it imports here only what its kind of model needs.
def _added_by_onnx(file: str) -> int | None:
    from results.export.onnx.fragments import one_node_model
    from results.export.onnx_session import OnnxSession

    _smallest = OnnxSession(one_node_model())  # the first session loads what all share
    before = _resident_bytes()
    _model = OnnxSession(Path(file))
    return _since(before)


def _added_by_torch(source: str) -> int | None:
    from objectives.loading.models import load_classifier

    before = _resident_bytes()
    _model = load_classifier(source)
    return _since(before)


def _added_by_decoded(directory: str) -> int | None:
    return _added_by_checkpoint(directory, packed=False)


def _added_by_packed(directory: str) -> int | None:
    return _added_by_checkpoint(directory, packed=True)


def _added_by_checkpoint(directory: str, packed: bool) -> int | None:
    from results.export.packed import load_checkpoint

    before = _resident_bytes()
    _model = load_checkpoint(directory, packed=packed)
    return _since(before)


_LOADERS: dict[Kind, Callable[[str], int | None]] = {
    "onnx": _added_by_onnx,
    "torch": _added_by_torch,
    "decoded": _added_by_decoded,
    "packed": _added_by_packed,
}


def _since(before: int | None) -> int | None:
    after = _resident_bytes()
    return None if before is None or after is None else after - before


def _resident_bytes() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), None)


def seconds(
    models: Mapping[str, Callable[[Any], object]], sentences: Sequence[Any], batches: Sequence[Any]
) -> dict[str, tuple[float, float]]:
    """Return each model's median seconds of one sentence, and its seconds of all batches together.

    The models compute each input in turn, so that whatever else the machine does disturbs all alike.

    Args:
        models: what computes an input, by the model's name.
        sentences: inputs of one sentence each.
        batches: inputs of many sentences each; each is computed three times, and its median counts.
    """
    single = _medians(models, sentences)
    of_batches = [_medians(models, [batch] * _ROUNDS) for batch in batches]
    return {name: (single[name], sum(medians[name] for medians in of_batches)) for name in models}


def _medians(models: Mapping[str, Callable[[Any], object]], inputs: Sequence[Any]) -> dict[str, float]:
    """Return each model's median seconds of the inputs; the first is computed once more before, and not counted."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn, given in enumerate([inputs[0], *inputs]):
        for name, compute in models.items():
            started = time.perf_counter()
            compute(given)
            if turn:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(of_model) for name, of_model in taken.items()}
