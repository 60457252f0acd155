"""Quantise by scheme: round weights to the nearest level, and build parameters from tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from objectives.layers import Layer
from objectives.packing.scheme import Scheme
from objectives.quantization.affine import AffineParameters, choose_affine, column_groups, encode, zero_point_of_byte
from objectives.quantization.codebook import CodebookParameters, quantize_codebook
from objectives.quantization.parameters import Entry, Parameters


def round_to_nearest(scheme: Scheme, weight: Tensor, width: int) -> Entry:
    """Return the entry of a weight ``(rows, columns)`` at a width, 2..8, by rounding to the nearest level."""
    if scheme.kind == "codebook":
        return quantize_codebook(weight, width)
    parameters = choose_affine(weight, width, groups_of(scheme, weight))
    return encode(weight, parameters), parameters


def groups_of(scheme: Scheme, weight: Tensor) -> Tensor | None:
    """Return the group of each column of a weight ``(rows, columns)``; None if all are one group."""
    return column_groups(weight.shape[1], scheme.group_size, weight.device)


def parameters_of(scheme: Scheme, codes: Tensor, width: int, tensors: Mapping[str, Tensor]) -> Parameters:
    """Return the parameters of a layer's codes ``(rows, columns)``, from what ``Parameters.tensors`` returned."""
    if scheme.kind == "codebook":
        return CodebookParameters(tensors["scale"], tensors["codewords"], width)
    return AffineParameters(tensors["scale"], tensors["zero_point"], width, groups_of(scheme, codes))


def stored_parameters(scheme: Scheme, codes: Tensor, width: int, stored: Mapping[str, Tensor]) -> Parameters:
    """Return the parameters of a layer's codes ``(rows, columns)``, from the tensors of a packed checkpoint."""
    tensors = {part: tensor.view(len(codes), -1) for part, tensor in stored.items() if part != "codewords"}
    if scheme.kind == "codebook":
        tensors["codewords"] = stored["codewords"]
    else:
        tensors["zero_point"] = zero_point_of_byte(tensors["zero_point"], width)
    return parameters_of(scheme, codes, width, tensors)


def shapes_match(scheme: Scheme, layer: Layer, parameters: Parameters) -> bool:
    """Return whether parameters have the names and shapes that the layer needs."""
    shapes = {part: tensor.shape for part, tensor in scheme.parts(layer, parameters.width).items()}
    shapes |= {part: (layer.rows, scheme.n_groups(layer)) for part in shapes if part != "codewords"}
    return {part: tuple(tensor.shape) for part, tensor in parameters.tensors().items()} == shapes
