"""Exports to torchao: a checkpoint that plain ``transformers`` loads if torchao is installed.

It stores the codes, scales and zero points of the quantised model unchanged. torchao stores each code in one byte,
whatever the layer's width, so the checkpoint is as large as one of 8 bits. On a CPU it decodes weights at each call,
which is several times slower than FP32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from objectives.errors import InputError
from objectives.files import replacing_directory
from objectives.layers import Layer
from objectives.loading.models import Classifier, save_all_but_weights
from objectives.packing.scheme import Scheme
from objectives.quantization.affine import AffineParameters
from objectives.quantization.quantized_model import QuantizedModel
from objectives.tensor_files import save_tensors
from results.export.model_card import write_card
from results.export.packed import write_manifest, write_map

WEIGHTS = "model.safetensors"


def check_torchao(layers: Sequence[Layer], scheme: Scheme) -> None:
    """Check that torchao is here and can hold a model's codes, before anything is loaded.

    Raises:
        InputError: torchao cannot express the scheme, is not installed, or lacks an interface that this module uses.
    """
    if scheme.kind == "codebook":
        raise InputError(
            "--format torchao: torchao has evenly spaced levels, which cannot hold a codebook's codewords; "
            "export --format packed, or search with another quantizer"
        )
    group_size = scheme.group_size
    if ragged := [layer for layer in layers if 0 < group_size < layer.columns and layer.columns % group_size]:
        raise InputError(
            f"--format torchao: torchao needs groups of equal size, and {ragged[0].name} has {ragged[0].columns} "
            f"columns in groups of {group_size}; export --format packed, or search with another --group-size"
        )
    _torchao()


def _torchao() -> SimpleNamespace:
    """Return the interfaces of torchao that this module uses."""
    try:
        from torchao.core.config import config_to_dict
        from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
        from torchao.quantization import FqnToConfig, IntxUnpackedToInt8Tensor, IntxWeightOnlyConfig
        from torchao.quantization.granularity import PerAxis, PerGroup
    except ImportError as error:
        raise InputError(
            f"--format torchao needs torchao 0.18 or newer ({error}); install it with pip install -e '.[torchao]'"
        ) from None
    return SimpleNamespace(
        config_to_dict=config_to_dict,
        flatten_tensor_state_dict=flatten_tensor_state_dict,
        FqnToConfig=FqnToConfig,
        IntxUnpackedToInt8Tensor=IntxUnpackedToInt8Tensor,
        IntxWeightOnlyConfig=IntxWeightOnlyConfig,
        PerAxis=PerAxis,
        PerGroup=PerGroup,
    )


def write_torchao(
    classifier: Classifier, quantized: QuantizedModel, provenance: Mapping[str, Any], directory: str | Path
) -> int:
    """Write a checkpoint for ``from_pretrained`` and return the length of its weights file in bytes.

    Args:
        classifier: the FP32 model, for its config and tokenizer.
        quantized: the quantised model.
        provenance: the origin of the map, as plain JSON values.
        directory: the new directory; it appears once everything is written.

    Raises:
        InputError: torchao cannot express the scheme, is not installed, or lacks an interface that this module uses.
        FileExistsError: the directory exists.
    """
    check_torchao(quantized.layers, quantized.scheme)
    ao = _torchao()
    group_size = quantized.scheme.group_size
    state: dict[str, Tensor] = {name: tensor.contiguous().cpu() for name, tensor in quantized.kept.items()}
    configs = {}
    for layer, (codes, parameters) in zip(quantized.layers, quantized.entries, strict=True):
        assert isinstance(parameters, AffineParameters)
        dtype = getattr(torch, f"int{parameters.width}")
        # torchao's codes are signed: codes and zero points shift by half the range.
        offset = 2 ** (parameters.width - 1)
        state[layer.parameter] = ao.IntxUnpackedToInt8Tensor(
            qdata=(codes.cpu().short() - offset).to(torch.int8),
            scale=parameters.scale.cpu(),
            zero_point=parameters.zero_point.cpu() - offset,
            target_dtype=dtype,
            block_size=(1, layer.columns if parameters.groups is None else group_size),
            dtype=torch.float32,
            activation_quantization=None,
        )
        granularity = ao.PerAxis(0) if parameters.groups is None else ao.PerGroup(group_size)
        configs[layer.parameter] = ao.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=granularity)
    tensors, metadata = ao.flatten_tensor_state_dict(state)
    settings = {
        "quant_method": "torchao",
        "quant_type": {"default": ao.config_to_dict(ao.FqnToConfig(configs))},
        "include_input_output_embeddings": True,
    }
    with replacing_directory(Path(directory)) as temporary:
        save_all_but_weights(classifier, temporary)
        config = json.loads((temporary / "config.json").read_text(encoding="utf-8"))
        config = config | {"quantization_config": settings, "dtype": "float32"}
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_tensors(temporary / WEIGHTS, tensors, {"format": "pt", **metadata})
        length = (temporary / WEIGHTS).stat().st_size
        write_map(quantized, temporary)
        write_card(
            temporary, Path(directory).name, "torchao", length, quantized.footprint, quantized.bit_map, provenance
        )
        write_manifest(quantized, {**provenance, "torchao": {"file_bytes": length}}, temporary)
    return length
