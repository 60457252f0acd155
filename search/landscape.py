"""A Bayesian model of damage over (layer, width) effects, local in size, and plausible landscapes drawn from it.

Damage is nearly additive over layers, with effects that grow together where maps get small. So around each size the
damage of a map is taken as a sum of one effect for each layer at its width, Gaussian around the layer's own sensitivity
times a common factor, and observed with an error in proportion to the damage and to the distance in size. This is
Bayesian linear regression; a draw from its posterior is a landscape to optimise (Thompson sampling: Thompson,
Biometrika 25 (1933); Russo et al., Foundations and Trends in Machine Learning 11 (2018)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.allocation import Damages

# Relative spreads: of an effect around its prior mean, and of a measured damage around the sum of effects.
_PRIOR_SPREAD = 0.5
_MISFIT = 0.07
_MISFIT_BY_DISTANCE = 1.0  # and so much more for each natural-log unit between the sizes
_NEAREST = 256
_SMALLEST_DAMAGE = 1e-7


@dataclass(frozen=True)
class Observations:
    """Evaluated maps.

    Attributes:
        choices: index of each layer's width, ``(n_maps, n_layers)``.
        damages: ``(n_maps,)``, nats a sentence.
        sizes: ``(n_maps,)``, in bits.
    """

    choices: npt.NDArray[np.int64]
    damages: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]

    def near(self, size: float) -> Observations:
        """Return the maps whose sizes are nearest in ratio, at most ``_NEAREST`` of them."""
        nearest = np.argsort(np.abs(np.log(self.sizes / size)), kind="stable")[:_NEAREST]
        return Observations(self.choices[nearest], self.damages[nearest], self.sizes[nearest])


@dataclass(frozen=True)
class Landscape:
    """The effects around one size: Gaussian, to be drawn from.

    Attributes:
        mean: prior mean of each effect, ``(n_layers, n_widths)``.
        near: the observations that count.
        noise: standard deviation of each observation's error, ``(n_maps,)``.
    """

    mean: Damages
    near: Observations
    noise: npt.NDArray[np.float64]

    def draw(self, rng: np.random.Generator, temperature: float) -> Damages:
        """Return effects ``(n_layers, n_widths)`` drawn from the posterior, falling with the width and not negative.

        By Matheron's rule: a draw from the prior, corrected by what the observations say of its error (Wilson et al.,
        JMLR 22 (2021), equation 8).

        Args:
            rng: where the randomness comes from.
            temperature: scales the posterior's standard deviations; 0 gives its mean, 1 a true draw.
        """
        n_layers, n_widths = self.mean.shape
        spread = _PRIOR_SPREAD * self.mean
        prior = self.mean + temperature * spread * rng.standard_normal(self.mean.shape)
        layers = np.arange(n_layers)
        picked = self.near.choices
        shown = prior[layers, picked].sum(axis=1) + temperature * self.noise * rng.standard_normal(len(self.noise))
        design = np.zeros((len(picked), n_layers * n_widths))
        design[np.arange(len(picked))[:, None], layers * n_widths + picked] = spread[layers, picked]
        gram = design @ design.T
        gram[np.diag_indices_from(gram)] += self.noise**2
        corrected = prior + spread * (design.T @ np.linalg.solve(gram, self.near.damages - shown)).reshape(prior.shape)
        # More bits never hurt, and no effect vanishes altogether: that would make its layer free.
        floored = np.maximum(corrected, 0.02 * self.mean)
        return np.maximum.accumulate(floored[:, ::-1], axis=1)[:, ::-1]


def landscape_at(size: float, sensitivities: Damages, observations: Observations) -> Landscape:
    """Return the landscape around a size.

    Args:
        size: in bits.
        sensitivities: damage of each layer alone, ``(n_layers, n_widths)``: the prior's shape.
        observations: every evaluated map, at least one.
    """
    near = observations.near(size)
    damages = np.maximum(near.damages, _SMALLEST_DAMAGE)
    near = Observations(near.choices, damages, near.sizes)
    distance = np.abs(np.log(near.sizes / size))
    prior = np.maximum(sensitivities, _SMALLEST_DAMAGE)
    summed = prior[np.arange(len(prior)), near.choices].sum(axis=1)
    # The factor by which damages here exceed the sums: a median, weighted by nearness and towards the better maps.
    weights = np.exp(-0.5 * (distance / 0.1) ** 2) / summed
    factor = _weighted_median(damages / summed, weights + 1e-300)
    return Landscape(factor * prior, near, damages * (_MISFIT + _MISFIT_BY_DISTANCE * distance))


def _weighted_median(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])
