"""The front's maps as files of a run directory: their names, their provenance, and keeping the folder current."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from objectives.bit_maps import to_json, to_text
from objectives.files import write_text
from results.outcome import Outcome, Trial

FOLDER = "bitmaps"
_OURS = re.compile(r"[0-9]{2,}\.[0-9]{2}x-[a-z0-9-]+\.(txt|json)")


def bit_map_path(outcome: Outcome, trial: Trial, suffix: str) -> str:
    """Return a map's path in the run directory, as ``bitmaps/08.00x-trial-17.txt``; names sort by compression.

    Args:
        outcome: whose size axis counts.
        trial: the map; its number tells apart what would have the same name.
        suffix: ``txt`` or ``json``.
    """
    words = re.sub(r"[^a-z0-9]+", "-", trial.label.lower()).strip("-")
    number = str(trial.number)
    # A contender's label need not hold its number, and two maps must never share a file.
    stem = words if words == f"trial-{number}" else f"{words}-trial-{number}".lstrip("-")
    return f"{FOLDER}/{trial.compression(outcome.size_axis):05.2f}x-{stem}.{suffix}"


def bit_map_provenance(outcome: Outcome, trial: Trial) -> dict[str, Any]:
    """Return where a map came from and what it scored, as plain JSON values, for ``bit_maps.to_json``."""
    return {
        "run": outcome.name,
        "model": outcome.model,
        "data": outcome.data,
        "sentences": int(outcome.labels.size),
        "trial": trial.number,
        "label": trial.label,
        "origin": trial.origin,
        "quality": outcome.quality,
        "size_axis": outcome.size_axis,
        "min_compression": outcome.min_compression,
        "feasible": trial.feasible,
        "nominal_compression": trial.nominal_compression,
        "packed_compression": trial.packed_compression,
        "nominal_bits": outcome.footprint.nominal_bits(trial.bit_map),
        "packed_bytes": outcome.footprint.packed_bytes(trial.bit_map),
        "scores": None if trial.scores is None else asdict(trial.scores),
        "fp32_scores": asdict(outcome.fp32),
        "facts": dict(outcome.provenance),
    }


def write_bit_maps(outcome: Outcome, maps: Sequence[Trial], directory: Path) -> None:
    """Write each map as text and JSON into the run directory; what is there already as it should be is left alone."""
    layers = outcome.footprint.layers
    for trial in maps:
        _write_changed(directory / bit_map_path(outcome, trial, "txt"), to_text(layers, trial.bit_map))
        provenance = bit_map_provenance(outcome, trial)
        _write_changed(directory / bit_map_path(outcome, trial, "json"), to_json(layers, trial.bit_map, provenance))


def remove_stale_bit_maps(outcome: Outcome, maps: Sequence[Trial], directory: Path) -> None:
    """Remove the files of maps that are not among ``maps``; files of other names are the user's and stay."""
    current = {directory / bit_map_path(outcome, trial, suffix) for trial in maps for suffix in ("txt", "json")}
    for path in sorted((directory / FOLDER).glob("*")):
        if path not in current and _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)  # another worker may be writing the same report


def _write_changed(path: Path, text: str) -> None:
    # A report every half minute would otherwise write and sync two files for every map of the front each time.
    if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
        write_text(path, text)
