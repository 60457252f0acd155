"""Packed checkpoints: a directory whose weights take exactly the bits that a map gives them, written and loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from objectives.bit_maps import parse_bit_map, to_json, to_text
from objectives.errors import InputError
from objectives.files import replacing, replacing_directory
from objectives.layers import Bits, Layer
from objectives.models import Classifier, empty_classifier, save_all_but_weights
from objectives.packing import pack, unpack
from objectives.quantize import AffineParameters, byte_of_zero_point, decode, zero_point_of_byte
from objectives.quantized import QuantizedModel
from objectives.sizes import PACKED_METADATA, footprint_of

WEIGHTS, BIT_MAP, MANIFEST = "packed.safetensors", "bitmap.txt", "bitfront.json"

_AGAIN = "export it again with `bitfront export --format packed`"


def write_checkpoint(
    classifier: Classifier, quantized: QuantizedModel, provenance: Mapping[str, Any], directory: Path
) -> int:
    """Write a packed checkpoint and return the length of its weights' file, which is the map's packed size.

    Beside the weights lie the config, the tokenizer, the bit map as text, and a manifest: the map as JSON with its
    provenance and the hashes of all other files.

    Args:
        classifier: the FP32 model, for its config and tokenizer.
        quantized: what it became.
        provenance: plain JSON values: where the map came from.
        directory: to be made; it appears when all of it is written.

    Raises:
        FileExistsError: the directory is there already.
    """
    sizes, bits = footprint_of(classifier.model), quantized.bits
    tensors = _packed_tensors(quantized)
    with replacing_directory(directory) as temporary:
        save_all_but_weights(classifier, temporary)
        with replacing(temporary / WEIGHTS) as path:  # the library makes files that only their owner can read
            save_file(tensors, path, metadata=dict(PACKED_METADATA))
        length = (temporary / WEIGHTS).stat().st_size
        assert length == sizes.packed_bytes(bits)
        write_map(quantized, temporary)
        packed = {"packed_bytes": length, "sha256": _hashes(temporary)}
        write_manifest(quantized, {**provenance, "packed": packed}, temporary)
    return length


def write_map(quantized: QuantizedModel, directory: Path) -> None:
    """Write a checkpoint's bit map as text."""
    (directory / BIT_MAP).write_text(to_text(quantized.layers, quantized.bits), encoding="utf-8")


def write_manifest(quantized: QuantizedModel, provenance: Mapping[str, Any], directory: Path) -> None:
    """Write a checkpoint's bit map as JSON with its provenance."""
    (directory / MANIFEST).write_text(to_json(quantized.layers, quantized.bits, provenance), encoding="utf-8")


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the provenance of a packed checkpoint.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        provenance: dict[str, Any] = manifest["provenance"]
        if not isinstance(provenance["packed"]["sha256"][WEIGHTS], str):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{directory}: not a packed checkpoint, {MANIFEST} is missing or damaged; {_AGAIN}") from error
    return provenance


def load_checkpoint(directory: Path) -> tuple[Classifier, Bits]:
    """Return an ordinary ``transformers`` classifier with the weights that the codes stand for, and its map.

    Layers are unpacked one at a time, so that besides the model there is never more than one of them in memory.

    Raises:
        InputError: anything in it is missing, damaged or not what the map asks for.
    """
    packed, present = read_manifest(directory)["packed"], _hashes(directory)
    described = packed["sha256"]
    for name in sorted({*described, *present}):
        if name not in described:  # it could be read in place of what was exported: tokenizers have optional files
            raise InputError(f"{directory / name}: is not of this checkpoint ({MANIFEST} has no such file); remove it")
        if present.get(name) != described[name]:
            raise InputError(f"{directory / name}: is missing, or not the file that {MANIFEST} describes; {_AGAIN}")
    path = directory / WEIGHTS
    classifier = empty_classifier(directory)
    sizes = footprint_of(classifier.model)
    state = classifier.model.state_dict()
    bits = parse_bit_map((directory / MANIFEST).read_text(encoding="utf-8"), sizes.layers, str(directory / MANIFEST))
    text = (directory / BIT_MAP).read_text(encoding="utf-8") if BIT_MAP in described else ""
    if text != to_text(sizes.layers, bits) or packed.get("packed_bytes") != sizes.packed_bytes(bits):
        raise InputError(f"{directory / MANIFEST}: its bit map or size is not that of the files beside it; {_AGAIN}")
    wanted = sizes.packed_tensors(bits)
    try:
        with safe_open(path, framework="pt") as stored:
            if stored.metadata() != PACKED_METADATA or set(stored.keys()) != set(wanted):
                raise InputError(f"{path}: does not hold the tensors of its bit map; {_AGAIN}")
            for name, tensor in wanted.items():
                found = stored.get_slice(name)
                if found.get_dtype() != tensor.dtype or tuple(found.get_shape()) != tensor.shape:
                    raise InputError(f"{path}: {name} has not the type and shape of its bit map; {_AGAIN}")
            with torch.no_grad():
                for layer, width in zip(sizes.layers, bits, strict=True):
                    codes, scale, zero_point = (
                        stored.get_tensor(f"{layer.name}.{part}") for part in ("codes", "scale", "zero_point")
                    )
                    if not (scale.isfinite().all() and (scale > 0).all()):
                        raise InputError(f"{path}: {layer.name} has scales out of range; {_AGAIN}")
                    _decode(layer, width, codes, scale, zero_point, state[layer.parameter])
                for name in sizes.kept:
                    kept = stored.get_tensor(name)
                    if not kept.isfinite().all():
                        raise InputError(f"{path}: {name} has values that are not finite; {_AGAIN}")
                    state[name].copy_(kept)
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read ({error}); {_AGAIN}") from None
    return classifier, bits


def _packed_tensors(quantized: QuantizedModel) -> dict[str, Tensor]:
    tensors = {name: tensor.contiguous().cpu() for name, tensor in quantized.kept.items()}
    for layer, (codes, parameters) in zip(quantized.layers, quantized.entries, strict=True):
        width = parameters.bits
        tensors[f"{layer.name}.codes"] = torch.from_numpy(pack(codes.cpu().numpy().ravel(), width))
        tensors[f"{layer.name}.scale"] = parameters.scale.flatten().cpu()
        tensors[f"{layer.name}.zero_point"] = byte_of_zero_point(parameters.zero_point, width).flatten().cpu()
    return tensors


def _decode(layer: Layer, width: int, codes: Tensor, scale: Tensor, zero_point: Tensor, out: Tensor) -> None:
    unpacked = torch.from_numpy(unpack(codes.numpy(), width, layer.elements)).view(layer.rows, layer.columns)
    decode(unpacked, AffineParameters(scale[:, None], zero_point_of_byte(zero_point[:, None], width), width), out=out)


def _hashes(directory: Path) -> dict[str, str]:
    """Return the hash of each file of a checkpoint but the manifest, and but what no loader reads."""
    hashes = {}
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.name != MANIFEST and path.suffix != ".md" and not path.name.startswith("."):
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
