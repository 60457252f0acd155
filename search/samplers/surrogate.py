"""A Bayesian model of what each layer's width does to each sentence, learned from every map that was evaluated.

A map's shift is the vector by which it moves the log-odds of the sentences away from FP32's. To first order it is the
sum of its layers' own shifts, so damages add up only where those are unrelated; where they point the same way they
multiply, and where they oppose each other they cancel. All pairwise interactions of that kind are therefore known from
the sensitivities alone. What remains, the shift of a map less that sum, is a Gaussian process over maps, the same for
every sentence: an error of each (layer, width) effect in proportion to its size, a trend that maps of about the same
size share, and noise, which is what each map has for itself. Its posterior is one linear solve for all sentences
together (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 2.25; several outputs of one
kernel: Bonilla et al., NeurIPS 2007). Maps that differ little have most of the noise in common too, so a landscape is
moved to pass through the map from which it is searched.

What cancels on a thousand sentences need not cancel on others: damage is so uneven that about a hundred sentences make
up most of it. What a map is expected to do elsewhere is therefore a mean of what the summed shifts do here and of what
is left when only what layers do to all sentences alike (:mod:`search.samplers.common_mode`) can cancel and the rest of
each does its damage alone. The weight of the former is found by cross-validation
(:mod:`search.samplers.shrinkage`): the shrinkage of a covariance towards
one of few factors (Ledoit and Wolf, Journal of Empirical Finance 10 (2003)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from objectives.scores import LogOdds, divergences
from search.allocation.knapsack import Choice
from search.allocation.sensitivity import Sensitivities
from search.samplers.common_mode import CommonModeShifts, Floats, sigmoid

# In proportion to the root mean square over sentences of what they are errors of. Fitted by marginal likelihood to 216
# maps of a 12-layer BERT on CoLA between 5.5x and 16x, over a coarse grid.
_EFFECT_SPREAD = 0.5
_TREND_SPREAD = 0.3
_NOISE = 0.1
_SMALLEST_NOISE = 1e-3  # nats
_SATURATIONS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_DIRECTIONS = 64
_CLOSEST = 5


@dataclass(frozen=True)
class Observations:
    """Evaluated maps.

    Attributes:
        choices: index of each layer's width, ``(n_maps, n_layers)``.
        shifts: log-odds less FP32's, ``(n_maps, n_sentences)``.
        sizes: ``(n_maps,)``, in bits.
    """

    choices: npt.NDArray[np.int64]
    shifts: Floats
    sizes: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Surrogate:
    """Plausible shifts of maps around one size, to be searched for one of little damage.

    With m the sum of a map's ``sums``, its shift is m / sqrt(1 + saturation * mean(m^2)), plus its ``corrections`` and
    the ``trend``.

    Attributes:
        fp32_log_odds: ``(n_sentences,)``.
        sums: each layer's own shift at each width, ``(n_layers * n_widths, n_sentences)``.
        saturation: how much smaller large sums come out, in 1 / nats^2.
        corrections: what the layers do besides, ``(n_layers * n_widths, n_sentences)``.
        trend: what all maps have in common, ``(n_sentences,)``.
        variance_penalty: ``(n_layers * n_widths, n_layers * n_widths)``. The damage to expect from what is not known is
            half the sum of its entries for each pair of a map's layers, or of what they change if there is an
            ``origin``.
        specific: the damage of each layer alone at each width, less that of what it does to all sentences alike,
            ``(n_layers * n_widths,)``, nats a sentence.
        common: shifts of all sentences alike.
        shrinkage: the weight of interactions between layers, 0..1; at 0 only what layers do to all sentences alike
            cancels, and the rest of each counts alone.
        origin: the evaluated map that it passes through, where there is one.
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

    def through(self, evaluated: Choice, shift: Floats) -> Surrogate:
        """Return the landscape moved to pass through an evaluated map with this shift, ``(n_sentences,)``."""
        trend = self.trend + (shift - self.shift(evaluated))
        return replace(self, trend=np.asarray(trend, dtype=np.float32), origin=evaluated)

    def shift(self, chosen: Choice) -> Floats:
        """Return the shift of a map, ``(n_sentences,)``."""
        summed, damping = self._damped_sum(chosen)
        corrections = self.corrections[self.rows(chosen)].sum(axis=0)
        return np.asarray(damping * summed + corrections + self.trend, dtype=np.float32)

    def effects(self, chosen: Choice) -> Floats:
        """Return the derivative of the shift by each layer and width at a map, ``(n_layers * n_widths, n_sentences)``.

        The shift of a map nearby is that of the map, less the effects of widths it gives up, plus those it takes.
        """
        summed, damping = self._damped_sum(chosen)
        growing = (damping**3 * self.saturation / len(summed)) * (self.sums @ summed)
        return np.asarray(damping * self.sums + self.corrections - np.outer(growing, summed), dtype=np.float32)

    def damage(self, chosen: Choice) -> float:
        """Return the damage to expect of a map on these sentences, in nats a sentence."""
        together = float(divergences(self.fp32_log_odds + self.shift(chosen), self.fp32_log_odds).mean())
        return together + self._unknown(chosen)

    def damage_elsewhere(self, chosen: Choice) -> float:
        """Return the damage to expect of a map on other sentences like these, in nats a sentence."""
        shift = self.shift(chosen)
        specific = float(self.specific[self.rows(chosen)].sum())
        expected = _expected_elsewhere(shift, specific, self.fp32_log_odds, self.common, self.shrinkage)
        return expected + self._unknown(chosen)

    def variance_penalty_slope(self, chosen: Choice) -> Floats:
        """Return the derivative of the damage from what is not known by each layer and width, as ``effects``."""
        return (
            self._variance_penalty_of(chosen)
            if self.origin is None
            else self._variance_penalty_of(chosen) - self._variance_penalty_of(self.origin)
        )

    def rows(self, chosen: Choice) -> npt.NDArray[np.int64]:
        """Return the rows of a map's layers at their widths."""
        return _rows(chosen, len(self.sums) // len(chosen))

    def _variance_penalty_of(self, chosen: Choice) -> Floats:
        return np.asarray(self.variance_penalty[self.rows(chosen)].sum(axis=0))

    def _unknown(self, chosen: Choice) -> float:
        slope = self.variance_penalty_slope(chosen)
        unknown = slope[self.rows(chosen)].sum()
        if self.origin is not None:
            unknown -= slope[self.rows(self.origin)].sum()
        return 0.5 * float(unknown)

    def _damped_sum(self, chosen: Choice) -> tuple[Floats, float]:
        """Return the sum of a map's own shifts, ``(n_sentences,)``, and by how much smaller it comes out."""
        summed = self.sums[self.rows(chosen)].sum(axis=0)
        return summed, 1.0 / np.sqrt(1.0 + self.saturation * np.mean(summed**2))


def specific_damages(sensitivities: Sensitivities, fp32_log_odds: LogOdds, common: CommonModeShifts) -> Floats:
    """Return the damage of each layer alone, ``(n_layers, n_widths)``, less that of what it does to all alike."""
    alike = divergences(fp32_log_odds + common.of(sensitivities.shifts), fp32_log_odds).mean(axis=-1)
    return np.asarray(np.maximum(sensitivities.damages - alike, 0.0), dtype=np.float32)


def _expected_elsewhere(
    shift: Floats, specific: float, fp32_log_odds: LogOdds, common: CommonModeShifts, shrinkage: float
) -> float:
    """Return the damage to expect on other sentences, in nats a sentence, of a map that shifts these by ``shift``.

    Args:
        shift: ``(n_sentences,)``.
        specific: the sum of its layers' specific damages.
        fp32_log_odds: ``(n_sentences,)``.
        common: of these sentences.
        shrinkage: as in ``Surrogate``.
    """
    together, alike = divergences(fp32_log_odds + np.stack([shift, common.of(shift)]), fp32_log_odds).mean(axis=-1)
    return float(shrinkage * together + (1.0 - shrinkage) * (alike + specific))


class SurrogateModel:
    """The prior, from sensitivities; given observations it tells what is plausible around any size.

    Attributes:
        fp32_log_odds, common, trust, sums: as in ``Surrogate``.
        curvature: second derivative of each sentence's damage by its shift, ``(n_sentences,)``.
        spread: prior standard deviation of each effect's error, ``(n_layers * n_widths,)``.
        directions: standard normal numbers times these are plausible errors, ``(n_directions, n_sentences)``.
    """

    def __init__(self, sensitivities: Sensitivities, fp32_log_odds: LogOdds, shrinkage: float) -> None:
        """Take the layers' own shifts as the prior mean of what they do."""
        n_layers, self._n_widths, n_sentences = sensitivities.shifts.shape
        self.fp32_log_odds = fp32_log_odds
        self.shrinkage = shrinkage
        probability = sigmoid(fp32_log_odds)
        self.curvature = probability * (1.0 - probability)
        self.common = CommonModeShifts(fp32_log_odds)
        self._specific = specific_damages(sensitivities, fp32_log_odds, self.common).ravel()
        self.sums = sensitivities.shifts.reshape(n_layers * self._n_widths, n_sentences)
        self._alike = self.common.coefficients(self.sums)
        size = _rms(self.sums)
        self.spread = _EFFECT_SPREAD * size
        # How errors of effects hang together over sentences: as the effects themselves do, by their main directions.
        _, scales, directions = np.linalg.svd(self.sums / np.maximum(size, 1e-12)[:, None], full_matrices=False)
        scales, directions = scales[:_DIRECTIONS], directions[:_DIRECTIONS]
        self.directions = scales[:, None] * directions / np.sqrt((scales**2).sum() / n_sentences)

    def damage_elsewhere(self, chosen: Choice, log_odds: LogOdds) -> float:
        """Return the damage to expect on other sentences of a map with these log-odds here, in nats a sentence."""
        specific = float(self._specific[_rows(chosen, self._n_widths)].sum())
        shift = log_odds - self.fp32_log_odds
        return _expected_elsewhere(shift, specific, self.fp32_log_odds, self.common, self.shrinkage)

    def given(self, observations: Observations, size: float) -> Posterior:
        """Return what evaluated maps, at least one, of about a size in bits leave plausible around it."""
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
        # With L L' the kernel and H the inverse of L, all that is asked of the kernel's inverse H' H is asked of H.
        half = np.linalg.inv(np.linalg.cholesky(kernel.astype(np.float64))).astype(np.float32)
        seen = half @ scaled
        solved = half @ residual.astype(np.float32)

        closest = np.argsort(np.abs(distance), kind="stable")[:_CLOSEST]
        trend_here = trend[closest].mean() * trend * np.exp(-np.abs(distance))
        return Posterior(
            model=self,
            saturation=saturation,
            corrections=self.spread[:, None] * (seen.T @ solved),
            trend=(trend_here @ half.T @ solved).astype(np.float32),
            scaled=scaled,
            noise=noise,
            half=half,
            seen=seen,
        )

    def specific_with(self, corrections: Floats) -> Floats:
        """Return the specific damage of each layer with its correction, to second order in the correction."""
        changed = (corrections * (2.0 * self.sums + corrections)) @ self.curvature / len(self.curvature)
        changed_alike = self.common.coefficients(corrections)
        changed -= (changed_alike * (2.0 * self._alike + changed_alike)).sum(axis=1)
        return np.asarray(np.maximum(self._specific + 0.5 * changed, 0.0), dtype=np.float32)


@dataclass(frozen=True)
class Posterior:
    """What a model and some evaluated maps leave plausible around one size; landscapes are made of it.

    Attributes:
        model: the prior.
        saturation: as in ``Surrogate``.
        corrections: their mean, ``(n_layers * n_widths, n_sentences)``.
        trend: as in ``Surrogate``.
        scaled: which effects each map has, times their spread, ``(n_maps, n_layers * n_widths)``.
        noise: of each map, ``(n_maps,)``.
        half: a matrix H with H' H the inverse of the maps' kernel, ``(n_maps, n_maps)``.
        seen: H times ``scaled``.
    """

    model: SurrogateModel
    saturation: float
    corrections: Floats
    trend: Floats
    scaled: Floats
    noise: Floats
    half: Floats
    seen: Floats

    def surrogate(self, rng: np.random.Generator, temperature: float) -> Surrogate:
        """Return a plausible landscape.

        Drawn by Matheron's rule: a draw from the prior, corrected by what the observations say of its error (Wilson et
        al., JMLR 22 (2021), equation 8).

        Args:
            rng: where the randomness comes from.
            temperature: scales the posterior's standard deviations; 0 gives its mean, with all that is unknown as
                ``variance_penalty``, 1 a draw, which has none (Thompson sampling: Russo et al., Foundations and Trends
                in Machine Learning 11 (2018)). The trend is not drawn, as it moves all maps of a size alike;
                that takes up to a sixth of a draw's variance, and a tenth at most of what exchanges have of it.
        """
        model, corrections = self.model, self.corrections
        if temperature > 0:
            corrections = corrections + self._drawn(rng, temperature)
        variance_penalty = max(0.0, 1.0 - temperature**2) * model.curvature.mean() * self._covariance
        return Surrogate(
            fp32_log_odds=model.fp32_log_odds,
            sums=model.sums,
            saturation=self.saturation,
            corrections=corrections.astype(np.float32),
            trend=self.trend,
            variance_penalty=variance_penalty.astype(np.float32),
            specific=model.specific_with(corrections),
            common=model.common,
            shrinkage=model.shrinkage,
        )

    def _drawn(self, rng: np.random.Generator, temperature: float) -> Floats:
        """Return what a draw's corrections are besides their mean."""
        spread, directions = self.model.spread, self.model.directions
        drawn = rng.standard_normal((len(spread), len(directions)), dtype=np.float32)
        errors = rng.standard_normal((len(self.noise), len(directions)), dtype=np.float32)
        corrected = drawn - self.seen.T @ (self.half @ (self.scaled @ drawn + self.noise[:, None] * errors))
        return np.asarray(temperature * (spread[:, None] * corrected) @ directions)

    @cached_property
    def _covariance(self) -> Floats:
        spread = self.model.spread
        seen = self.seen * spread
        return np.asarray(np.diag(spread**2) - seen.T @ seen)


def _saturation(summed: Floats, shifts: Floats, strength: Floats) -> float:
    """Return the saturation that fits best, in proportion to the sums so that no map outweighs the others."""
    dampings = 1.0 / np.sqrt(1.0 + np.multiply.outer(_SATURATIONS, strength**2))
    # |shift - damping * summed|^2 / |summed|^2, but for what does not depend on the damping.
    along = np.einsum("ns,ns->n", shifts, summed) / np.maximum(np.einsum("ns,ns->n", summed, summed), 1e-12)
    return _SATURATIONS[int(np.argmin((dampings**2 - 2 * dampings * along).sum(axis=1)))]


def _rows(choices: npt.NDArray[np.int64], n_widths: int) -> npt.NDArray[np.int64]:
    return np.arange(choices.shape[-1]) * n_widths + choices


def _rms(vectors: Floats) -> Floats:
    return np.asarray(np.sqrt(np.mean(vectors**2, axis=-1, dtype=np.float64)), dtype=np.float32)
