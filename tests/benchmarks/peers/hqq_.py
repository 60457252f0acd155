"""hqq: half-quadratic quantisation of the linear layers, and by the same function of the embeddings."""

from __future__ import annotations

from functools import partial

from torch import nn

from tests.benchmarks.peers.bed import Bed, Result, Settings, linear_layers, saved_bytes, timed


def settings(bed: Bed) -> Settings:
    """Yield 8, 4, 3 and 2 bits in groups; then 4 and 3 bits with its own codes of the embeddings."""
    from hqq.core.quantize import Quantizer

    def made(width: int, group: int, embedding_width: int) -> Result:
        model, taken, weights, files = bed.model(), list[float](), {}, {}
        widths = {f"{name}.weight": width for name in linear_layers(model)}
        if embedding_width:
            named = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
            widths |= {f"{name}.weight": embedding_width for name in named}
        with timed(taken):
            for name, bits in widths.items():
                weight = model.get_parameter(name).data
                codes, meta = Quantizer.quantize(
                    weight, nbits=bits, group_size=group, axis=1, round_zero=bits == 4, device="cpu"
                )
                files[name] = codes, meta
        for name, (codes, meta) in files.items():
            weight = model.get_parameter(name).data
            zero_points = widths[name] if widths[name] == 4 else 16  # rounded at 4 bits only
            stored = weight.numel() * widths[name] + meta["scale"].numel() * (16 + zero_points)
            weights[name] = Quantizer.dequantize(codes, meta).float().reshape(weight.shape), stored
        kept = {name: tensor for name, tensor in model.state_dict().items() if name not in files}
        return Result(weights, taken[0], saved_bytes({**kept, **files}))

    for width, group, embedding_width in (
        (8, 128, 0),
        (4, 64, 0),
        (4, 32, 0),
        (3, 64, 0),
        (2, 32, 0),
        (4, 64, 4),
        (3, 64, 4),
        (3, 64, 3),
    ):
        embeddings = f", its embeddings {embedding_width} bits" if embedding_width else ""
        yield f"hqq {width} bits, groups of {group}{embeddings}", partial(made, width, group, embedding_width)
