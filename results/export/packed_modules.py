"""Linear layers and embeddings that keep their codes packed in memory and decode them when they are called.

A linear layer decodes all its weights, into a buffer that the layers of a model share; an embedding decodes the rows
that are asked for. Outputs are those of the decoded layer to the last bit: torch's same function runs on the same
weights.

Each running call has a buffer to itself, so threads may share a model. There are as many buffers as calls have run at
the same time, each as large as the largest linear layer.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from objectives.errors import InputError
from objectives.layers import BitMap, Layer
from objectives.packing.bitstream import unpack_range, unpack_rows
from objectives.packing.footprint import Footprint
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.dispatch import stored_parameters
from objectives.quantization.parameters import Parameters

# Of one step: codes, words and FP32 weights take 2 MB, which fit into a core's cache.
_CHUNK_ELEMENTS = 1 << 18
_TOKENS = 3  # of the sentence that shows which weights are read
_UNPACKED = "load_checkpoint(DIR) without packed=True gives a model that can"


class Scratch:
    """Buffers for decoded weights, each lent to one call at a time."""

    def __init__(self) -> None:
        """Start without any."""
        self._free: deque[Tensor] = deque()  # its methods are atomic

    @contextmanager
    def lend(self, elements: int) -> Iterator[Tensor]:
        """Provide an FP32 buffer ``(elements,)`` with any content."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = torch.empty(0)
        if len(buffer) < elements:
            with torch.inference_mode(False):  # a tensor made in that mode cannot be written outside it
                buffer = torch.empty(elements)
        try:
            yield buffer[:elements]
        finally:
            self._free.append(buffer)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Let copies of a model share the buffers."""
        return self

    def __reduce__(self) -> tuple[type[Scratch], tuple[()]]:
        """Leave the buffers out of files and other processes."""
        return Scratch, ()


class PackedLayer(nn.Module):
    """What both kinds of packed layers have: the tensors of the packed file as buffers, by the same names."""

    codes: Tensor

    def __init__(
        self,
        original: nn.Module,
        layer: Layer,
        width: int,
        scheme: Scheme,
        stored: Mapping[str, Tensor],
        scratch: Scratch,
    ) -> None:
        """Take the place of a linear layer or an embedding.

        Args:
            original: the layer that is replaced; its weight is not read.
            layer: its name and shape.
            width: of its codes.
            scheme: of its parameters.
            stored: ``codes`` and each part of the scheme, as in the packed file.
            scratch: lends the buffer for decoded weights.
        """
        nn.Module.__init__(self)
        settings: list[str] = original.__constants__  # type: ignore[assignment]  # in_features and the like
        for name in settings:
            setattr(self, name, getattr(original, name))
        if isinstance(original, nn.Linear):
            self.register_parameter("bias", original.bias)
        self.layer, self.width, self.scheme, self.scratch = layer, width, scheme, scratch
        self.was_read = False
        for name, tensor in stored.items():
            self.register_buffer(name, tensor)
        self.train(original.training)

    @property
    def weight(self) -> Tensor:
        """The decoded weight ``(rows, columns)``, made anew each time: for code that reads it without a call."""
        self.was_read = True
        return self.decoded(torch.empty(self.layer.rows, self.layer.columns))

    @torch.no_grad()
    def decoded(self, out: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return ``out``, FP32 and contiguous, filled with all rows or those at the indices ``(len(out),)``."""
        stream, columns = self.codes.numpy(), self.layer.columns
        step = max(1, _CHUNK_ELEMENTS // columns)
        for start in range(0, len(out), step):
            stop = min(start + step, len(out))
            if rows is None:
                chosen: slice | Tensor = slice(start, stop)
                codes = unpack_range(stream, self.width, start * columns, stop * columns)
            else:
                chosen = rows[start:stop]
                codes = unpack_rows(stream, self.width, columns, chosen.numpy())
            self._write(torch.from_numpy(codes).view(-1, columns), chosen, out[start:stop])
        return out

    def _write(self, codes: Tensor, rows: slice | Tensor, out: Tensor) -> None:
        """Decode the codes ``(n, columns)`` of rows."""
        scheme, size = self.scheme, self.scheme.group_size
        parts = {}
        for part in scheme.parts(self.layer, self.width):
            tensor = self.get_buffer(part)
            parts[part] = tensor if part == "codewords" else tensor[rows]
        if size and self.layer.columns % size == 0:  # each group is a row then, which is quicker
            codes, out, scheme = codes.view(-1, size), out.view(-1, size), PER_ROW
        stored_parameters(scheme, codes, self.width, parts).write(codes, out)

    def extra_repr(self) -> str:
        """Describe the layer in the printed model."""
        return f"{super().extra_repr()}, packed at {self.width} bits"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the layer, unless to another device or type."""
        moved = fn(torch.empty(1))
        if moved.device.type != "cpu" or moved.dtype != torch.float32:
            raise InputError(
                f"a model with packed=True computes in FP32 on the CPU and cannot be moved to {moved.dtype} on "
                f"{moved.device}; {_UNPACKED}"
            )
        result: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return result


class PackedLinear(PackedLayer, nn.Linear):  # type: ignore[override]
    """A linear layer that decodes its weights at each call."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Return what ``nn.Linear`` does.

        Raises:
            InputError: gradients are to go through it.
        """
        if input.requires_grad and torch.is_grad_enabled():
            raise InputError(
                f"{self.layer.name}: no gradients go through a model with packed=True; call it under "
                f"torch.inference_mode(), or train only what comes after its encoder; {_UNPACKED}"
            )
        with self.scratch.lend(self.layer.elements) as buffer:
            weight = self.decoded(buffer.view(self.layer.rows, self.layer.columns))
            return nn.functional.linear(input, weight, self.bias)

    def unpacked(self) -> nn.Linear:
        """Return an ordinary layer with the decoded weight."""
        plain = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        plain.weight, plain.bias = nn.Parameter(self.weight, requires_grad=False), self.bias
        return plain.train(self.training)


class PackedEmbedding(PackedLayer, nn.Embedding):  # type: ignore[override]
    """An embedding that decodes the rows it is asked for."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Return what ``nn.Embedding`` does.

        Raises:
            IndexError: an index is below 0 or not below the number of rows.
        """
        rows = input.flatten().long()
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.layer.rows:
            asked = f"{int(rows.min())} to {int(rows.max())}"
            raise IndexError(f"{self.layer.name}: has {self.layer.rows} rows, was asked for rows {asked}")
        return self.decoded(torch.empty(len(rows), self.layer.columns), rows).view(*input.shape, self.layer.columns)

    def unpacked(self) -> nn.Embedding:
        """Return an ordinary embedding with the decoded weight."""
        plain = nn.Embedding(self.num_embeddings, self.embedding_dim, self.padding_idx, device="meta")
        plain.weight = nn.Parameter(self.weight, requires_grad=False)
        return plain.train(self.training)


def replaceable(model: nn.Module, layers: Sequence[Layer]) -> set[str]:
    """Return the names of the layers that packed ones can stand for.

    Others have a type of their own, which may do anything with their weights, or share their weights.
    """
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    modules = {layer.name: model.get_submodule(layer.name) for layer in layers}
    return {
        name
        for name, module in modules.items()
        if type(module) in (nn.Linear, nn.Embedding)
        and getattr(module, "max_norm", None) is None  # such an embedding changes its weights
        and uses[id(module.weight)] == 1
    }


def pack_layers(
    model: nn.Module,
    footprint: Footprint,
    bit_map: BitMap,
    tensors: Mapping[str, Tensor],
    check: Callable[[Layer, Parameters], None] = lambda *_: None,
) -> set[str]:
    """Replace the layers of a model by packed ones; decode those that cannot be, and return their names.

    Args:
        model: on the CPU; its layers' weights are not read.
        footprint: its layers, and how they are stored.
        bit_map: their widths.
        tensors: of the packed file, by name.
        check: called with each layer and its parameters.
    """
    names, scratch, scheme = replaceable(model, footprint.layers), Scratch(), footprint.scheme
    for layer, width in zip(footprint.layers, bit_map, strict=True):
        parts = {part: tensors[f"{layer.name}.{part}"] for part in scheme.parts(layer, width)}
        shape = torch.empty(1, dtype=torch.uint8).expand(layer.rows, layer.columns)
        check(layer, stored_parameters(scheme, shape, width, parts))
        original = model.get_submodule(layer.name)
        packed = PackedLinear if isinstance(original, nn.Linear) else PackedEmbedding
        module = packed(original, layer, width, scheme, {"codes": tensors[f"{layer.name}.codes"], **parts}, scratch)
        if layer.name in names:
            _replace(model, layer.name, module)
        else:
            module.decoded(out=model.get_parameter(layer.parameter))
    return {layer.name for layer in footprint.layers} - names


def unpack_read_layers(model: nn.Module, padding: int | None) -> set[str]:
    """Decode the packed layers whose weights a forward pass reads without calling them; return their names.

    They would be decoded at each reading. A pass of one short sentence shows which they are.

    Args:
        model: a model with packed layers and all other weights in place.
        padding: the token that stands for none.
    """
    with torch.inference_mode():
        model(input_ids=torch.full((1, _TOKENS), 1 if padding == 0 else 0))
    read = {name: part for name, part in model.named_modules() if isinstance(part, PackedLayer) and part.was_read}
    for name, module in read.items():
        assert isinstance(module, PackedLinear | PackedEmbedding)
        _replace(model, name, module.unpacked())
    return set(read)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def refuse_to_save(*_: object, **__: object) -> NoReturn:
    """Stand for ``save_pretrained`` of a packed model: what it would write, ``from_pretrained`` would fill at random.

    Raises:
        InputError: always.
    """
    raise InputError(f"a model with packed=True cannot be saved by transformers; copy its checkpoint, or {_UNPACKED}")
