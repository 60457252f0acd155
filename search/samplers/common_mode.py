"""Common-mode shifts: what quantisation does to the outputs of all sentences alike.

If two layers' errors cancel on single sentences, that is mostly luck. If one layer moves all log-odds up and another
all of them down, they cancel on any sentences. So the two parts are kept apart, like the market and single shares in
a single-index model (Ledoit and Wolf, Journal of Empirical Finance 10 (2003)).

Notation, for n outputs, which are one of each sentence for two classes, and more for other heads:

- ``z``: FP32 outputs, ``(n,)``; ``p``: their means (:mod:`objectives.heads`), probabilities for classes.
- ``W``: the metric of the damage, ``diag(p (1 - p) / n)`` for two classes, and else with the curvature of each sentence
  in place of ``p (1 - p)``. To second order the damage of a shift ``s`` is ``s' W s / 2``.
- ``F = [1, z, tanh(z)]``: the common functions, ``(n, 3)``; three for each of a sentence's outputs. The last moves both
  classes apart or together.
- ``U S V' = W^(1/2) F``: its singular value decomposition, with ``W^(1/2) W^(1/2)' = W``.
- ``B = F V S^-1``: the basis, orthonormal in the metric, ``B' W B = I``.
- ``c = s W^(1/2) U``: the coefficients of a shift. ``|c|^2 / 2`` is the damage of its common part ``B c``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from objectives.heads import TWO_CLASSES, Head, Numbers
from objectives.scores import LogOdds

Floats = npt.NDArray[np.float32]

_SMALLEST = 1e-5  # of the largest singular value: functions that are equal on these sentences count once


class CommonModeShifts:
    """The space of common-mode shifts on some sentences.

    Attributes:
        basis: B, ``(n, n_functions)``; three functions of each output, fewer if some are equal on these sentences.
    """

    def __init__(self, fp32_log_odds: LogOdds, head: Head = TWO_CLASSES) -> None:
        """Make the basis for sentences with these outputs, ``(n_sentences, *head.shape)``."""
        exact = fp32_log_odds.astype(np.float64)
        curvature = head.curvature(head.means(fp32_log_odds).astype(np.float64))
        weights = np.sqrt(curvature.pivots / len(exact))[:, None]
        functions = _common_functions(exact, head)
        weighted = weights * curvature.mixed(functions.T).T
        left, values, right = np.linalg.svd(weighted, full_matrices=False)
        kept = values > _SMALLEST * values[0]
        self.basis = np.asarray(functions @ right[kept].T / values[kept], dtype=np.float32)
        self._projection = np.asarray(curvature.unmixed(weights * left[:, kept]), dtype=np.float32)

    def coefficients(self, shifts: Floats) -> Floats:
        """Return c of shifts ``(..., n)``, as ``(..., n_functions)``."""
        return np.asarray(shifts @ self._projection, dtype=np.float32)

    def project(self, shifts: Floats) -> Floats:
        """Return the common part B c of shifts ``(..., n)``, in the same shape."""
        return np.asarray(self.coefficients(shifts) @ self.basis.T, dtype=np.float32)


def _common_functions(outputs: npt.NDArray[np.float64], head: Head) -> npt.NDArray[np.float64]:
    """Return F of outputs ``(n_sentences, *head.shape)``: three functions of each output, zero at the others."""
    scales = np.sqrt(head.variances) if isinstance(head, Numbers) else 1.0  # so that tanh sees numbers without units
    functions = np.stack([np.ones_like(outputs), outputs, np.tanh(outputs / scales)], axis=-1)
    if not head.shape:
        return functions
    separate = functions[:, :, None, :] * np.eye(head.n_outputs)[:, :, None]
    return np.asarray(separate.reshape(outputs.size, -1))
