"""Checkpoints of a run's maps: made from the very model that the run was made with, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objectives.checkpoint import write_checkpoint
from objectives.errors import InputError
from objectives.layers import Bits
from objectives.problem import Problem, load_problem
from objectives.quantized import QuantizedModel
from objectives.torchao_export import write_torchao
from search.profile import Profile

log = logging.getLogger("bitfront")


def problem_of_run(settings: Mapping[str, Any]) -> Problem:
    """Return the problem of a run, by what its run.toml says.

    Raises:
        InputError: it cannot be loaded, or the model, the sentences or the quantiser are not the run's any more.
    """
    profile, recorded = Profile(**settings["profile"]), settings["fingerprint"]
    problem = load_problem(
        profile.model,
        profile.data,
        device=profile.device,
        quantizer=profile.quantizer,
        say=log.info,
        confirm=profile.confirm,
        group_size=profile.group_size,
    )
    if differing := [key for key, value in problem.fingerprint.items() if recorded.get(key) != value]:
        raise InputError(
            f"{profile.model}: is not the model of this run any more, its {' and '.join(differing)} differ; "
            "start another run"
        )
    return problem


def export_checkpoint(
    settings: Mapping[str, Any], bits: Bits, provenance: Mapping[str, Any], directory: Path, format_: str
) -> str:
    """Write one map of a run as a checkpoint, and return what there is to say about it.

    Args:
        settings: what the run's run.toml says.
        bits: the map.
        provenance: plain JSON values: where the map came from.
        directory: to be made.
        format_: ``packed`` or ``torchao``.

    Raises:
        InputError: the directory is there already, the run's model cannot be had, or torchao is not installed.
    """
    if directory.exists():
        raise InputError(f"{directory}: is there already; give --out a new directory")
    problem = problem_of_run(settings)
    quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, bits)
    if format_ == "torchao":
        length = write_torchao(problem.classifier, quantized, provenance, directory)
        packed = problem.footprint.packed_bytes(bits)
        return f"weights of {length:,} bytes, one for each code; packed they take {packed:,}"
    length = write_checkpoint(problem.classifier, quantized, provenance, directory)
    return f"weights of {length:,} bytes; score it with bitfront evaluate --checkpoint {directory}"
