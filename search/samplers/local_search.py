"""Local search on a surrogate: single changes and exchanges between two layers, until none lowers the damage.

The objective is the damage to expect on unseen sentences (``Surrogate.damage_elsewhere``). It is expanded to second
order around the current map, once a round; a round makes many changes on that expansion.

Notation, for n outputs, one of each sentence for two classes; an effect is a (layer, width) pair with one row in the
surrogate:

- ``s``: the shift at the expansion's centre, ``(n,)``; ``E``: its derivatives by the effects, ``(n_effects, n)``.
- ``g, h``: first and second derivative of the damage by each sentence's shift, at ``s``; of several outputs the second
  is a matrix for each sentence, ``L diag(h) L'`` (:class:`objectives.heads.Curvature`), and ``E L`` stands for ``E``.
- ``C, B``: coefficients of E and the basis of common-mode shifts (:mod:`search.samplers.common_mode`).
- ``g_c, h_c``: the derivatives at the common part of ``s``.
- ``d``: the specific damage of each effect; ``Q``: the variance penalty; ``q``: its slope at the centre.
- ``w``: the interaction shrinkage.

If effects ``j`` replace effects ``i``, let ``x`` be +1 at j and -1 at i. The damage changes by ``a'x + x'A x / 2``:

    a = w E g + q + (1 - w) (C B' g_c + d)
    A = w E diag(h) E' + Q + (1 - w) C B' diag(h_c) B C'

So one matrix holds the gain of every pair of changes, and the best exchange is found by looking at each. After a change
``x`` the same expansion holds with ``a + A x`` in place of ``a``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from objectives.heads import Curvature, Head
from objectives.scores import LogOdds
from search.allocation.knapsack import Choice, Sizes, worth_taking
from search.samplers.common_mode import Floats
from search.samplers.surrogate import Surrogate, blocks

_ROUNDS = 8
_STEPS = 60
_REACH = 2  # widths a single change may go up or down, of those that are worth taking
_SMALLEST_GAIN = 1e-6  # of the largest change that one layer makes in the damage

Rows = npt.NDArray[np.int64]
"""Effects by their row in the surrogate."""


def search_locally(surrogate: Surrogate, sizes: Sizes, start: Choice, budget: int) -> tuple[float, Choice]:
    """Return a map within the budget that no change of one or two layers improves, and its ``damage_elsewhere``.

    While a round ends at a lower damage, exactly computed, another begins there.

    Args:
        surrogate: predicts damages.
        sizes: size of each layer at each width, ``(n_layers, n_widths)``.
        start: where to begin; if it is too large, it first gives up what costs least for its size.
        budget: in the units of ``sizes``; at least the smallest map's.
    """
    layers = np.arange(len(start))
    fits = sizes[layers, start].sum() <= budget
    damage, best = (surrogate.damage_elsewhere(start) if fits else np.inf), start
    for _ in range(_ROUNDS):
        chosen = _Expansion(surrogate, sizes, best).improve(budget)
        new_damage = surrogate.damage_elsewhere(chosen)
        if not new_damage < damage:
            break
        damage, best = new_damage, chosen
    return damage, best


class _Expansion:
    """The second-order expansion around a map (``_first`` is a, ``_second`` is A), and the changes made on it."""

    def __init__(self, surrogate: Surrogate, sizes: Sizes, start: Choice) -> None:
        self._n_widths = sizes.shape[1]
        self._sizes = sizes
        self._worth_taking = worth_taking(sizes)
        self._rank = self._worth_taking.cumsum(axis=1)
        self._chosen = start.copy()
        effects, shift = surrogate.effects(start), surrogate.shift(start)
        common, variance_penalty, shrinkage = surrogate.common, surrogate.variance_penalty, surrogate.shrinkage
        g, h, curvature = _derivatives(surrogate.head, surrogate.fp32_log_odds, shift)
        g_common, h_common, curvature_common = _derivatives(
            surrogate.head, surrogate.fp32_log_odds, common.project(shift)
        )
        coefficients, basis = common.coefficients(effects), common.basis
        independent = coefficients @ (basis.T @ g_common) + surrogate.specific
        interacting = shrinkage * (effects @ g) + surrogate.variance_penalty_slope(start)
        self._first = np.asarray(interacting + (1.0 - shrinkage) * independent, dtype=np.float32)
        weighted, root = np.empty_like(effects), np.sqrt(shrinkage * h)
        for rows in blocks(effects):
            weighted[rows] = curvature.mixed(effects[rows]) * root
        second = weighted @ weighted.T + variance_penalty  # BLAS computes half of a product with its own transpose
        mixed = curvature_common.mixed(basis.T)
        second += (1.0 - shrinkage) * (coefficients @ (mixed @ (mixed.T * h_common[:, None])) @ coefficients.T)
        self._second = np.asarray(second, dtype=np.float32)

    def improve(self, budget: int) -> Choice:
        """Make the map fit the budget, then change it until no change helps, and return it."""
        while (slack := self._slack(budget)) < 0:
            rows, changes, growth = self._single_changes()
            # The least damage for each unit of the excess saved.
            rates = np.where(growth < 0, changes / np.clip(-growth, 1, -slack), np.inf)
            self._apply(rows[np.argmin(rates)])
        for _ in range(_STEPS):
            best_rows = self._best_change(self._slack(budget))
            if not len(best_rows):
                break
            for row in best_rows:
                self._apply(row)
        return self._chosen

    def _slack(self, budget: int) -> int:
        return budget - int(self._sizes[np.arange(len(self._chosen)), self._chosen].sum())

    def _single_changes(self) -> tuple[Rows, Floats, Sizes]:
        """Return the effects that one change can bring in, with the change in damage and in size of each."""
        own = self._chosen[:, None]
        step = np.abs(self._rank - np.take_along_axis(self._rank, own, axis=1))
        rows = np.flatnonzero(self._worth_taking & (np.arange(self._n_widths) != own) & (step <= _REACH))
        old = self._replaced(rows)
        second = self._second
        changes = self._first[rows] - self._first[old]
        changes += 0.5 * (second[rows, rows] - 2 * second[rows, old] + second[old, old])
        sizes = self._sizes.ravel()
        return rows, changes, sizes[rows] - sizes[old]

    def _best_change(self, slack: int) -> Rows:
        """Return the one or two effects that lower the damage most within ``slack``; empty if none does."""
        rows, changes, growth = self._single_changes()
        old = self._replaced(rows)
        crossed = self._second[rows] - self._second[old]
        pairs = crossed[:, rows]
        pairs -= crossed[:, old]
        pairs += changes
        pairs += changes[:, None]
        layer = rows // self._n_widths
        np.putmask(pairs, (growth > slack - growth[:, None]) | (layer[:, None] == layer), np.inf)
        pairs[np.diag_indices_from(pairs)] = np.where(growth <= slack, changes, np.inf)  # one change alone
        first, second = divmod(int(np.argmin(pairs)), len(rows))
        if pairs[first, second] > -_SMALLEST_GAIN * np.abs(changes).max():
            return rows[:0]
        return rows[[first]] if first == second else rows[[first, second]]

    def _apply(self, row: np.int64) -> None:
        layer, width = divmod(int(row), self._n_widths)
        old = layer * self._n_widths + self._chosen[layer]
        self._first += self._second[:, row] - self._second[:, old]
        self._chosen[layer] = width

    def _replaced(self, rows: Rows) -> Rows:
        """Return the effects whose place the effects ``rows`` would take."""
        layer = rows // self._n_widths
        return np.asarray(layer * self._n_widths + self._chosen[layer])


def _derivatives(head: Head, fp32_log_odds: LogOdds, shift: Floats) -> tuple[Floats, Floats, Curvature]:
    """Return g and h, ``(n,)`` each: the derivatives of the damage by each sentence's flat shift; and the curvature."""
    means = head.means(head.shaped(fp32_log_odds + shift))
    slope = (means - head.means(head.shaped(fp32_log_odds))).ravel() / len(means)
    # Where a sentence is far from undecided, the damage hardly curves, but it does on the way back: hence a floor.
    curvature = head.curvature(means, floor=0.02)
    second = curvature.pivots / len(means)
    return np.asarray(slope, dtype=np.float32), np.asarray(second, dtype=np.float32), curvature
