"""The embedded default: a small BERT with bert-base-uncased's 76 layers, and sentences of a grammar that it judges.

Both are files of this package, the same on every machine. ``tests/assets/miniature`` made them: it trained the model on
60,000 sentences, of which ``data`` has the first 10,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Miniature:
    """Where the miniature lies: what any local model directory and CoLA directory are to the rest of the product.

    Attributes:
        model: a ``transformers`` directory.
        data: a directory in the public CoLA layout.
        held_out: another one, of the two dev files only: sentences that training and its checks have not seen.
    """

    model: Path
    data: Path
    held_out: Path


_HERE = Path(__file__).parent

SHIPPED = Miniature(_HERE / "model", _HERE / "data", _HERE / "held_out")
