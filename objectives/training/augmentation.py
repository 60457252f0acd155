"""New sentences from old ones, for a teacher to label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

TokenIds = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Augmentation:
    """Exchanges words: swaps two, or replaces one by a word of another sentence, once or twice.

    Calling it returns the changed token ids, of the same length.
    """

    pool: Sequence[int]
    special_ids: frozenset[int]

    @classmethod
    def of(cls, token_ids: TokenIds, special_ids: Collection[int]) -> Augmentation:
        """Take words from these sentences; special tokens never change."""
        special = frozenset(special_ids)
        return cls([token for ids in token_ids for token in ids if token not in special], special)

    def __call__(self, ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        changed = list(ids)
        positions = [position for position, token in enumerate(changed) if token not in self.special_ids]
        if len(positions) < 2:
            return changed
        for _ in range(rng.integers(1, 3)):
            i, j = rng.choice(positions, size=2)
            if rng.random() < 0.5:
                changed[i], changed[j] = changed[j], changed[i]
            else:
                changed[i] = self.pool[int(rng.integers(len(self.pool)))]
        return changed
