"""The maps of the front and the picks as files in the run directory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from objectives.bit_maps import to_json, to_text
from objectives.files import write_text
from results.outcome import Outcome, Trial
from results.statistics.analysis import Selection

FOLDER = "bitmaps"
_WRITTEN_NAME = re.compile(r"[0-9]{2,}\.[0-9]{2}x-[a-z0-9-]+\.(txt|json)")


def maps_with_files(selection: Selection) -> tuple[Trial, ...]:
    """Return the maps that have files: the front, then the picks that are not on it, each once."""
    on_front = selection.front_numbers
    picks = {line.trial.number: line.trial for line in selection.headlines if line.trial is not None}
    return (*selection.front, *(trial for number, trial in picks.items() if number not in on_front))


def bit_map_path(outcome: Outcome, trial: Trial, suffix: str) -> str:
    """Return a map's path in the run directory, as ``bitmaps/08.00x-trial-17.txt``; names sort by compression.

    Args:
        outcome: sets the size axis.
        trial: the map; its number makes the name unique.
        suffix: ``txt`` or ``json``.
    """
    label = re.sub(r"[^a-z0-9]+", "-", trial.label.lower()).strip("-")
    number = f"trial-{trial.number}"
    # A baseline's label lacks its number, and two maps must never share a file.
    stem = label if label == number else f"{label}-{number}".lstrip("-")
    return f"{FOLDER}/{trial.compression(outcome.size_axis):05.2f}x-{stem}.{suffix}"


def bit_map_provenance(outcome: Outcome, trial: Trial) -> dict[str, Any]:
    """Return a map's origin, sizes and scores as plain JSON values, for ``bit_maps.to_json``."""
    return {
        "run": outcome.name,
        "model": outcome.model,
        "data": outcome.data,
        "sentences": len(outcome.labels),
        "trial": trial.number,
        "label": trial.label,
        "origin": trial.origin,
        "quality": outcome.quality,
        "size_axis": outcome.size_axis,
        "min_compression": outcome.min_compression,
        "feasible": trial.feasible,
        **outcome.footprint.figures(trial.bit_map),
        "scores": None if trial.scores is None else trial.scores.record(),
        "fp32_scores": outcome.fp32.record(),
        "facts": dict(outcome.provenance),
    }


def write_bit_maps(outcome: Outcome, maps: Sequence[Trial], directory: Path) -> None:
    """Write each map as text and JSON into the run directory; files that are up to date stay untouched."""
    layers = outcome.footprint.layers
    for trial in maps:
        _write_if_changed(directory / bit_map_path(outcome, trial, "txt"), to_text(layers, trial.bit_map))
        provenance = bit_map_provenance(outcome, trial)
        _write_if_changed(directory / bit_map_path(outcome, trial, "json"), to_json(layers, trial.bit_map, provenance))


def remove_stale_bit_maps(outcome: Outcome, maps: Sequence[Trial], directory: Path) -> None:
    """Remove the files of maps that are not among ``maps``; files of other names belong to the user and stay."""
    current = {directory / bit_map_path(outcome, trial, suffix) for trial in maps for suffix in ("txt", "json")}
    for path in sorted((directory / FOLDER).glob("*")):
        if path not in current and _WRITTEN_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)  # another worker may be writing the same report


def _write_if_changed(path: Path, text: str) -> None:
    # The report is written every half minute; writing and syncing two files for every map each time would be slow.
    if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
        write_text(path, text)
