"""Writes ONNX exports: the model's file, and beside it config, tokenizer, bit map and manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from objectives.bit_maps import to_json
from objectives.errors import InputError
from objectives.files import file_hash, replacing_directory
from objectives.loading.models import Classifier, save_all_but_weights
from objectives.packing.scheme import PER_ROW
from objectives.quantization.quantized_model import QuantizedModel
from results.export.model_card import write_card
from results.export.onnx import Activations
from results.export.onnx.coded import Place
from results.export.onnx.fragments import Fragment
from results.export.onnx.graph import Network
from results.export.onnx.layers import check_scheme, fp32_layer, quantized_layer
from results.export.onnx.model_file import metadata_of, model_of, onnx_sizes
from results.export.onnx_session import ONNX_FILE
from results.export.packed import MANIFEST, write_map

_MOST_BYTES = 2**31 - 1  # of a protocol buffer


def write_onnx(
    classifier: Classifier,
    quantized: QuantizedModel,
    provenance: Mapping[str, Any],
    directory: str | Path,
    activations: Activations = "fp32",
) -> int:
    """Write a quantised model as ONNX and return the length of its file in bytes.

    Args:
        classifier: the FP32 model, for its config, tokenizer and shapes.
        quantized: the quantised model.
        provenance: the origin of the map, as plain JSON values.
        directory: the new directory; it appears once everything is written.
        activations: what linear layers multiply; ``int8`` is faster, and not exact.

    Raises:
        InputError: ONNX runtimes cannot express the model, or its file would be too large.
        FileExistsError: the directory exists.
    """
    length = onnx_sizes(classifier, quantized.scheme, activations).file_bytes(quantized.bit_map)
    described = {**provenance, "onnx": {"activations": activations}}

    def content() -> bytes:
        return model_bytes(classifier, quantized, activations)

    _write(classifier, content, length, quantized, described, Path(directory))
    return length


def model_bytes(classifier: Classifier, quantized: QuantizedModel, activations: Activations = "fp32") -> bytes:
    """Return the content of a quantised model's ONNX file; as ``write_onnx``. Equal models have equal bytes."""
    layers, bit_map, scheme = quantized.layers, quantized.bit_map, quantized.scheme
    check_scheme(layers, scheme)
    network = Network(classifier, lambda name: quantized.kept[name].cpu().numpy())
    coded = dict(zip((layer.name for layer in layers), zip(bit_map, quantized.entries, strict=True), strict=True))

    def fragment_of(place: Place) -> Fragment:
        width, entry = coded[place.layer.name]
        return quantized_layer(place, width, scheme, activations, entry)

    metadata = metadata_of(layers, bit_map, scheme, activations)
    written: bytes = model_of(network, fragment_of, metadata).SerializeToString(deterministic=True)
    return written


def write_fp32_onnx(classifier: Classifier, provenance: Mapping[str, Any], directory: str | Path) -> int:
    """Write a model as ONNX in FP32, for comparison, and return the length of its file in bytes.

    Args:
        classifier: the FP32 model.
        provenance: its origin, as plain JSON values.
        directory: the new directory; it appears once everything is written.

    Raises:
        InputError: ONNX runtimes cannot express the model, or its file would be too large.
        FileExistsError: the directory exists.
    """
    state = classifier.model.state_dict()

    def fragment_of(place: Place) -> Fragment:
        return fp32_layer(place, lambda: state[place.layer.parameter].cpu().numpy())

    def content() -> bytes:
        network = Network(classifier, lambda name: state[name].cpu().numpy())
        written: bytes = model_of(network, fragment_of, {}).SerializeToString(deterministic=True)
        return written

    length = onnx_sizes(classifier, PER_ROW).fp32_bytes
    described = {**provenance, "onnx": {"weights": "fp32", "activations": "fp32"}}
    _write(classifier, content, length, None, described, Path(directory))
    return length


def _write(
    classifier: Classifier,
    content: Callable[[], bytes],
    length: int,
    quantized: QuantizedModel | None,
    provenance: dict[str, Any],
    directory: Path,
) -> None:
    """Write an export's directory: of a quantised model, or of the FP32 one, which has no map."""
    if length > _MOST_BYTES:
        raise InputError(
            f"--format onnx: the file would take {length:,} bytes, and an ONNX file holds at most {_MOST_BYTES:,}; "
            "export a map of fewer bits, or --format packed"
        )
    with replacing_directory(directory) as temporary:
        save_all_but_weights(classifier, temporary)
        path = temporary / ONNX_FILE
        path.parent.mkdir()
        path.write_bytes(content())
        assert path.stat().st_size == length
        layers, bit_map = ((), ()) if quantized is None else (quantized.layers, quantized.bit_map)
        if quantized is not None:
            write_map(quantized, temporary)
            write_card(temporary, directory.name, "onnx", length, quantized.footprint, bit_map, provenance)
        described = {**provenance["onnx"], "file_bytes": length, "sha256": _hashes(temporary)}
        manifest = to_json(layers, bit_map, {**provenance, "onnx": described})
        (temporary / MANIFEST).write_text(manifest, encoding="utf-8")


def _hashes(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a directory by its path from there, but of none that no loader reads."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".md")
    return {path.relative_to(directory).as_posix(): file_hash(path) for path in paths}
