"""The shrinkage weight: how far interactions between layers carry over to unseen sentences, by cross-validation.

A search that minimises the damage on some sentences finds layers whose errors cancel on them. Part of that holds on any
sentences, part is luck. The shares depend on the quantiser: GPTQ leaves hardly more than luck.

The weight w is that of :mod:`search.samplers.surrogate`. Both halves A, B of S splits of the sentences, and a few
budgets b, give

    L(w) = mean over (A, B, b) of log( D_B(x(w, A, b)) / D_B(x0(A, b)) )

with ``x0(A, b)`` the knapsack on A's sensitivities, ``x(w, A, b)`` the map that local search finds on A from there, and
``D_B`` the damage on B. In both, shifts simply add up: no map is evaluated. The weight chosen minimises L.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from objectives.heads import TWO_CLASSES, Head
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
    sensitivities: Sensitivities,
    fp32_log_odds: LogOdds,
    sizes: Sizes,
    budgets: Sequence[int],
    seed: int = 0,
    head: Head = TWO_CLASSES,
) -> float:
    """Return which of ``SHRINKAGES`` leads to the least damage on sentences that the maps were not chosen on.

    Half of the sentences tell less than all of them, so the weight is a little too low, which is the careful side. With
    fewer than 40 sentences it is 0.

    Args:
        sensitivities: the layers' shifts and damages on the sentences.
        fp32_log_odds: the FP32 model's outputs, ``(n_sentences, *head.shape)``.
        sizes: size of each layer at each width, ``(n_layers, n_widths)``.
        budgets: sizes to try, in the units of ``sizes``; at most three are used.
        seed: seed of the splits.
        head: of the model.
    """
    if len(fp32_log_odds) < _FEWEST_SENTENCES:
        return 0.0
    return SHRINKAGES[int(np.argmin(damages_elsewhere(sensitivities, fp32_log_odds, sizes, budgets, seed, head)))]


def damages_elsewhere(
    sensitivities: Sensitivities,
    fp32_log_odds: LogOdds,
    sizes: Sizes,
    budgets: Sequence[int],
    seed: int = 0,
    head: Head = TWO_CLASSES,
) -> npt.NDArray[np.float64]:
    """Return exp(L) of each of ``SHRINKAGES``, ``(n_shrinkages,)``: damage over the knapsack's; lower is better."""
    n_sentences = len(fp32_log_odds)
    tried = np.unique(np.linspace(0, len(budgets) - 1, _MOST_BUDGETS).astype(int))
    rng = np.random.default_rng(seed)
    logarithms = []
    for _ in range(_SPLITS):
        one, other = np.array_split(rng.permutation(n_sentences), 2)
        for chosen_on, judged_on in ((one, other), (other, one)):
            half = _Half(sensitivities, fp32_log_odds, chosen_on, head)
            judge = _Half(sensitivities, fp32_log_odds, judged_on, head)
            for index in tried:
                knapsack, *improved = (judge.damage(chosen) for chosen in half.maps(sizes, budgets[index]))
                logarithms.append(np.log(np.maximum(improved, 1e-12) / max(knapsack, 1e-12)))
    return np.asarray(np.exp(np.mean(logarithms, axis=0)))


class _Half:
    """Layers' shifts on half of the sentences, as if they simply added up."""

    def __init__(
        self, sensitivities: Sensitivities, fp32_log_odds: LogOdds, kept: npt.NDArray[np.int64], head: Head
    ) -> None:
        shifts = np.ascontiguousarray(sensitivities.shifts[:, :, kept])
        fp32 = fp32_log_odds[kept]
        on_half = Sensitivities.from_shifts(shifts, sensitivities.measured, fp32, head)
        self._head = head
        self._damages = on_half.damages
        self._common = CommonModeShifts(fp32, head)
        self._specific = specific_damages(on_half, fp32, self._common, head).ravel()
        self._fp32_log_odds = fp32.ravel()
        self._sums: Floats = shifts.reshape(on_half.damages.size, -1)

    def maps(self, sizes: Sizes, budget: int) -> list[Choice]:
        """Return the knapsack's map for a budget, then that map improved with each of ``SHRINKAGES``."""
        start = allocate(self._damages, sizes, budget)
        return [start, *(search_locally(self._surrogate(w), sizes, start, budget)[1] for w in SHRINKAGES)]

    def damage(self, chosen: Choice) -> float:
        """Return the damage of a map on these sentences, in nats a sentence."""
        return self._surrogate(1.0).damage(chosen)

    def _surrogate(self, shrinkage: float) -> Surrogate:
        rows, n_outputs = self._sums.shape
        zero = np.zeros(1, dtype=np.float32)
        return Surrogate(
            fp32_log_odds=self._fp32_log_odds,
            sums=self._sums,
            saturation=0.0,
            corrections=np.broadcast_to(zero, (rows, n_outputs)),
            trend=np.broadcast_to(zero, n_outputs),
            variance_penalty=np.broadcast_to(zero, (rows, rows)),
            specific=self._specific,
            common=self._common,
            shrinkage=shrinkage,
            head=self._head,
        )
