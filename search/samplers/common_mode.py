"""Common-mode shifts: what quantisation does to the log-odds of all sentences alike.

If two layers' errors cancel on single sentences, that is mostly luck. If one layer moves all log-odds up and another
all of them down, they cancel on any sentences. So the two parts are kept apart, like the market and single shares in
a single-index model (Ledoit and Wolf, Journal of Empirical Finance 10 (2003)).

Notation, for n sentences:

- ``z``: FP32 log-odds, ``(n,)``; ``p = sigmoid(z)``.
- ``W = diag(p (1 - p) / n)``: the metric of the damage. To second order the damage of a shift ``s`` is ``s' W s / 2``.
- ``F = [1, z, tanh(z)]``: the common functions, ``(n, 3)``. The last moves both classes apart or together.
- ``U S V' = W^(1/2) F``: its singular value decomposition.
- ``B = F V S^-1``: the basis, orthonormal in the metric, ``B' W B = I``.
- ``c = s W^(1/2) U``: the coefficients of a shift. ``|c|^2 / 2`` is the damage of its common part ``B c``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from objectives.scores import LogOdds

Floats = npt.NDArray[np.float32]

_SMALLEST = 1e-5  # of the largest singular value: functions that are equal on these sentences count once


def sigmoid(x: Floats) -> Floats:
    """Return the probability of each log-odds."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float32)


class CommonModeShifts:
    """The space of common-mode shifts on some sentences.

    Attributes:
        basis: B, ``(n_sentences, n_functions)``; three functions, fewer if some are equal on these sentences.
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
        """Return c of shifts ``(..., n_sentences)``, as ``(..., n_functions)``."""
        return np.asarray(shifts @ self._projection, dtype=np.float32)

    def project(self, shifts: Floats) -> Floats:
        """Return the common part B c of shifts ``(..., n_sentences)``, in the same shape."""
        return np.asarray(self.coefficients(shifts) @ self.basis.T, dtype=np.float32)
