"""How far a search should count on what layers do together on the sentences at hand, found by cross-validation.

A search that minimises the damage on some sentences finds layers whose errors cancel on them. Part of that is so on any
sentences, part is luck. How much, depends on the quantiser: calibrated rounding leaves hardly more than luck.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from objectives.scores import LogOdds
from search.allocation.knapsack import Choice, Sizes, allocate
from search.allocation.sensitivity import Sensitivities
from search.samplers.common_mode import CommonModeShifts, Floats
from search.samplers.local_search import search_locally
from search.samplers.surrogate import Surrogate, specific_damages

SHRINKAGES = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
_SPLITS = 4
_FEWEST_SENTENCES = 40
_MOST_BUDGETS = 3


def choose_shrinkage(
    sensitivities: Sensitivities, fp32_log_odds: LogOdds, sizes: Sizes, budgets: Sequence[int], seed: int = 0
) -> float:
    """Return which of ``SHRINKAGES`` leads to maps of least damage on sentences that they were not chosen on.

    Found on half of the sentences, for a search on all of them, it is on the careful side. Too few to tell: 0.

    Args:
        sensitivities: of the layers on the sentences.
        fp32_log_odds: ``(n_sentences,)``.
        sizes: of each layer at each width, ``(n_layers, n_widths)``.
        budgets: sizes to try, in the units of ``sizes``; a few of them are used.
        seed: of the splits.
    """
    if fp32_log_odds.size < _FEWEST_SENTENCES:
        return 0.0
    return SHRINKAGES[int(np.argmin(damages_elsewhere(sensitivities, fp32_log_odds, sizes, budgets, seed)))]


def damages_elsewhere(
    sensitivities: Sensitivities, fp32_log_odds: LogOdds, sizes: Sizes, budgets: Sequence[int], seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the damage, ``(n_shrinkages,)``, that each of ``SHRINKAGES`` leads to on sentences not chosen on.

    On half of the sentences the plain allocation of a budget is improved with each trust, and the damage of what comes
    out is predicted on the other half, both by the layers' own shifts added up; no map is evaluated. A geometric mean
    over some budgets, four splits and both of their halves, as a share of the plain allocation's damage there.
    Arguments as for ``choose_shrinkage``.
    """
    n_sentences = fp32_log_odds.size
    some = np.unique(np.linspace(0, len(budgets) - 1, _MOST_BUDGETS).astype(int))
    rng = np.random.default_rng(seed)
    logarithms = []
    for _ in range(_SPLITS):
        one, other = np.array_split(rng.permutation(n_sentences), 2)
        for chosen_on, judged_on in ((one, other), (other, one)):
            half = _Half(sensitivities, fp32_log_odds, chosen_on)
            judge = _Half(sensitivities, fp32_log_odds, judged_on)
            for index in some:
                plain, *improved = (judge.damage(chosen) for chosen in half.maps(sizes, budgets[index]))
                logarithms.append(np.log(np.maximum(improved, 1e-12) / max(plain, 1e-12)))
    return np.asarray(np.exp(np.mean(logarithms, axis=0)))


class _Half:
    """Layers' shifts on some of the sentences, as if they simply added up."""

    def __init__(self, sensitivities: Sensitivities, fp32_log_odds: LogOdds, kept: npt.NDArray[np.int64]) -> None:
        shifts = np.ascontiguousarray(sensitivities.shifts[:, :, kept])
        self._fp32_log_odds = fp32_log_odds[kept]
        here = Sensitivities.of(shifts, sensitivities.measured, self._fp32_log_odds)
        self._damages = here.damages
        self._common = CommonModeShifts(self._fp32_log_odds)
        self._specific = specific_damages(here, self._fp32_log_odds, self._common).ravel()
        self._sums: Floats = shifts.reshape(-1, kept.size)

    def maps(self, sizes: Sizes, budget: int) -> list[Choice]:
        """Return the plain allocation of a budget, then improved with each of ``SHRINKAGES``."""
        plain = allocate(self._damages, sizes, budget)
        return [
            plain,
            *(search_locally(self._surrogate(shrinkage), sizes, plain, budget)[1] for shrinkage in SHRINKAGES),
        ]

    def damage(self, chosen: Choice) -> float:
        """Return the damage of a map."""
        return self._surrogate(1.0).damage(chosen)

    def _surrogate(self, shrinkage: float) -> Surrogate:
        rows, n_sentences = self._sums.shape
        nothing = np.zeros(1, dtype=np.float32)
        return Surrogate(
            fp32_log_odds=self._fp32_log_odds,
            sums=self._sums,
            saturation=0.0,
            corrections=np.broadcast_to(nothing, (rows, n_sentences)),
            trend=np.broadcast_to(nothing, n_sentences),
            variance_penalty=np.broadcast_to(nothing, (rows, rows)),
            specific=self._specific,
            common=self._common,
            shrinkage=shrinkage,
        )
