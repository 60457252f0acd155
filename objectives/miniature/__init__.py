"""The embedded example: a small BERT with the 76 layers of bert-base-uncased, and sentences of an artificial grammar.

Both are files of this package and equal on every machine. ``tests/assets/miniature`` made them: it trained the model on
60,000 sentences, and ``data`` has the first 10,000 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Miniature:
    """Paths of the miniature's files, an ordinary model directory and ordinary CoLA directories.

    Attributes:
        model: a ``transformers`` directory.
        data: a directory in the public CoLA layout.
        held_out: a second one, with only the two dev files; training and its checks have not seen their sentences.
    """

    model: Path
    data: Path
    held_out: Path


_HERE = Path(__file__).parent

SHIPPED = Miniature(_HERE / "model", _HERE / "data", _HERE / "held_out")
