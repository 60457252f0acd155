"""What quantisation does to all sentences alike: it moves, stretches and squeezes their log-odds.

Layers whose errors cancel on single sentences mostly do so by luck, but where one moves all log-odds up and another all
of them down, that holds for any sentences. So what layers do to all alike is told from what they do to single ones, as
the market is from single shares in a single-index model (Ledoit and Wolf, Journal of Empirical Finance 10 (2003)).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from objectives.scores import LogOdds

Floats = npt.NDArray[np.float32]

_SMALLEST = 1e-5  # of the largest singular value: functions that are the same on these sentences count once


def sigmoid(x: Floats) -> Floats:
    """Return the probability of each log-odds."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float32)


class CommonModeShifts:
    """Shifts that are a constant, a multiple of the FP32 log-odds and a multiple of their hyperbolic tangent.

    The last moves both classes apart or together whatever the log-odds. Coefficients are of an orthonormal basis in the
    metric of the damage: half the sum of their squares is the damage of such a shift, to second order.

    Attributes:
        basis: ``(n_sentences, n_functions)``, as a rule three.
    """

    def __init__(self, fp32_log_odds: LogOdds) -> None:
        """Make the basis for sentences with these log-odds, ``(n_sentences,)``."""
        exact = fp32_log_odds.astype(np.float64)
        probability = sigmoid(fp32_log_odds).astype(np.float64)
        weights = np.sqrt(probability * (1.0 - probability) / len(exact))[:, None]
        functions = np.column_stack([np.ones_like(exact), exact, np.tanh(exact)])
        left, values, right = np.linalg.svd(weights * functions, full_matrices=False)
        kept = values > _SMALLEST * values[0]
        self.basis = np.asarray(functions @ right[kept].T / values[kept], dtype=np.float32)
        self._projection = np.asarray(weights * left[:, kept], dtype=np.float32)

    def coefficients(self, shifts: Floats) -> Floats:
        """Return the coefficients ``(..., n_functions)`` of such shifts in shifts ``(..., n_sentences)``."""
        return np.asarray(shifts @ self._projection, dtype=np.float32)

    def of(self, shifts: Floats) -> Floats:
        """Return what shifts ``(..., n_sentences)`` do to all sentences alike, in the same shape."""
        return np.asarray(self.coefficients(shifts) @ self.basis.T, dtype=np.float32)
