"""Checkpoints of a run's maps; the model must be the one that was searched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objectives.batching import device_of
from objectives.errors import InputError, quoted
from objectives.layers import BitMap
from objectives.loading.models import Classifier
from objectives.problem import Evaluation, Problem, load_problem
from objectives.quantization.quantized_model import QuantizedModel
from results.export.packed import Checkpoint, load_checkpoint, read_manifest, read_quantized, write_checkpoint
from results.export.torchao import write_torchao
from results.outcome import Trial
from results.report.polished import read_polished
from search.run.profile import Profile
from search.study.study import warn_of_other_codes

log = logging.getLogger("bitfront")

FINGERPRINT = "fingerprint"
"""The key of the problem's fingerprint in a checkpoint's manifest."""


def problem_of_run(settings: Mapping[str, Any]) -> Problem:
    """Load the problem that a run's run.toml describes.

    Raises:
        InputError: it cannot be loaded, or its model, sentences or quantiser have changed since the search.
    """
    profile, recorded = Profile(**settings["profile"]), settings["fingerprint"]
    problem = load_problem(
        profile.model,
        profile.data,
        device="cpu" if profile.device == "cpu" else "auto",  # the run may have used a GPU that this machine lacks
        quantizer=profile.quantizer,
        report_progress=log.info,
        confirm=profile.confirm,
        group_size=profile.group_size,
    )
    if differing := [key for key, value in problem.fingerprint.items() if recorded.get(key) != value]:
        raise InputError(
            f"{profile.model}: changed since this run ({' and '.join(differing)}); restore it, or start another run"
        )
    warn_of_other_codes(recorded.get("codes"), problem, profile.model)
    return problem


def export_checkpoint(
    settings: Mapping[str, Any], bit_map: BitMap, provenance: Mapping[str, Any], directory: Path, format_: str
) -> str:
    """Write one map of a run as a checkpoint, and return a message for the user.

    Args:
        settings: of the run's run.toml.
        bit_map: the map.
        provenance: where the map came from, as plain JSON values.
        directory: must not exist.
        format_: ``packed`` or ``torchao``.

    Raises:
        InputError: the directory exists, or the run's model cannot be loaded.
        InputError: torchao is not installed or does not support the quantiser.
    """
    _check_new(directory)
    problem = problem_of_run(settings)
    provenance = {**provenance, FINGERPRINT: problem.fingerprint}
    quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, bit_map)
    return _write(problem.classifier, quantized, provenance, directory, format_)


def export_polished(run: Path, trial: Trial, directory: Path, format_: str) -> str:
    """Write a polished map of a run as a checkpoint elsewhere, and return a message for the user.

    Args:
        run: the run's directory.
        trial: the map before polishing.
        directory: must not exist.
        format_: ``packed`` or ``torchao``.

    Raises:
        InputError: the map is not polished, its checkpoint is damaged, or the directory exists.
        InputError: torchao is not installed or does not support the quantiser.
    """
    _check_new(directory)
    checkpoints = {polished.number: run / polished.checkpoint for polished in read_polished(run)}
    if trial.number not in checkpoints:
        raise InputError(
            f"{run}: {trial.label} is not polished; run bitfront polish --run {quoted(run)} --trial {trial.number}"
        )
    classifier, quantized = read_quantized(checkpoints[trial.number])
    provenance = read_manifest(checkpoints[trial.number])
    del provenance["packed"]  # it describes that checkpoint's own files
    return _write(classifier, quantized, provenance, directory, format_)


def _check_new(directory: Path) -> None:
    if directory.exists():
        raise InputError(f"{directory}: exists already; give --out a new directory")


def _write(
    classifier: Classifier, quantized: QuantizedModel, provenance: Mapping[str, Any], directory: Path, format_: str
) -> str:
    if format_ == "torchao":
        length = write_torchao(classifier, quantized, provenance, directory)
        packed = quantized.footprint.packed_bytes(quantized.bit_map)
        return f"weights of {length:,} bytes, one byte for each code; a packed checkpoint takes {packed:,}"
    length = write_checkpoint(classifier, quantized, provenance, directory)
    return f"weights of {length:,} bytes; score it with bitfront evaluate --checkpoint {quoted(directory)}"


def evaluate_checkpoint(problem: Problem, directory: Path) -> tuple[Evaluation, Checkpoint]:
    """Return the scores of a packed checkpoint on the problem's sentences, in FP32, and the loaded checkpoint.

    Raises:
        InputError: the checkpoint is damaged (see ``load_checkpoint``), or was made from another model.
        ValueError: a log-odds is not finite.
    """
    original, given = _model_of(read_manifest(directory)), problem.fingerprint["model"]
    if original not in (None, given):
        raise InputError(
            f"{directory}: was made from another model than {problem.model} (fingerprint {original!r}, not {given!r}); "
            "damage needs the original FP32 model, so give it as --model"
        )
    checkpoint = load_checkpoint(directory, device_of(problem.network))
    if checkpoint.footprint.layers != problem.layers:
        raise InputError(f"{directory}: was made from a model with other layers; give that model as --model")
    return problem.confirm_network(checkpoint.classifier.model), checkpoint


def _model_of(provenance: Mapping[str, Any]) -> object:
    """Return the fingerprint of the model that a checkpoint was made from; None if it does not say."""
    # Older checkpoints have it among their run's facts; those made from a bit map file have none.
    for name, key in ((FINGERPRINT, "model"), ("facts", "fingerprint of model")):
        table = provenance.get(name)
        if isinstance(table, dict) and key in table:
            return table[key]
    return None
