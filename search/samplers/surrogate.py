"""The surrogate: a Gaussian process that predicts the damage (mean KL divergence from FP32) of any bit map.

A map's shift is the vector by which it moves the sentences' outputs away from FP32's. To first order it is the sum of
its layers' own shifts, so the sensitivities alone give all pairwise interactions: shifts that point the same way
amplify each other, opposite ones cancel. The rest, the shift less that sum, is a Gaussian process over maps with one
kernel for all sentences, so its posterior is one linear solve (Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, equation 2.25; several outputs of one kernel: Bonilla et al., NeurIPS 2007).

Notation, for n outputs (flat; one of each sentence for two classes) and N evaluated maps; an effect is a (layer, width)
pair, E of them:

- ``z``: FP32 outputs, ``(n,)``; ``D(s)``: mean KL divergence of ``z + s`` from ``z``, the damage of a shift ``s``.
- ``M``: the layers' own shifts (``sums``), ``(E, n)``; ``x``: a map as an indicator of its effects, ``(E,)``.
- ``m = M'x``: the summed shift of a map; ``rms``: root mean square over sentences.
- ``alpha``: saturation. Large sums come out smaller, by the damping ``1 / sqrt(1 + alpha rms(m)^2)``.
- ``C``: corrections of the effects, ``(E, n)``; prior deviation ``sigma_k`` (``spread``), a share of ``rms(M_k)``.
- ``t``: the trend, which maps of about one size share, ``(n,)``; prior deviation ``tau``, a share of ``rms(m)``.
- ``s(x) = m / sqrt(1 + alpha rms(m)^2) + C'x + t``: the shift of a map.
- ``X``: indicators of the evaluated maps times sigma (``scaled``), ``(N, E)``; ``u``: logarithms of their sizes.
- ``K_ij = (X X')_ij + tau_i tau_j exp(-|u_i - u_j|) + delta_ij noise_i^2``: the kernel, ``(N, N)``.
- ``H``: the inverse of K's Cholesky factor, so that ``H'H = K^-1`` (``half``); ``R``: the maps' residual shifts,
  ``(N, n)``. The posterior of C has the mean ``diag(sigma) (H X)' H R``.
- ``Q``: the variance penalty, ``(E, E)``: C's posterior covariance times the damage's mean curvature. To second
  order, what is unknown of C adds ``x'Q x / 2`` to the expected damage.

Maps that differ little share most of their noise too. So the surrogate is moved to pass through the search's start, and
``x`` in the penalty is then the difference from it.

What cancels on a thousand sentences need not cancel on others: about a hundred sentences make up most of the damage.
The damage to expect on unseen sentences therefore shrinks the interactions between layers,

    w D(s) + (1 - w) (D(P s) + sum over the map's layers of d)

with ``P s`` the common part of s (:mod:`search.samplers.common_mode`), ``d`` a layer's specific damage, ``D(M_k) -
D(P M_k)``, and ``w`` the shrinkage weight, found by cross-validation (:mod:`search.samplers.shrinkage`). This is the
shrinkage of a covariance towards one of few factors (Ledoit and Wolf, Journal of Empirical Finance 10 (2003)).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from objectives.heads import TWO_CLASSES, Head
from objectives.scores import LogOdds
from search.allocation.knapsack import Choice
from search.allocation.sensitivity import Sensitivities
from search.samplers.common_mode import CommonModeShifts, Floats

# Standard deviations as shares of an rms. Fitted by marginal likelihood to 216 maps of a 12-layer BERT on CoLA between
# 5.5x and 16x, over a coarse grid.
_EFFECT_SPREAD = 0.5
_TREND_SPREAD = 0.3
_NOISE = 0.1
_SMALLEST_NOISE = 1e-3  # nats
_SATURATIONS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_DIRECTIONS = 64
_CLOSEST = 5
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class Observations:
    """Evaluated maps.

    Attributes:
        choices: index of each layer's width, ``(n_maps, n_layers)``.
        shifts: outputs less FP32's, flat, ``(n_maps, n)``.
        sizes: ``(n_maps,)``, in bits.
    """

    choices: npt.NDArray[np.int64]
    shifts: Floats
    sizes: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Surrogate:
    """The mean or a draw of the posterior around one size: predicts the shift and the damage of any map.

    Attributes:
        fp32_log_odds: z, ``(n,)``.
        sums: M, ``(n_layers * n_widths, n)``.
        saturation: alpha, in 1 / nats^2.
        corrections: C, ``(n_layers * n_widths, n)``.
        trend: t, ``(n,)``.
        variance_penalty: Q, ``(n_layers * n_widths, n_layers * n_widths)``.
        specific: d, the specific damage of each effect, ``(n_layers * n_widths,)``, nats a sentence.
        common: the common-mode shifts.
        shrinkage: w, the weight of interactions between layers, 0 to 1; at 0 only common parts cancel.
        origin: the evaluated map that the surrogate passes through; None if there is none.
        head: of the model.
    """

    fp32_log_odds: LogOdds
    sums: Floats
    saturation: float
    corrections: Floats
    trend: Floats
    variance_penalty: Floats
    specific: Floats
    common: CommonModeShifts
    shrinkage: float
    origin: Choice | None = None
    head: Head = TWO_CLASSES

    def passing_through(self, evaluated: Choice, shift: Floats) -> Surrogate:
        """Return the surrogate moved to pass through an evaluated map with this shift, ``(n,)``."""
        trend = self.trend + (shift - self.shift(evaluated))
        return replace(self, trend=np.asarray(trend, dtype=np.float32), origin=evaluated)

    def shift(self, chosen: Choice) -> Floats:
        """Return the shift s of a map, ``(n,)``."""
        summed, damping = self._damped_sum(chosen)
        corrections = self.corrections[self.rows(chosen)].sum(axis=0)
        return np.asarray(damping * summed + corrections + self.trend, dtype=np.float32)

    def effects(self, chosen: Choice) -> Floats:
        """Return the derivatives of the shift by x at a map, ``(n_layers * n_widths, n)``.

        The shift of a map nearby is the map's shift, less the effects that it gives up, plus those that it takes.
        """
        summed, damping = self._damped_sum(chosen)
        saturating = (damping**3 * self.saturation / len(summed)) * (self.sums @ summed)
        effects = np.empty_like(self.sums)
        for rows in blocks(effects):
            effects[rows] = damping * self.sums[rows] + self.corrections[rows] - np.outer(saturating[rows], summed)
        return effects

    def damage(self, chosen: Choice) -> float:
        """Return the damage to expect of a map on these sentences, in nats a sentence."""
        predicted = float(_damages(self.shift(chosen), self.fp32_log_odds, self.head))
        return predicted + self._penalty(chosen)

    def damage_elsewhere(self, chosen: Choice) -> float:
        """Return the damage to expect of a map on unseen sentences, in nats a sentence."""
        shift = self.shift(chosen)
        specific = float(self.specific[self.rows(chosen)].sum())
        expected = _expected_elsewhere(shift, specific, self.fp32_log_odds, self.common, self.shrinkage, self.head)
        return expected + self._penalty(chosen)

    def variance_penalty_slope(self, chosen: Choice) -> Floats:
        """Return the derivative of the variance penalty by x at a map, ``(n_layers * n_widths,)``."""
        slope = self.variance_penalty[self.rows(chosen)].sum(axis=0)
        if self.origin is not None:
            slope = slope - self.variance_penalty[self.rows(self.origin)].sum(axis=0)
        return np.asarray(slope)

    def rows(self, chosen: Choice) -> npt.NDArray[np.int64]:
        """Return the rows of a map's layers at their widths."""
        return _rows(chosen, len(self.sums) // len(chosen))

    def _penalty(self, chosen: Choice) -> float:
        """Return x'Q x / 2, in nats a sentence, with x less the origin's x if there is an origin."""
        slope = self.variance_penalty_slope(chosen)
        penalty = slope[self.rows(chosen)].sum()
        if self.origin is not None:
            penalty -= slope[self.rows(self.origin)].sum()
        return 0.5 * float(penalty)

    def _damped_sum(self, chosen: Choice) -> tuple[Floats, float]:
        """Return m of a map, ``(n,)``, and its damping."""
        summed = self.sums[self.rows(chosen)].sum(axis=0)
        return summed, 1.0 / np.sqrt(1.0 + self.saturation * np.mean(summed**2))


def specific_damages(
    sensitivities: Sensitivities, fp32_log_odds: LogOdds, common: CommonModeShifts, head: Head = TWO_CLASSES
) -> Floats:
    """Return d: the damage of each layer alone less that of its common part, ``(n_layers, n_widths)``."""
    shifts = sensitivities.shifts.reshape(*sensitivities.damages.shape, -1)
    common_damages = _damages(common.project(shifts), fp32_log_odds.ravel(), head)
    return np.asarray(np.maximum(sensitivities.damages - common_damages, 0.0), dtype=np.float32)


def _damages(shifts: Floats, fp32_log_odds: LogOdds, head: Head) -> npt.NDArray[np.float64]:
    """Return D of flat shifts ``(..., n)``, as ``(...)``, in nats a sentence."""
    moved, fp32 = head.shaped(fp32_log_odds + shifts), head.shaped(fp32_log_odds)
    return np.asarray(head.divergences(moved, fp32).mean(axis=-1))


def _expected_elsewhere(
    shift: Floats, specific: float, fp32_log_odds: LogOdds, common: CommonModeShifts, shrinkage: float, head: Head
) -> float:
    """Return w D(s) + (1 - w) (D(P s) + d), in nats a sentence, with d the sum over the map's layers."""
    shifts = np.stack([shift, common.project(shift)])
    whole, common_part = _damages(shifts, fp32_log_odds, head)
    return float(shrinkage * whole + (1.0 - shrinkage) * (common_part + specific))


class SurrogateModel:
    """The prior, made from sensitivities; it gives a posterior around any size.

    Attributes:
        fp32_log_odds, common, shrinkage, sums, head: as in ``Surrogate``.
        curvature: of each sentence's damage by its shift.
        spread: sigma, ``(n_layers * n_widths,)``.
        directions: standard normal numbers times these are plausible corrections, ``(n_directions, n)``.
    """

    def __init__(
        self, sensitivities: Sensitivities, fp32_log_odds: LogOdds, shrinkage: float, head: Head = TWO_CLASSES
    ) -> None:
        """Take the layers' own shifts as the prior mean of their effects."""
        n_layers, self._n_widths = sensitivities.damages.shape
        self.head = head
        self.fp32_log_odds = fp32_log_odds.ravel()
        self.shrinkage = shrinkage
        self.curvature = head.curvature(head.means(fp32_log_odds))
        self.common = CommonModeShifts(fp32_log_odds, head)
        self._specific = specific_damages(sensitivities, fp32_log_odds, self.common, head).ravel()
        self.sums = sensitivities.shifts.reshape(n_layers * self._n_widths, -1)
        self._mixed_sums = self.curvature.mixed(self.sums)
        self._common_coefficients = self.common.coefficients(self.sums)
        size = _rms(self.sums)
        self.spread = _EFFECT_SPREAD * size
        # Corrections are correlated over sentences as the effects themselves are: by their main directions.
        _, scales, directions = np.linalg.svd(self.sums / np.maximum(size, 1e-12)[:, None], full_matrices=False)
        scales, directions = scales[:_DIRECTIONS], directions[:_DIRECTIONS]
        self.directions = scales[:, None] * directions / np.sqrt((scales**2).sum() / self.fp32_log_odds.size)

    def damage_elsewhere(self, chosen: Choice, log_odds: LogOdds) -> float:
        """Return the damage to expect on unseen sentences of a map with these outputs, in nats a sentence."""
        specific = float(self._specific[_rows(chosen, self._n_widths)].sum())
        shift = log_odds.ravel() - self.fp32_log_odds
        return _expected_elsewhere(shift, specific, self.fp32_log_odds, self.common, self.shrinkage, self.head)

    def posterior(self, observations: Observations, size: float) -> Posterior:
        """Return the posterior around a size in bits, given at least one evaluated map."""
        distance = np.log(observations.sizes / size)
        count = len(distance)
        design = np.zeros((count, len(self.sums)), dtype=np.float32)
        design[np.arange(count)[:, None], _rows(observations.choices, self._n_widths)] = 1.0
        summed = design @ self.sums
        strength = _rms(summed)
        saturation = _saturation(summed, observations.shifts, strength)
        residual = observations.shifts - summed / np.sqrt(1.0 + saturation * strength**2)[:, None]

        scaled = design * self.spread
        noise = np.hypot(_NOISE * strength, _SMALLEST_NOISE)
        trend = _TREND_SPREAD * strength
        kernel = scaled @ scaled.T + np.diag(noise**2)
        kernel += np.outer(trend, trend) * np.exp(-np.abs(distance[:, None] - distance))
        half = np.linalg.inv(np.linalg.cholesky(kernel.astype(np.float64))).astype(np.float32)
        seen = half @ scaled
        solved = half @ residual.astype(np.float32)
        corrections = seen.T @ solved
        corrections *= self.spread[:, None]

        closest = np.argsort(np.abs(distance), kind="stable")[:_CLOSEST]
        trend_here = trend[closest].mean() * trend * np.exp(-np.abs(distance))
        return Posterior(
            model=self,
            saturation=saturation,
            corrections=corrections,
            trend=(trend_here @ half.T @ solved).astype(np.float32),
            scaled=scaled,
            noise=noise,
            half=half,
            seen=seen,
        )

    def specific_with(self, corrections: Floats) -> Floats:
        """Return d of each effect with its correction, to second order in the correction."""
        products = np.empty_like(corrections)
        for rows in blocks(products):
            mixed = self.curvature.mixed(corrections[rows])
            products[rows] = mixed * (2.0 * self._mixed_sums[rows] + mixed)
        changed = products @ self.curvature.pivots / len(self.curvature.traces)
        coefficients = self.common.coefficients(corrections)
        changed -= (coefficients * (2.0 * self._common_coefficients + coefficients)).sum(axis=1)
        return np.asarray(np.maximum(self._specific + 0.5 * changed, 0.0), dtype=np.float32)


@dataclass(frozen=True)
class Posterior:
    """The posterior around one size, from which surrogates are made.

    Attributes:
        model: the prior.
        saturation: alpha.
        corrections: the posterior mean of C, ``(n_layers * n_widths, n)``.
        trend: t at this size, ``(n,)``.
        scaled: X, ``(n_maps, n_layers * n_widths)``.
        noise: standard deviation of each map's noise, ``(n_maps,)``.
        half: H, ``(n_maps, n_maps)``.
        seen: H X, ``(n_maps, n_layers * n_widths)``.
    """

    model: SurrogateModel
    saturation: float
    corrections: Floats
    trend: Floats
    scaled: Floats
    noise: Floats
    half: Floats
    seen: Floats

    def draw(self, rng: np.random.Generator, temperature: float) -> Surrogate:
        """Return a surrogate between the posterior mean and a posterior sample.

        Args:
            rng: source of randomness.
            temperature: scales the posterior's standard deviations. 0 gives the mean with the whole variance penalty, 1
                a sample without penalty (Thompson sampling: Russo et al., Foundations and Trends in Machine Learning 11
                (2018)). The trend keeps its mean, as it moves all maps of a size alike; that takes up to a sixth of a
                sample's variance, and at most a tenth of the variance of what an exchange changes.
        """
        model, corrections = self.model, self.corrections
        if temperature > 0:
            corrections = corrections + self._deviation(rng, temperature)
        variance_penalty = max(0.0, 1.0 - temperature**2) * model.curvature.traces.mean() * self._covariance
        return Surrogate(
            fp32_log_odds=model.fp32_log_odds,
            sums=model.sums,
            saturation=self.saturation,
            corrections=corrections.astype(np.float32, copy=False),
            trend=self.trend,
            variance_penalty=variance_penalty.astype(np.float32),
            specific=model.specific_with(corrections),
            common=model.common,
            shrinkage=model.shrinkage,
            head=model.head,
        )

    def _deviation(self, rng: np.random.Generator, temperature: float) -> Floats:
        """Return how a sample of C deviates from its mean, ``(n_layers * n_widths, n)``.

        By Matheron's rule: a draw from the prior, less what the observations correct of it (Wilson et al., JMLR 22
        (2021), equation 8).
        """
        spread, directions = self.model.spread, self.model.directions
        drawn = rng.standard_normal((len(spread), len(directions)), dtype=np.float32)
        errors = rng.standard_normal((len(self.noise), len(directions)), dtype=np.float32)
        corrected = drawn - self.seen.T @ (self.half @ (self.scaled @ drawn + self.noise[:, None] * errors))
        return np.asarray(temperature * (spread[:, None] * corrected) @ directions)

    @cached_property
    def _covariance(self) -> Floats:
        """The posterior covariance of C over effects."""
        spread = self.model.spread
        seen = self.seen * spread
        return np.asarray(np.diag(spread**2) - seen.T @ seen)


def _saturation(summed: Floats, shifts: Floats, strength: Floats) -> float:
    """Return the alpha that fits best; errors count in proportion to the sums, so that no map outweighs the others."""
    dampings = 1.0 / np.sqrt(1.0 + np.multiply.outer(_SATURATIONS, strength**2))
    # |shift - damping * summed|^2 / |summed|^2, less the term without the damping.
    along = np.einsum("ns,ns->n", shifts, summed) / np.maximum(np.einsum("ns,ns->n", summed, summed), 1e-12)
    return _SATURATIONS[int(np.argmin((dampings**2 - 2 * dampings * along).sum(axis=1)))]


def blocks(matrix: Floats) -> Iterator[slice]:
    """Yield the rows of a matrix in blocks that stay in the processor's cache through several operations."""
    size = max(1, _BLOCK_BYTES // max(matrix[:1].nbytes, 1))
    for start in range(0, len(matrix), size):
        yield slice(start, start + size)


def _rows(choices: npt.NDArray[np.int64], n_widths: int) -> npt.NDArray[np.int64]:
    return np.arange(choices.shape[-1]) * n_widths + choices


def _rms(vectors: Floats) -> Floats:
    return np.asarray(np.sqrt(np.mean(vectors**2, axis=-1, dtype=np.float64)), dtype=np.float32)
