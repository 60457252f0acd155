"""Helpers for packed checkpoints whose files changed after writing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.export.packed import MANIFEST, _hashes


def hash_anew(directory: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Update the manifest's hashes to the present files, so that only the other checks can find the fault.

    ``provenance`` replaces the manifest's.
    """
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    if provenance is not None:
        manifest["provenance"] = dict(provenance)
    manifest["provenance"]["packed"]["sha256"] = _hashes(directory)
    (directory / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
