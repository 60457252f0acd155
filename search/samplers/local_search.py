"""Local search on a landscape: single changes and exchanges between two layers, until none helps.

What is made less is the damage to expect on other sentences than those that the landscape is known on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from objectives.scores import LogOdds
from search.allocation.knapsack import Choice, Sizes
from search.samplers.common_mode import Floats, sigmoid
from search.samplers.surrogate import Surrogate

_ROUNDS = 8
_STEPS = 60
_REACH = 2  # widths a single change may go up or down
_SMALLEST_GAIN = 1e-6  # of the largest change that one layer makes

Rows = npt.NDArray[np.int64]
"""Effects by their row in the landscape."""


def search_locally(surrogate: Surrogate, sizes: Sizes, start: Choice, budget: int) -> tuple[float, Choice]:
    """Return a map within the budget that no change of one or two layers improves, and its expected damage elsewhere.

    Damage is expanded to second order in the shift around the start; in that expansion the gain of every pair of
    changes follows from inner products of effects, so the best of all exchanges is found by looking at each. Where the
    end is truly better than the start, the expansion is renewed there.

    Args:
        surrogate: to be searched.
        sizes: of each layer at each width, ``(n_layers, n_widths)``.
        start: where to begin; too large a map first gives up what costs least for its size.
        budget: in the units of ``sizes``; at least the smallest map's.
    """
    layers = np.arange(len(start))
    fits = sizes[layers, start].sum() <= budget
    best, known = (surrogate.damage_elsewhere(start) if fits else np.inf), start
    for _ in range(_ROUNDS):
        chosen = _Expansion(surrogate, sizes, known).improve(budget)
        damage = surrogate.damage_elsewhere(chosen)
        if not damage < best:
            break
        best, known = damage, chosen
    return best, known


class _Expansion:
    """Expected damage elsewhere to second order around a map."""

    def __init__(self, surrogate: Surrogate, sizes: Sizes, start: Choice) -> None:
        self._n_widths = sizes.shape[1]
        self._sizes = sizes
        self._chosen = start.copy()
        effects, shift = surrogate.effects(start), surrogate.shift(start)
        common, variance_penalty, shrinkage = surrogate.common, surrogate.variance_penalty, surrogate.shrinkage
        slope, curvature = _derivatives(surrogate.fp32_log_odds, shift)
        alike_slope, alike_curvature = _derivatives(surrogate.fp32_log_odds, common.of(shift))
        alike, basis = common.coefficients(effects), common.basis
        elsewhere = alike @ (basis.T @ alike_slope) + surrogate.specific
        together = shrinkage * (effects @ slope) + surrogate.variance_penalty_slope(start)
        self._first = np.asarray(together + (1.0 - shrinkage) * elsewhere, dtype=np.float32)
        weighted = effects * np.sqrt(shrinkage * curvature)
        second = weighted @ weighted.T + variance_penalty  # of a matrix and its own transpose only half is computed
        second += (1.0 - shrinkage) * (alike @ (basis.T @ (basis * alike_curvature[:, None])) @ alike.T)
        self._second = np.asarray(second, dtype=np.float32)

    def improve(self, budget: int) -> Choice:
        """Make the map fit the budget, then change it until nothing helps, and return it."""
        while (slack := self._slack(budget)) < 0:
            rows, gains, growth = self._single_changes()
            # What costs least for what it saves of the excess.
            rates = np.where(growth < 0, gains / np.clip(-growth, 1, -slack), np.inf)
            self._make(rows[np.argmin(rates)])
        for _ in range(_STEPS):
            changes = self._best_changes(self._slack(budget))
            if not len(changes):
                break
            for row in changes:
                self._make(row)
        return self._chosen

    def _slack(self, budget: int) -> int:
        return budget - int(self._sizes[np.arange(len(self._chosen)), self._chosen].sum())

    def _single_changes(self) -> tuple[Rows, Floats, Sizes]:
        """Return the effects that one change can bring in, and by what each changes the damage and the size."""
        step = np.abs(np.arange(self._n_widths) - self._chosen[:, None])
        rows = np.flatnonzero((step > 0) & (step <= _REACH))
        old = self._replaced(rows)
        second = self._second
        gains = self._first[rows] - self._first[old]
        gains += 0.5 * (second[rows, rows] - 2 * second[rows, old] + second[old, old])
        sizes = self._sizes.ravel()
        return rows, gains, sizes[rows] - sizes[old]

    def _best_changes(self, slack: int) -> Rows:
        """Return the effects of the change, or pair of changes, that lowers the damage most; none where none does."""
        rows, gains, growth = self._single_changes()
        old = self._replaced(rows)
        crossed = self._second[rows] - self._second[old]
        together = crossed[:, rows] - crossed[:, old] + gains + gains[:, None]
        layer = rows // self._n_widths
        together[(growth[:, None] + growth > slack) | (layer[:, None] == layer)] = np.inf
        together[np.diag_indices_from(together)] = np.where(growth <= slack, gains, np.inf)  # one change alone
        first, second = divmod(int(np.argmin(together)), len(rows))
        if together[first, second] > -_SMALLEST_GAIN * np.abs(gains).max():
            return rows[:0]
        return rows[[first]] if first == second else rows[[first, second]]

    def _make(self, row: np.int64) -> None:
        layer, width = divmod(int(row), self._n_widths)
        old = layer * self._n_widths + self._chosen[layer]
        self._first += self._second[:, row] - self._second[:, old]
        self._chosen[layer] = width

    def _replaced(self, rows: Rows) -> Rows:
        """Return the effects that these would take the place of."""
        layer = rows // self._n_widths
        return np.asarray(layer * self._n_widths + self._chosen[layer])


def _derivatives(fp32_log_odds: LogOdds, shift: Floats) -> tuple[Floats, Floats]:
    """Return the first and second derivative of the damage by each sentence's shift."""
    probability = sigmoid(fp32_log_odds + shift)
    slope = (probability - sigmoid(fp32_log_odds)) / len(shift)
    # Sentences that are decided by far curve hardly at all there, but do on the way back.
    curvature = np.maximum(probability * (1.0 - probability), 0.02) / len(shift)
    return np.asarray(slope, dtype=np.float32), np.asarray(curvature, dtype=np.float32)
