"""A made-up network: each layer shifts the log-odds by what its width costs, and the sum saturates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from objectives.heads import TWO_CLASSES
from objectives.layers import WIDTHS
from objectives.scores import LogOdds
from search.allocation.knapsack import Choice, Sizes
from search.allocation.sensitivity import Sensitivities
from search.samplers.common_mode import Floats
from search.samplers.surrogate import Observations


class SyntheticNetwork:
    """Effects in a few common directions, so that layers strengthen or cancel each other."""

    def __init__(self, seed: int, n_layers: int = 20, n_sentences: int = 120, common: float = 1.0) -> None:
        """Draw a network whose layers have directions ``common`` to them, in proportion to what is each one's own."""
        rng = np.random.default_rng(seed)
        self.fp32_log_odds: LogOdds = rng.normal(0, 2, n_sentences).astype(np.float32)
        directions = common * rng.standard_normal((4, n_sentences))
        along = rng.standard_normal((n_layers, len(WIDTHS), 4))
        own = rng.standard_normal((n_layers, len(WIDTHS), n_sentences))
        strength = rng.lognormal(-1.5, 0.7, (n_layers, 1, 1)) * 2.0 ** -np.arange(len(WIDTHS))[:, None]
        self.effects: Floats = (strength * (along @ directions + own)).astype(np.float32)
        self.sizes: Sizes = rng.integers(50, 200, n_layers)[:, None] * np.array(WIDTHS)

    def shift(self, chosen: Choice) -> Floats:
        """Return the true shift of a map, ``(n_sentences,)``."""
        total = self.effects[np.arange(len(chosen)), chosen].sum(axis=0)
        return np.asarray(total / np.sqrt(1.0 + 0.2 * np.mean(total**2)), dtype=np.float32)

    def damage(self, chosen: Choice) -> float:
        """Return the true damage of a map."""
        return float(TWO_CLASSES.divergences(self.fp32_log_odds + self.shift(chosen), self.fp32_log_odds).mean())

    def size(self, chosen: Choice) -> int:
        """Return the size of a map."""
        return int(self.sizes[np.arange(len(chosen)), chosen].sum())

    def sensitivities(self, error: float = 0.0, seed: int = 0) -> Sensitivities:
        """Return its sensitivities, each shift wrong by ``error`` of its size."""
        wrong = np.random.default_rng(seed).standard_normal(self.effects.shape)
        size = np.sqrt(np.mean(self.effects**2, axis=-1, keepdims=True))
        shifts = (self.effects + error * size * wrong).astype(np.float32)
        return Sensitivities.from_shifts(shifts, np.ones(shifts.shape[:2], dtype=np.bool_), self.fp32_log_odds)

    def observe(self, choices: npt.NDArray[np.int64]) -> Observations:
        """Evaluate maps ``(n_maps, n_layers)``."""
        shifts = np.array([self.shift(chosen) for chosen in choices])
        return Observations(choices, shifts, np.array([self.size(chosen) for chosen in choices], dtype=np.float64))

    def random_maps(self, count: int, seed: int) -> npt.NDArray[np.int64]:
        """Return maps of 2 to 5 bits."""
        return np.random.default_rng(seed).integers(0, 4, size=(count, len(self.effects)))
