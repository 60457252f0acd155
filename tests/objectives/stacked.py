"""Two classes through the code of many, to compare the two."""

from __future__ import annotations

from dataclasses import dataclass

from objectives.heads import Classes


@dataclass(frozen=True)
class Stacked(Classes):
    """Two classes with outputs ``(n_sentences, 1)``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """One column, not none."""
        return (self.n_outputs,)
