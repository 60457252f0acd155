"""The seeded bootstrap over sentences: shared draws for all maps, and BCa intervals.

Notation, for a statistic t of one map, such as its mean loss:
    t: on the sentences; t*: on each of B draws with replacement within strata; t_(i): without sentence i (jackknife).
    Phi: the normal distribution function. G(x): the share of t* below x, ties counted half.
    z0 = Phi^-1(G(t)): the bias correction.
    u_i = (n_h - 1) (mean of t_(j) over j in h - t_(i)) / n_h: the influence of sentence i, in stratum h of size n_h.
    a = sum u_i^3 / (6 (sum u_i^2)^1.5): the acceleration. se = sqrt(sum u_i^2): the standard error.
    With y = z0 + Phi^-1(p), the end of the interval at level p is the quantile of t* at Phi(z0 + y / (1 - a y)).
    Where all values are equal, the draws have no spread. Then one more sentence, of the worst value possible, stands
    for what was not seen: it gets the weight w ~ Beta(1, n).

B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987), equations 2.3 and 4.1; for several strata T. J.
DiCiccio and B. Efron, "Bootstrap confidence intervals", Statistical Science 11 (1996), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from objectives.scores import Labels

CONFIDENCE = 0.95
RESAMPLES = 4000

Floats = npt.NDArray[np.float64]
Strata = npt.NDArray[np.int64]

_NORMAL = NormalDist()
_CHUNK = 512  # resamples at a time: bounds the memory at tens of MB for 10,000 sentences


@dataclass(frozen=True)
class Interval:
    """A closed interval in the units of its score.

    Raises:
        ValueError: ``low`` is above ``high``, or one is NaN.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval needs low <= high, not {self.low} and {self.high}")


def strata_of(labels: Labels, in_domain: npt.NDArray[np.bool_] | None) -> Strata:
    """Return each sentence's stratum, ``(n_sentences,)``: its class if it has one, and its domain if known."""
    inside = np.zeros(len(labels), dtype=np.int64) if in_domain is None else in_domain.astype(np.int64)
    return 2 * labels.astype(np.int64) + inside if labels.ndim == 1 and labels.dtype.kind in "iu" else inside


@dataclass(frozen=True)
class Resamples:
    """Draws of the sentences, with replacement within each stratum.

    Attributes:
        strata: ``(n_sentences,)``; every draw has as many sentences of each stratum as the data.
        counts: how often each sentence was drawn, ``(n_resamples, n_sentences)``.
    """

    strata: Strata
    counts: npt.NDArray[np.uint8]

    @classmethod
    def draw(
        cls,
        labels: Labels,
        in_domain: npt.NDArray[np.bool_] | None = None,
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> Resamples:
        """Return new draws; the same seed gives the same ones.

        Raises:
            ValueError: there is no sentence, or ``in_domain`` is not of the labels' shape.
        """
        if not labels.ndim or not labels.size:
            raise ValueError(f"labels must be of at least one sentence, not {labels.shape}")
        if in_domain is not None and in_domain.shape != labels.shape[:1]:
            raise ValueError(f"labels and in_domain must have the same shape, not {labels.shape} and {in_domain.shape}")
        strata = strata_of(labels, in_domain)
        random = np.random.default_rng(seed)
        counts = np.zeros((resamples, len(labels)), dtype=np.uint8)
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            for rows in _chunks(resamples):
                drawn = random.integers(members.size, size=(rows.stop - rows.start, members.size))
                drawn += np.arange(len(drawn))[:, np.newaxis] * members.size
                flat = np.bincount(drawn.ravel(), minlength=drawn.size)
                counts[rows, members] = np.minimum(flat, 255).reshape(drawn.shape)
        return cls(strata, counts)

    def mean(self, values: Floats) -> Bootstrapped:
        """Return the means of values ``(n_maps, n_sentences)``, on the sentences and on each draw."""
        self._check(values)
        count = values.shape[1]
        replicates = self._sums(values) / count
        totals = values.sum(axis=1, keepdims=True)
        return Bootstrapped(totals[:, 0] / count, replicates, (totals - values) / max(count - 1, 1), self.strata)

    def _check(self, values: npt.NDArray[np.generic]) -> None:
        if values.ndim != 2 or values.shape[1] != self.strata.size:
            raise ValueError(f"values must have shape (n_maps, {self.strata.size}), not {values.shape}")

    def _sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """Return the sums of ``(n_maps, n_sentences)`` over each draw, ``(n_resamples, n_maps)``."""
        sums = np.empty((len(self.counts), len(values)))
        columns = values.T.astype(np.float64)
        for rows in _chunks(len(self.counts)):
            sums[rows] = np.matmul(self.counts[rows].astype(np.float64), columns)
        return sums


@dataclass(frozen=True)
class Bootstrapped:
    """A statistic of maps on the sentences and on each draw. Subtracting two on the same draws pairs the sentences.

    Attributes:
        point: ``(n_maps,)``, on the sentences.
        replicates: ``(n_resamples, n_maps)``, on each draw.
        jackknife: ``(n_maps, n_sentences)``, without that one sentence.
        strata: ``(n_sentences,)``.
    """

    point: Floats
    replicates: Floats
    jackknife: Floats
    strata: Strata

    def __len__(self) -> int:
        return len(self.point)

    def __sub__(self, other: Bootstrapped) -> Bootstrapped:
        """Return the paired differences; a single map on one side is compared with each of the other."""
        return Bootstrapped(
            self.point - other.point,
            self.replicates - other.replicates,
            self.jackknife - other.jackknife,
            self.strata,
        )

    def intervals(self, worst: float | None = None) -> list[Interval]:
        """Return the 95% BCa interval of each map.

        Args:
            worst: the worst value that a sentence can have, for means of losses; for those without spread the interval
                then ends where one unseen sentence of that value could take them. None leaves them their point.
        """
        tail = (1 - CONFIDENCE) / 2
        biases, accelerations = self._corrections()
        intervals = []
        for at, (bias, acceleration) in enumerate(zip(biases, accelerations, strict=True)):
            if worst is not None and np.ptp(self.replicates[:, at]) == 0:
                intervals.append(_without_spread(float(self.point[at]), worst, self.strata.size))
                continue
            levels = []
            for level in (tail, 1 - tail):
                shifted = bias + _NORMAL.inv_cdf(level)
                levels.append(_NORMAL.cdf(bias + shifted / _positive(1 - acceleration * shifted)))
            low, high = np.quantile(self.replicates[:, at], levels)
            intervals.append(Interval(float(low), float(max(low, high))))
        return intervals

    def _corrections(self) -> tuple[list[float], list[float]]:
        """Return z0 and a of each map."""
        shares = _share_below(self.replicates, self.point)
        squares, cubes = self._moments()
        # Without spread, a = 0.
        accelerations = np.where(squares > 0, cubes / (6 * np.where(squares > 0, squares, 1.0) ** 1.5), 0.0)
        return [_quantile(share, len(self.replicates)) for share in shares], accelerations.tolist()

    def _moments(self) -> tuple[Floats, Floats]:
        """Return the sums of u_i^2 and of u_i^3, ``(n_maps,)`` each."""
        squares, cubes = np.zeros(len(self)), np.zeros(len(self))
        for stratum in np.unique(self.strata):
            values = self.jackknife[:, self.strata == stratum]
            count = values.shape[1]
            influence = (count - 1) * (values.mean(axis=1, keepdims=True) - values) / count
            squared = influence * influence
            squares += squared.sum(axis=1)
            cubes += np.einsum("ij,ij->i", squared, influence)
        return squares, cubes


def _without_spread(mean: float, worst: float, count: int) -> Interval:
    """Return the 95% interval of a mean of ``count`` equal losses, one more of which could be 0 or the worst."""
    weight = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)
    return Interval((1 - weight) * mean, (1 - weight) * mean + weight * max(worst, mean))


def _share_below(replicates: Floats, values: Floats) -> Floats:
    """Return G of each value."""
    below = np.count_nonzero(replicates < values, axis=0) + np.count_nonzero(replicates <= values, axis=0)
    return np.asarray(below / (2 * len(replicates)), dtype=np.float64)


def _quantile(share: float, resamples: int) -> float:
    """Return Phi^-1 of a share of the draws, at least half a draw away from 0 and 1."""
    edge = 0.5 / resamples
    return _NORMAL.inv_cdf(min(max(float(share), edge), 1 - edge))


def _positive(value: float) -> float:
    # Far out in the tails the formulas have a pole and change sign.
    return max(value, 1e-9)


def _chunks(total: int) -> Iterator[slice]:
    for start in range(0, total, _CHUNK):
        yield slice(start, min(start + _CHUNK, total))
