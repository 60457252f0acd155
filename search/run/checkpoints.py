"""Checkpoints of a run's maps, made only from the very model that the run was made with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objectives.batching import device_of
from objectives.errors import InputError
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
    """Return the problem of a run by its run.toml.

    Raises:
        InputError: it cannot be loaded, or its model, sentences or quantiser are not the run's any more.
    """
    profile, recorded = Profile(**settings["profile"]), settings["fingerprint"]
    problem = load_problem(
        profile.model,
        profile.data,
        device="cpu" if profile.device == "cpu" else "auto",  # a run may have come from a machine with a GPU
        quantizer=profile.quantizer,
        report_progress=log.info,
        confirm=profile.confirm,
        group_size=profile.group_size,
    )
    if differing := [key for key, value in problem.fingerprint.items() if recorded.get(key) != value]:
        raise InputError(
            f"{profile.model}: is not the model of this run any more, its {' and '.join(differing)} differ; "
            "start another run"
        )
    warn_of_other_codes(recorded.get("codes"), problem, profile.model)
    return problem


def export_checkpoint(
    settings: Mapping[str, Any], bit_map: BitMap, provenance: Mapping[str, Any], directory: Path, format_: str
) -> str:
    """Write one map of a run as a checkpoint, and return a message about it.

    Args:
        settings: of the run's run.toml.
        bit_map: the map.
        provenance: where the map came from, as plain JSON values.
        directory: must not exist.
        format_: ``packed`` or ``torchao``.

    Raises:
        InputError: the directory is there already, the run's model cannot be had, or torchao is not installed or cannot
            express the quantiser.
    """
    _check_new(directory)
    problem = problem_of_run(settings)
    provenance = {**provenance, FINGERPRINT: problem.fingerprint}
    quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, bit_map)
    return _write(problem.classifier, quantized, provenance, directory, format_)


def export_polished(run: Path, trial: Trial, directory: Path, format_: str) -> str:
    """Write a polished map of a run as a checkpoint elsewhere, and return a message about it.

    Args:
        run: the run's directory.
        trial: the map before polishing.
        directory: must not exist.
        format_: ``packed`` or ``torchao``.

    Raises:
        InputError: the map has not been polished, its checkpoint is damaged, the directory is there already, or torchao
            is not installed or cannot express the quantiser.
    """
    _check_new(directory)
    checkpoints = {polished.number: run / polished.checkpoint for polished in read_polished(run)}
    if trial.number not in checkpoints:
        raise InputError(f"{run}: {trial.label} is not polished; bitfront polish --run {run} --trial {trial.number}")
    classifier, quantized = read_quantized(checkpoints[trial.number])
    provenance = read_manifest(checkpoints[trial.number])
    del provenance["packed"]  # describes the files of that checkpoint
    return _write(classifier, quantized, provenance, directory, format_)


def _check_new(directory: Path) -> None:
    if directory.exists():
        raise InputError(f"{directory}: is there already; give --out a new directory")


def _write(
    classifier: Classifier, quantized: QuantizedModel, provenance: Mapping[str, Any], directory: Path, format_: str
) -> str:
    if format_ == "torchao":
        length = write_torchao(classifier, quantized, provenance, directory)
        packed = quantized.footprint.packed_bytes(quantized.bit_map)
        return f"weights of {length:,} bytes, one for each code; packed they take {packed:,}"
    length = write_checkpoint(classifier, quantized, provenance, directory)
    return f"weights of {length:,} bytes; score it with bitfront evaluate --checkpoint {directory}"


def evaluate_checkpoint(problem: Problem, directory: Path) -> tuple[Evaluation, Checkpoint]:
    """Score a packed checkpoint of a problem's model on every sentence, in FP32; return the checkpoint too.

    Raises:
        InputError: it is damaged (see ``load_checkpoint``), or was made from another model.
        ValueError: a log-odds is not finite.
    """
    made_from, own = _model_of(read_manifest(directory)), problem.fingerprint["model"]
    if made_from not in (None, own):
        raise InputError(
            f"{directory}: was made from another model than {problem.model} (its fingerprint is {made_from!r}, not "
            f"{own!r}), and damage is measured against its own; name that with --model"
        )
    checkpoint = load_checkpoint(directory, device_of(problem.network))
    if checkpoint.footprint.layers != problem.layers:
        raise InputError(f"{directory}: is of a model with other layers; name its own with --model")
    return problem.confirm_network(checkpoint.classifier.model), checkpoint


def _model_of(provenance: Mapping[str, Any]) -> object:
    """Return the fingerprint of the model that a checkpoint was made from; None if it does not say."""
    # Older checkpoints have it among the facts of their run, or not at all if made from a bit map's file.
    for table, key in ((FINGERPRINT, "model"), ("facts", "fingerprint of model")):
        facts = provenance.get(table)
        if isinstance(facts, dict) and key in facts:
            return facts[key]
    return None
