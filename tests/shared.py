"""Where the shared test bed lies: a real model and the public CoLA, outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("BITFRONT_SHARED", ROOT.parent / "shared"))
MODEL = SHARED / "models" / "bert-12x384-cola"
COLA = SHARED / "data" / "cola"
PUBLISHED_MAP = SHARED / "reference" / "documented_map_original.md"

ABSENT = "" if MODEL.is_dir() and COLA.is_dir() else f"no shared model and sentences in {SHARED}; set BITFRONT_SHARED"
"""Why what needs them cannot run; empty where they are at hand."""

needs_shared = pytest.mark.skipif(bool(ABSENT), reason=ABSENT)
