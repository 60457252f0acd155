"""The student of a distillation: a quantised model whose levels, and perhaps codes, are trained.

Each row of a layer has a gain and a shift of its levels, both of which cost no bits. With scale s and zero point z of
the search, and spread d, the standard deviation of the row:

    w = gain * (s * (c - z) + shift * d)

Codes c are fixed, or follow latent FP32 weights v, in steps of s (quantisation-aware training):

    c = round(v),    -1/2 < v < 2^b - 1/2

Rounding passes gradients straight through (Bengio et al., 2013, arXiv:1308.3432): the gradient of w moves v, which
starts at the FP32 weight w / s + z, moved to within 0.45 steps of the search's code. So training starts at these codes,
bit for bit. Zero points are always storable: what is trained is what is stored.

The network computes with decoded weights only. After each step one pass decodes them again, in blocks that fit into a
core's cache; of embeddings only the rows that a batch uses. Latent weights are updated as soon as the gradient of their
layer is known, so that only one layer has any. In FP32, bytes a weight are: latent 4, AdamW 8, decoded 4, code 1, and
the teacher's 4; an embedding's gradient takes 4 more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from objectives.quantization.affine import AffineParameters
from objectives.quantization.parameters import Parameters, row_chunks
from objectives.quantization.quantized_model import QuantizedModel

Trained = Literal["scales", "weights"]
"""What is trained beside biases, normalisations and the head: ``scales`` only, or codes with them (``weights``)."""

_WIDEST_SHIFTED = 4  # bits; the stored zero points of wider codes are too coarse to tune
# Latent weights are in steps of their codes. One rate in FP32 units for all would move wide codes by many steps.
LATENT_RATE = 1e-3
"""The peak learning rate of latent weights, for a training of 10 epochs."""
_LEVEL_RATE, _OTHER_RATE = 1e-3, 3e-4
_START_INSIDE = 0.45  # steps from a code; nearer to its edges, the first noisy steps would undo the search's rounding
_INSIDE = 0.499  # steps from a code; FP32 then rounds every latent weight of up to 8 bits to it


@dataclass(eq=False)
class _Layer:
    """One layer: the network's ``weight``, and what it is decoded from.

    Attributes:
        weight: decoded, in the network's type; of an embedding only the rows of the last batch are up to date.
        codes: those of the search.
        start: their parameters.
        latent: latent weights, FP32, that codes follow; None if codes are fixed.
        log_gain: of each row, ``(rows,)``, as are shift and spread.
    """

    weight: nn.Parameter
    codes: Tensor
    start: Parameters
    latent: Tensor | None
    log_gain: Tensor = field(init=False)
    shift: Tensor = field(init=False)
    spread: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.spread = self.weight.detach().float().std(dim=1, correction=0)
        self.log_gain, self.shift = torch.zeros_like(self.spread), torch.zeros_like(self.spread)

    @property
    def is_shifted(self) -> bool:
        return self.start.shiftable and self.start.width <= _WIDEST_SHIFTED

    def levels(self) -> Parameters:
        """Return the parameters that decode the codes now."""
        return self.start.adjusted(self.log_gain.exp(), self.shift * self.spread)

    def decode(self, rows: Tensor | None = None) -> None:
        """Write the weight, or these rows of it, into the network."""
        levels = self.levels()
        for chunk in row_chunks(self.weight) if rows is None else [rows]:
            part = self.weight.data[chunk]  # of a slice in FP32, the weight itself: no other memory is touched
            if part.dtype != torch.float32:
                part = torch.empty_like(part, dtype=torch.float32)
            if self.latent is None:
                codes = self.codes[chunk]
            else:
                self.latent[chunk] = latent = self._confined(self.latent[chunk])
                codes = torch.round(latent, out=part)
            levels.select_rows(chunk).write(codes, part)
            self.weight.data[chunk] = part.to(self.weight.dtype)

    def final_codes(self) -> Tensor:
        """Return the codes as they are now."""
        if self.latent is None:
            return self.codes
        return self._confined(self.latent.clone()).round_().to(torch.uint8)

    def _confined(self, latent: Tensor) -> Tensor:
        return latent.clamp_(-_INSIDE, 2**self.start.width - 1 + _INSIDE)

    def take_gradient(self) -> None:
        """Pass the weight's gradient on to what it is decoded from."""
        gradient, self.weight.grad = self.weight.grad, None
        assert gradient is not None
        if self.latent is not None:
            # That of the latent weights is s times as large in each row; Adam's steps do not depend on it.
            self.latent.grad = gradient.float()
        ones = gradient.new_ones(gradient.shape[1])  # a product with them is the fastest sum of rows
        self.log_gain.grad = ((gradient * self.weight.detach()) @ ones).float()
        if self.is_shifted:
            self.shift.grad = (gradient @ ones).float() * self.log_gain.exp() * self.spread


@dataclass(eq=False)
class _Embedding(_Layer):
    """A layer whose rows are looked up; a batch decodes its own rows, and they alone get gradients.

    Rows that are read in another way than by calling the module stay as they are.
    """

    lookups: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    used: Tensor | None = None

    def watch(self, module: nn.Module) -> None:
        """Follow what the module looks up."""
        self.weight.requires_grad_(False)
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after)

    def _before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(inputs[0], Tensor):  # else positions addressed by their number, which stay unchanged
            with torch.no_grad():
                self.decode(inputs[0].unique())

    def _after(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and isinstance(inputs[0], Tensor)):
            return output
        output = output.detach().requires_grad_()
        self.lookups.append((inputs[0], output))
        return output

    def take_gradient(self) -> None:
        trained = [self.log_gain, *([self.shift] if self.is_shifted else [])]
        trained += [] if self.latent is None else [self.latent]
        for tensor in trained:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            elif self.used is not None:
                tensor.grad[self.used] = 0.0
        if not self.lookups:
            return
        rows = torch.cat([ids.expand(output.shape[:-1]).flatten() for ids, output in self.lookups])
        gradient = torch.cat([_gradient(output).flatten(0, -2) for _, output in self.lookups])
        decoded = torch.cat([output.detach().flatten(0, -2) for _, output in self.lookups])
        if self.latent is not None:
            _gradient(self.latent).index_add_(0, rows, gradient)
        _gradient(self.log_gain).index_add_(0, rows, (gradient * decoded).sum(dim=1))
        if self.is_shifted:
            unit = (self.log_gain.exp() * self.spread)[rows]
            _gradient(self.shift).index_add_(0, rows, gradient.sum(dim=1) * unit)
        self.used = rows.unique()
        self.lookups.clear()


class _Group:
    """Tensors with one learning rate, which is ``rate`` at its peak, and their optimiser."""

    def __init__(self, tensors: list[Tensor], rate: float) -> None:
        self.tensors, self.rate = tensors, rate
        self.optimizer = torch.optim.AdamW(tensors, lr=rate, weight_decay=0.0, fused=True)


def _updating(layer: _Layer, group: _Group | None) -> Callable[[Tensor], None]:
    """Return a function that updates a layer's latent weights, the tensor of ``group``, by the weight's gradient."""

    def hook(_: Tensor) -> None:
        with torch.no_grad():
            layer.take_gradient()
        if group is not None:
            group.optimizer.step()
            group.tensors[0].grad = None

    return hook


class Student:
    """A quantised model in training; see the module's docstring.

    Attributes:
        network: the model that computes, in evaluation mode: dropout would only add noise to a match of outputs.
    """

    def __init__(
        self,
        quantized: QuantizedModel,
        fp32: nn.Module,
        trained: Trained,
        dtype: torch.dtype = torch.float32,
        latent_rate: float = LATENT_RATE,
    ) -> None:
        """Copy a quantised model.

        Args:
            quantized: the model to start from; ``weights`` needs evenly spaced levels.
            fp32: the model that it was quantised from; not changed.
            trained: what to train.
            dtype: of the network; what is trained is FP32.
            latent_rate: the peak learning rate of latent weights.
        """
        self.network = quantized.decoded(fp32).to(dtype).eval().requires_grad_(True)
        self._quantized = quantized
        self._layers: list[_Layer] = []
        for layer, (codes, parameters) in zip(quantized.layers, quantized.entries, strict=True):
            weight, latent = self.network.get_parameter(layer.parameter), None
            if trained == "weights":
                latent = _latent_weights(fp32.get_parameter(layer.parameter).detach(), codes, parameters)
            kind = _Layer if layer.kind == "linear" else _Embedding
            self._layers.append(kind(weight, codes, parameters, latent))
            if isinstance(own := self._layers[-1], _Embedding):
                own.watch(self.network.get_submodule(layer.name))
        searched = {layer.parameter for layer in quantized.layers}
        self._others = {name: own for name, own in self.network.named_parameters() if name not in searched}
        self._masters = {
            name: own if own.dtype == torch.float32 else quantized.kept[name].to(own.device, torch.float32).clone()
            for name, own in self._others.items()
        }
        self._groups: list[_Group] = []
        for trainee in self._layers:
            group = None
            if trainee.latent is not None:
                group = _Group([trainee.latent], latent_rate)
                self._groups.append(group)
            if not isinstance(trainee, _Embedding):
                trainee.weight.register_post_accumulate_grad_hook(_updating(trainee, group))
        self._groups.append(_Group([trainee.log_gain for trainee in self._layers], _LEVEL_RATE))
        if shifts := [trainee.shift for trainee in self._layers if trainee.is_shifted]:
            self._groups.append(_Group(shifts, _LEVEL_RATE))
        self._groups.append(_Group(list(self._masters.values()), _OTHER_RATE))

    def step(self, loss: Tensor, factor: float) -> None:
        """Update what is trained by the gradient of a loss, with the learning rates times ``factor``."""
        for group in self._groups:
            group.optimizer.param_groups[0]["lr"] = group.rate * factor
        loss.backward()  # updates the latent weights of linear layers
        with torch.no_grad():
            for layer in self._layers:
                if isinstance(layer, _Embedding):
                    layer.take_gradient()
            for name, own in self._others.items():
                if own is not self._masters[name] and own.grad is not None:
                    self._masters[name].grad, own.grad = own.grad.float(), None
            for group in self._groups:
                group.optimizer.step()  # without effect on what has no gradient
            for layer in self._layers:
                if not isinstance(layer, _Embedding):  # whose rows the next batch decodes
                    layer.decode()
            for master in self._masters.values():
                master.grad = None
            self._copy_masters()

    @torch.no_grad()
    def quantized(self) -> QuantizedModel:
        """Return the quantised model as it is now."""
        entries = [(layer.final_codes(), layer.levels()) for layer in self._layers]
        masters = {name: tensor.detach().clone() for name, tensor in self._masters.items()}
        kept = {name: masters.get(name, tensor) for name, tensor in self._quantized.kept.items()}
        return replace(self._quantized, entries=tuple(entries), kept=kept)

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on, by name: what is trained, and the optimiser's moments."""
        tensors = {}
        for number, group in enumerate(self._groups):
            for index, tensor in enumerate(group.tensors):
                tensors[f"{number}.{index}"] = tensor.detach()
                for name, value in group.optimizer.state[tensor].items():
                    tensors[f"{number}.{index}.{name}"] = value
        return tensors

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of a student of the same model and type."""
        for number, group in enumerate(self._groups):
            for index, tensor in enumerate(group.tensors):
                tensor.copy_(state[f"{number}.{index}"])
                for name in ("step", "exp_avg", "exp_avg_sq"):
                    if (value := state.get(f"{number}.{index}.{name}")) is not None:
                        group.optimizer.state[tensor][name] = value.to(tensor.device).clone()
        self._copy_masters()
        for layer in self._layers:
            layer.decode()

    def _copy_masters(self) -> None:
        for name, own in self._others.items():
            if own is not self._masters[name]:
                own.copy_(self._masters[name])


def _latent_weights(fp32: Tensor, codes: Tensor, parameters: Parameters) -> Tensor:
    """Return the FP32 weights in steps, each moved into the interval that rounds to its code."""
    assert isinstance(parameters, AffineParameters)
    latent = torch.empty_like(fp32)
    for rows in row_chunks(codes):
        scale, zero_point = parameters.select_rows(rows).per_column(0, codes.shape[1])
        code = codes[rows].float()
        latent[rows] = torch.clamp(fp32[rows] / scale + zero_point, code - _START_INSIDE, code + _START_INSIDE)
    return latent


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad.float()
