"""Make the shipped miniature anew: about a minute on two cores.

    python -m tests.assets.miniature          over the one in objectives/miniature
    python -m tests.assets.miniature DIR      elsewhere

The sentences come out the same everywhere. The weights are the same bytes only with the same torch, threads and
processor: those that are shipped were trained with torch 2.13.0 on one thread. New weights change every figure of a
search of the miniature, and runs that were made with the old ones cannot be continued.
"""

from __future__ import annotations

import sys
from pathlib import Path

from objectives.miniature import SHIPPED
from tests.assets.miniature.training import build

build(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED.model.parent)
