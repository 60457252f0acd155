"""A quantiser that bitfront does not offer, so that its table can say what it would bring.

Each layer has 2**bits codewords of its own, found by k-means over its weights, and a scale for each row (weights in few
FP32 groups: Zadeh et al., GOBO, MICRO 2020). It rounds to the nearest, as ``affine`` does; its codewords need not be
evenly spaced.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SAMPLE = 1 << 16
_ITERATIONS = 30


def codebook_weights(weight: Tensor, bits: int) -> Tensor:
    """Return the weights ``(rows, columns)`` that codebook quantisation would leave of ``weight``."""
    spread = weight.square().mean(dim=1, keepdim=True).sqrt()
    scale = torch.where(spread > 0, spread, torch.ones_like(spread))
    scaled = weight / scale
    codewords = k_means(scaled.flatten(), 2**bits)
    nearest = codewords[torch.bucketize(scaled, (codewords[1:] + codewords[:-1]) / 2)]
    # The scale that suits the codewords best, by least squares.
    fitted = (nearest * weight).sum(dim=1, keepdim=True) / nearest.square().sum(dim=1, keepdim=True)
    return nearest * torch.where(fitted.isfinite() & (fitted >= 0), fitted, scale)


def k_means(values: Tensor, count: int) -> Tensor:
    """Return ``count`` codewords, rising, of values ``(n,)``: Lloyd's algorithm from their quantiles."""
    sample = values if len(values) <= _SAMPLE else values[torch.linspace(0, len(values) - 1, _SAMPLE).long()]
    ordered = sample.double().sort().values
    codewords = ordered[((torch.arange(count) + 0.5) / count * len(ordered)).long()]
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(dim=0)])
    for _ in range(_ITERATIONS):
        inner = torch.searchsorted(ordered, (codewords[1:] + codewords[:-1]) / 2)
        bounds = torch.cat([torch.zeros(1, dtype=torch.long), inner, torch.tensor([len(ordered)])])
        members = bounds.diff()
        means = sums[bounds].diff() / members
        codewords = torch.where(members > 0, means, codewords)
    return codewords.float()
