"""Checkpoints of a run's maps; the model must be the one that was searched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from objectives.batching import device_of
from objectives.errors import InputError
from objectives.layers import BitMap
from objectives.loading.fingerprint import Fingerprint
from objectives.loading.hub import license_of
from objectives.loading.models import Classifier
from objectives.packing.footprint import Footprint
from objectives.problem import Evaluation, Problem, load_problem
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import LogOdds
from results.export.model_card import FIGURES, LICENSE, card_figures
from results.export.onnx import Activations, check_onnx
from results.export.packed import (
    Checkpoint,
    load_checkpoint,
    read_manifest,
    read_provenance,
    read_quantized,
    write_checkpoint,
)
from results.export.torchao import write_torchao
from results.formatting import command
from results.outcome import Outcome, Trial
from results.report.distilled import best_distilled
from search.run.profile import (
    DATA_SETTINGS,
    PLACES,
    Profile,
    changed_data_settings,
    places_to_try,
    resolved_places,
)
from search.study.study import warn_of_other_codes

log = logging.getLogger("bitfront")

FINGERPRINT = "fingerprint"
"""The key of the problem's fingerprint in a checkpoint's manifest."""
_DATA = "data settings"


def problem_of_run(
    settings: Mapping[str, Any], fp32_log_odds: LogOdds | None = None, given: Mapping[str, str | None] | None = None
) -> Problem:
    """Load the problem that a run's run.toml describes.

    Args:
        settings: of the run's run.toml.
        fp32_log_odds: the FP32 model's outputs that the run has recorded; they are computed if there are none.
        given: where the model, data and holdout set are now, by the setting's name; None if it is not said.

    Raises:
        InputError: it cannot be loaded, or its model, sentences or quantiser have changed since the search.
    """
    recorded = settings["fingerprint"]
    profile = located(settings, given or {})

    def check(fingerprint: Fingerprint) -> LogOdds | None:
        if differing := _differing(fingerprint, recorded):
            raise InputError(
                f"{profile.model}: changed since this run ({' and '.join(differing)}); restore it, name the right one "
                "with --model and --data, or start another run"
            )
        return fp32_log_odds

    problem = _load(profile, check, log.info)
    warn_of_other_codes(recorded.get("codes"), problem, profile.model)
    return problem


def located(settings: Mapping[str, Any], given: Mapping[str, str | None]) -> Profile:
    """Return a run's profile with the paths of its model, data and holdout set as they are from here.

    If there are several places to look in, it is the first whose model and sentences have the run's fingerprint. If
    none has, it is the last; the caller must check it anyway.

    Args:
        settings: of the run's run.toml.
        given: what the user says of these settings, by name; None if nothing.

    Raises:
        InputError: a directory is neither where it was given nor where it was when the run began.
    """
    recorded = settings["profile"]
    chosen = {name: value for name, value in given.items() if value is not None}
    others = {name: recorded[name] for name in PLACES if name not in chosen}
    places = places_to_try(others, settings.get("resolved", {}))
    *earlier, last = (Profile(**recorded | chosen | place) for place in places)
    return next((profile for profile in earlier if _fits(profile, settings["fingerprint"])), last)


class _FitsError(Exception):
    """What ends loading once the fingerprint is known to be right."""


def _fits(profile: Profile, recorded: Mapping[str, str]) -> bool:
    def check(fingerprint: Fingerprint) -> None:
        if _differing(fingerprint, recorded):
            raise InputError(f"{profile.model}: is not the run's")
        raise _FitsError

    try:
        _load(profile, check)
    except (_FitsError, InputError) as error:  # another directory of that name may hold anything
        return isinstance(error, _FitsError)
    raise AssertionError("loading goes on although its fingerprint was refused")


def _differing(fingerprint: Fingerprint, recorded: Mapping[str, str]) -> list[str]:
    return [key for key, value in fingerprint.items() if recorded.get(key) != value]


def _load(
    profile: Profile,
    known_scores: Callable[[Fingerprint], LogOdds | None],
    report_progress: Callable[[str], None] = lambda _: None,
) -> Problem:
    return load_problem(
        profile.model,
        profile.data,
        device="cpu" if profile.device == "cpu" else "auto",  # the run may have used a GPU that this machine lacks
        quantizer=profile.quantizer,
        report_progress=report_progress,
        confirm=profile.confirm,
        group_size=profile.group_size,
        known_scores=known_scores,
        options=profile.data_options,
        metric=profile.metric,
    )


def origin_of(problem: Problem) -> dict[str, Any]:
    """Return where a checkpoint's model and sentences are and which they are, for its manifest."""
    return {
        FINGERPRINT: problem.fingerprint,
        "resolved": resolved_places({"model": problem.model, "data": problem.data}),
        _DATA: changed_data_settings(asdict(problem.options)),
        LICENSE: license_of(problem.classifier.source),
    }


def check_format(format_: str, footprint: Footprint, codes: bool = True) -> None:
    """Check that a model can be written in a format of checkpoints, before anything is scored.

    Its codes are checked too, unless it is to be written in FP32.

    Raises:
        InputError: they cannot, or a package is missing; the message says which.
    """
    if format_ == "torchao":
        from results.export.torchao import check_torchao

        check_torchao(footprint.layers, footprint.scheme)
    if format_ == "onnx":
        check_onnx()
        from results.export.onnx.layers import check_scheme

        if codes:
            check_scheme(footprint.layers, footprint.scheme)


def export_checkpoint(
    problem: Problem,
    bit_map: BitMap | None,
    provenance: Mapping[str, Any],
    directory: Path,
    format_: str,
    activations: Activations = "fp32",
) -> str:
    """Write one map of a run as a checkpoint, and return a message for the user.

    Args:
        problem: the run's problem.
        bit_map: the map; None for the FP32 model, with ``onnx`` only.
        provenance: where the map came from, as plain JSON values.
        directory: must not exist.
        format_: ``packed``, ``torchao`` or ``onnx``.
        activations: of ``onnx``, ``fp32`` or ``int8``.

    Raises:
        FileExistsError: the directory exists.
        InputError: the format's package is not installed or does not support the quantiser.
    """
    provenance = {"model": problem.model, "data": problem.data, **provenance, **origin_of(problem)}
    if bit_map is None:
        from results.export.onnx.writer import write_fp32_onnx  # an extra

        return _onnx_written(write_fp32_onnx(problem.classifier, provenance, directory), directory)
    quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, bit_map)
    return _write(problem.classifier, quantized, provenance, directory, format_, activations)


def export_distilled(
    run: Path, outcome: Outcome, trial: Trial, directory: Path, format_: str, activations: Activations = "fp32"
) -> str:
    """Write a distilled map of a run as a checkpoint elsewhere, and return a message for the user.

    Args:
        run: the run's directory.
        outcome: its outcome.
        trial: the map as searched; of several distillations, the one with the least held-out damage is taken.
        directory: must not exist.
        format_: ``packed``, ``torchao`` or ``onnx``.
        activations: of ``onnx``, ``fp32`` or ``int8``.

    Raises:
        FileExistsError: the directory exists.
        InputError: the map is not distilled, or its checkpoint is damaged.
        InputError: the format's package is not installed or does not support the quantiser.
    """
    distilled = best_distilled(run, trial.number)
    if distilled is None:
        raise InputError(
            f"{run}: {trial.label} is not distilled; run {command('distill', '--run', run, '--trial', trial.number)}"
        )
    classifier, quantized = read_quantized(run / distilled.checkpoint)
    provenance = read_manifest(run / distilled.checkpoint)
    del provenance["packed"]  # it describes that checkpoint's own files
    provenance[FIGURES] = card_figures(outcome, trial)
    return _write(classifier, quantized, provenance, directory, format_, activations)


def _write(
    classifier: Classifier,
    quantized: QuantizedModel,
    provenance: Mapping[str, Any],
    directory: Path,
    format_: str,
    activations: Activations,
) -> str:
    if format_ == "onnx":
        from results.export.onnx.writer import write_onnx

        return _onnx_written(write_onnx(classifier, quantized, provenance, directory, activations), directory)
    if format_ == "torchao":
        length = write_torchao(classifier, quantized, provenance, directory)
        packed = quantized.footprint.packed_bytes(quantized.bit_map)
        return (
            f"weights of {length:,} bytes, one byte for each code whatever its width; a packed checkpoint takes "
            f"{packed:,}. On a CPU torchao decodes weights at each call, several times slower than FP32.\n"
            "next: load it with transformers' AutoModelForSequenceClassification.from_pretrained"
        )
    length = write_checkpoint(classifier, quantized, provenance, directory)
    return f"weights of {length:,} bytes\nnext: {command('evaluate', '--checkpoint', directory)}"


def _onnx_written(length: int, directory: Path) -> str:
    return f"onnx/model.onnx of {length:,} bytes\nnext: {command('evaluate', '--checkpoint', directory)}"


def is_onnx(directory: Path) -> bool:
    """Return whether a directory is an ONNX export.

    Raises:
        InputError: it is no export at all.
    """
    return "onnx" in read_provenance(directory)


def _scorable(directory: Path) -> dict[str, Any]:
    """Return the manifest of an export that ``evaluate`` can score.

    Raises:
        InputError: there is none.
    """
    return read_provenance(directory) if is_onnx(directory) else read_manifest(directory)


def checkpoint_places(directory: Path, given: Mapping[str, str | None]) -> list[dict[str, str]]:
    """Return where the model and data that a checkpoint was made from may be, the likeliest first.

    ``given`` is what the user says of them by name; None if nothing.

    Raises:
        InputError: it is no packed checkpoint, or its manifest does not name them.
        InputError: a directory is neither where it was given nor where it was when the checkpoint was made.
    """
    manifest = _scorable(directory)
    chosen = {name: value for name in ("model", "data") if (value := given.get(name)) is not None}
    named = {name: manifest.get(name) for name in ("model", "data") if name not in chosen}
    if unnamed := [f"--{name}" for name, value in named.items() if not isinstance(value, str)]:
        raise InputError(
            f"{directory}: its manifest does not name what it was made from; give {' and '.join(unnamed)}, since "
            "damage needs the original FP32 model"
        )
    resolved = manifest.get("resolved")
    return [chosen | place for place in places_to_try(named, resolved if isinstance(resolved, dict) else {})]


def checkpoint_data_settings(directory: Path) -> dict[str, Any]:
    """Return the settings of a packed checkpoint's data, by name: which columns and splits it was searched with."""
    settings = _scorable(directory).get(_DATA, {"max_eval_samples": 0})  # of 0.2.0 and older, which had no limit
    return {name: settings[name] for name in DATA_SETTINGS if name in settings} if isinstance(settings, dict) else {}


def check_original(directory: Path, place: Mapping[str, str], fingerprint: Fingerprint, same_data: bool) -> None:
    """Check that a model, and its sentences, are those a checkpoint was made from, if its manifest says so.

    Args:
        directory: of the checkpoint.
        place: the model and the data by name.
        fingerprint: theirs.
        same_data: whether the sentences must be the same; a user who names others may have them scored.

    Raises:
        InputError: the model or the sentences are others, or there is no packed checkpoint.
    """
    manifest = _scorable(directory)
    original, given = _recorded(manifest, "model"), fingerprint["model"]
    if original not in (None, given):
        raise InputError(
            f"{directory}: was made from another model than {place['model']} (fingerprint {original!r}, not "
            f"{given!r}); damage needs the original FP32 model, so give it as --model"
        )
    original, given = _recorded(manifest, "sentences"), fingerprint["sentences"]
    if same_data and original not in (None, given):
        raise InputError(
            f"{directory}: was made with other sentences than those of {place['data']} (fingerprint {original!r}, not "
            f"{given!r}); name the sentences to score as --data"
        )


def evaluate_checkpoint(problem: Problem, directory: Path) -> tuple[Evaluation, Checkpoint]:
    """Return the scores of a packed checkpoint on the problem's sentences, in FP32, and the loaded checkpoint.

    Raises:
        InputError: the checkpoint is damaged (see ``load_checkpoint``), or was made from another model.
        NotFiniteError: an output is not finite.
    """
    check_original(directory, {"model": problem.model}, problem.fingerprint, same_data=False)
    checkpoint = load_checkpoint(directory, device_of(problem.network))
    if checkpoint.footprint.layers != problem.layers:
        raise InputError(f"{directory}: was made from a model with other layers; give that model as --model")
    return problem.confirm_network(checkpoint.classifier.model), checkpoint


def _recorded(provenance: Mapping[str, Any], part: str) -> object:
    """Return the fingerprint of the model or sentences that a checkpoint was made from; None if it does not say."""
    # Older checkpoints have it among their run's facts; those made from a bit map file have none.
    for name, key in ((FINGERPRINT, part), ("facts", f"fingerprint of {part}")):
        table = provenance.get(name)
        if isinstance(table, dict) and key in table:
            return table[key]
    return None
