"""Packed checkpoints: writes and loads directories whose weights take exactly the bits of their map."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from objectives.bit_maps import parse_bit_map, to_json, to_text
from objectives.errors import InputError
from objectives.files import file_hash, replacing_directory
from objectives.layers import BitMap, Layer
from objectives.loading.layer_discovery import footprint_of
from objectives.loading.models import Classifier, empty_classifier, save_all_but_weights
from objectives.memory import give_back_freed
from objectives.packing.bitstream import pack, unpack
from objectives.packing.footprint import Footprint
from objectives.packing.scheme import Scheme
from objectives.quantization.dispatch import stored_parameters
from objectives.quantization.parameters import Entry, Parameters, decode
from objectives.quantization.quantized_model import QuantizedModel
from objectives.tensor_files import read_tensors, save_tensors
from results.export.packed_modules import pack_layers, refuse_to_save, unpack_read_layers

WEIGHTS, BIT_MAP, MANIFEST = "packed.safetensors", "bitmap.txt", "bitfront.json"

_REMEDY = "export it again with `bitfront export --format packed`"


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A loaded checkpoint: the model with its tokenizer, its bit map, and the footprint of its model.

    ``decoded`` are the names of the layers whose weights are in memory as FP32: all, unless it was loaded packed.
    """

    classifier: Classifier
    bit_map: BitMap
    footprint: Footprint
    decoded: tuple[str, ...]

    @property
    def model(self) -> nn.Module:
        """The model, an ordinary ``transformers`` classifier."""
        return self.classifier.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.classifier.tokenizer

    def __repr__(self) -> str:
        size = f"{len(self.bit_map)} layers, {self.footprint.packed_bytes(self.bit_map):,} bytes packed"
        packed = len(self.bit_map) - len(self.decoded)
        memory = f", {packed} layers packed in memory" if packed else ""
        return f"Checkpoint({self.classifier.source!r}: {type(self.model).__name__}, {size}{memory})"


def write_checkpoint(
    classifier: Classifier, quantized: QuantizedModel, provenance: Mapping[str, Any], directory: str | Path
) -> int:
    """Write a packed checkpoint and return the length in bytes of its weights file, which is the map's packed size.

    The directory also holds the config, the tokenizer, the bit map as text, a model card, and a manifest: the map as
    JSON with its provenance and the hashes of all other files but the card, which may be edited.

    Args:
        classifier: the FP32 model, for its config and tokenizer.
        quantized: the quantised model.
        provenance: the origin of the map, as plain JSON values.
        directory: the new directory; it appears once everything is written.

    Raises:
        FileExistsError: the directory exists.
    """
    from results.export.model_card import write_card  # with pandas, which loading does not need

    sizes = quantized.footprint
    tensors = packed_tensors(quantized)
    with replacing_directory(Path(directory)) as temporary:
        save_all_but_weights(classifier, temporary)
        save_tensors(temporary / WEIGHTS, tensors, sizes.packed_metadata)
        length = (temporary / WEIGHTS).stat().st_size
        assert length == sizes.packed_bytes(quantized.bit_map)
        write_map(quantized, temporary)
        write_card(temporary, Path(directory).name, "packed", length, sizes, quantized.bit_map, provenance)
        packed = {"packed_bytes": length, "sha256": _hashes(temporary)}
        write_manifest(quantized, {**provenance, "packed": packed}, temporary)
    return length


def write_map(quantized: QuantizedModel, directory: Path) -> None:
    """Write a checkpoint's bit map as text."""
    (directory / BIT_MAP).write_text(to_text(quantized.layers, quantized.bit_map), encoding="utf-8")


def write_manifest(quantized: QuantizedModel, provenance: Mapping[str, Any], directory: Path) -> None:
    """Write a checkpoint's bit map as JSON with its provenance."""
    (directory / MANIFEST).write_text(to_json(quantized.layers, quantized.bit_map, provenance), encoding="utf-8")


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """Return the provenance of a packed checkpoint.

    Raises:
        InputError: there is no such directory, it is no packed checkpoint, or the manifest is damaged.
    """
    path, provenance = Path(directory) / MANIFEST, read_provenance(directory)
    if "onnx" in provenance and "packed" not in provenance:
        raise InputError(
            f"{directory}: is an ONNX export, which onnxruntime loads; a packed checkpoint is needed here: export the "
            "same map with --format packed"
        )
    if "torchao" in provenance and "packed" not in provenance:
        raise InputError(
            f"{directory}: is a torchao checkpoint, which transformers loads by itself (from_pretrained); a packed one "
            "is needed here: export the same map with --format packed"
        )
    if not isinstance(_table(_table(provenance, "packed"), "sha256").get(WEIGHTS), str):
        raise InputError(f"{path}: is damaged (it does not describe {WEIGHTS}); {_REMEDY}")
    return provenance


def read_provenance(directory: str | Path) -> dict[str, Any]:
    """Return the provenance of an export of any format, packed or other.

    Raises:
        InputError: there is no such directory, it is no export, or the manifest cannot be read.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        what = "is no packed checkpoint" if path.parent.is_dir() else "there is no such directory"
        raise InputError(f"{directory}: {what} ({MANIFEST} is missing); {_REMEDY}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}); {_REMEDY}") from None
    return _table(manifest, "provenance")


def _table(value: object, key: str) -> dict[str, Any]:
    """Return a table of a JSON document; an empty one if it is absent."""
    table = value.get(key) if isinstance(value, dict) else None
    return table if isinstance(table, dict) else {}


def load_checkpoint(directory: str | Path, device: str | torch.device = "cpu", *, packed: bool = False) -> Checkpoint:
    """Return a ``transformers`` classifier with the checkpoint's weights, its tokenizer, and its bit map.

    Without ``packed``, it unpacks one layer at a time, the largest first. The model's memory fills as it goes, so that
    the peak is little more than the FP32 model.

    Args:
        directory: a directory that ``write_checkpoint`` wrote.
        device: the device of the model; codes are decoded there.
        packed: keep linear layers and embeddings packed in memory, and decode each at its call, on the CPU. Outputs
            are the same to the last bit. Gradients cannot go through these layers. Layers whose weights the model
            shares or reads without calling them are decoded now; ``Checkpoint.decoded`` names them. Threads may share
            the model; each running call has a buffer as large as the largest linear layer in FP32.

    Raises:
        InputError: a file or tensor is missing, damaged, or does not fit the bit map.
        InputError: ``packed`` with a device other than the CPU.
    """
    if packed:
        if torch.device(device).type != "cpu":
            raise InputError(f"packed=True decodes on the CPU, not on {device}; load it without packed=True")
        return _load_packed(directory)
    with _open_checkpoint(directory) as stored, torch.no_grad():
        state = stored.classifier.model.to(device).state_dict()  # type: ignore[arg-type]
        layers = zip(stored.footprint.layers, stored.bit_map, strict=True)
        for layer, width in sorted(layers, key=lambda pair: -pair[0].elements):
            codes, parameters = stored.entry(layer, width, device)
            decode(codes, parameters, out=state[layer.parameter])
            del codes, parameters
            give_back_freed()
        for name, tensor in stored.kept():
            state[name].copy_(tensor)
        return Checkpoint(
            stored.classifier, stored.bit_map, stored.footprint, tuple(layer.name for layer in stored.footprint.layers)
        )


def _load_packed(directory: str | Path) -> Checkpoint:
    with _open_checkpoint(directory, hash_weights=False) as stored, torch.no_grad():
        classifier, sizes = stored.classifier, stored.footprint
        state = classifier.model.state_dict()
        tensors, sha256 = read_tensors(stored.path, into={name: state[name] for name in sizes.kept})
        if sha256 != stored.sha256:
            raise _not_described(stored.path)
        decoded = pack_layers(classifier.model, sizes, stored.bit_map, tensors, stored.check)
        for name in sizes.kept:
            stored.check_kept(name, state[name])
        classifier.model.save_pretrained = refuse_to_save  # type: ignore[method-assign]
    decoded |= unpack_read_layers(classifier.model, classifier.model.config.pad_token_id)
    give_back_freed()
    return Checkpoint(
        classifier, stored.bit_map, sizes, tuple(layer.name for layer in sizes.layers if layer.name in decoded)
    )


def read_quantized(directory: str | Path) -> tuple[Classifier, QuantizedModel]:
    """Return the quantised model of a packed checkpoint, and a classifier for its config and tokenizer.

    The classifier's own weights are uninitialised.

    Raises:
        InputError: as ``load_checkpoint``.
    """
    with _open_checkpoint(directory) as packed:
        sizes = packed.footprint
        entries = tuple(packed.entry(layer, width) for layer, width in zip(sizes.layers, packed.bit_map, strict=True))
        kept = dict(packed.kept())
        return packed.classifier, QuantizedModel(sizes.layers, packed.bit_map, entries, kept, sizes.scheme)


@dataclass(frozen=True)
class _Packed:
    """An open checkpoint whose files and tensor shapes fit its map; values are checked when they are read."""

    classifier: Classifier  # its weights are uninitialised
    bit_map: BitMap
    footprint: Footprint
    path: Path
    sha256: str  # of the file at path, by the manifest

    def entry(self, layer: Layer, width: int, device: str | torch.device = "cpu") -> Entry:
        """Return a layer's codes and parameters on a device."""
        scheme = self.footprint.scheme
        # Opened anew for each layer: the pages of an open file count as memory of the process.
        with safe_open(self.path, framework="pt") as stored:
            stream = stored.get_tensor(f"{layer.name}.codes").numpy()
            codes = torch.from_numpy(unpack(stream, width, layer.elements)).view(layer.rows, layer.columns).to(device)
            parts = {part: stored.get_tensor(f"{layer.name}.{part}").to(device) for part in scheme.parts(layer, width)}
        parameters = stored_parameters(scheme, codes, width, parts)
        self.check(layer, parameters)
        return codes, parameters

    def check(self, layer: Layer, parameters: Parameters) -> None:
        """Refuse parameters of a layer that decode nothing."""
        if fault := parameters.fault():
            raise InputError(f"{self.path}: {layer.name} has {fault}; {_REMEDY}")

    def kept(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value of each tensor that stays in full precision."""
        with safe_open(self.path, framework="pt") as stored:
            for name in self.footprint.kept:
                tensor: Tensor = stored.get_tensor(name)
                self.check_kept(name, tensor)
                yield name, tensor

    def check_kept(self, name: str, tensor: Tensor) -> None:
        """Refuse a tensor in full precision that is not finite."""
        if not tensor.isfinite().all():
            raise InputError(f"{self.path}: {name} has infinite or NaN values; {_REMEDY}")


@contextmanager
def _open_checkpoint(where: str | Path, hash_weights: bool = True) -> Iterator[_Packed]:
    """Check and open a checkpoint; without ``hash_weights``, that hash is left to the caller."""
    directory = Path(where)
    packed = read_manifest(directory)["packed"]
    described = packed["sha256"]
    present = _hashes(directory, {} if hash_weights else {WEIGHTS: described[WEIGHTS]})
    for name in sorted({*described, *present}):
        if name not in described:  # a tokenizer could read it: tokenizers have optional files
            raise InputError(f"{directory / name}: not listed in {MANIFEST}; remove it")
        if present.get(name) != described[name]:
            raise _not_described(directory / name)
    path, manifest = directory / WEIGHTS, directory / MANIFEST
    classifier = empty_classifier(directory)
    try:
        with safe_open(path, framework="pt") as stored:
            sizes = footprint_of(classifier.model, _scheme(stored.metadata(), path))
            bit_map = parse_bit_map(manifest.read_text(encoding="utf-8"), sizes.layers, str(manifest))
            text = (directory / BIT_MAP).read_text(encoding="utf-8", errors="replace") if BIT_MAP in described else ""
            if text != to_text(sizes.layers, bit_map) or packed.get("packed_bytes") != sizes.packed_bytes(bit_map):
                raise InputError(f"{manifest}: its bit map or size does not match the other files; {_REMEDY}")
            expected = sizes.packed_tensors(bit_map)
            if set(stored.keys()) != set(expected):
                raise InputError(f"{path}: its tensors are not those of its bit map; {_REMEDY}")
            for name, tensor in expected.items():
                actual = stored.get_slice(name)
                if actual.get_dtype() != tensor.dtype or tuple(actual.get_shape()) != tensor.shape:
                    raise InputError(f"{path}: the type or shape of {name} does not fit its bit map; {_REMEDY}")
        yield _Packed(classifier, bit_map, sizes, path, described[WEIGHTS])
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read ({error}); {_REMEDY}") from None


def _not_described(path: Path) -> InputError:
    return InputError(f"{path}: missing, or not the file that {MANIFEST} describes; {_REMEDY}")


def _scheme(metadata: Mapping[str, str] | None, path: Path) -> Scheme:
    try:
        [(key, format_)] = (metadata or {}).items()
        if key != "format":
            raise ValueError
        return Scheme.of_format(format_)
    except ValueError:
        raise InputError(f"{path}: its format is unknown to this version of bitfront; {_REMEDY}") from None


def packed_tensors(quantized: QuantizedModel) -> dict[str, Tensor]:
    """Return the tensors of a quantised model's packed file, by name."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in quantized.kept.items()}
    for layer, (codes, parameters) in zip(quantized.layers, quantized.entries, strict=True):
        tensors[f"{layer.name}.codes"] = torch.from_numpy(pack(codes.cpu().numpy().ravel(), parameters.width))
        shapes = quantized.scheme.parts(layer, parameters.width)
        for part, tensor in parameters.stored().items():
            tensors[f"{layer.name}.{part}"] = tensor.reshape(shapes[part].shape).contiguous().cpu()
    return tensors


def _hashes(directory: Path, known: Mapping[str, str] = {}) -> dict[str, str]:
    """Return the hash of each file of a checkpoint, without the manifest and files that no loader reads.

    Files whose hashes are ``known`` are not read.
    """
    paths = [path for path in sorted(directory.iterdir()) if path.is_file() and path.name != MANIFEST]
    read = [path for path in paths if path.suffix != ".md" and not path.name.startswith(".")]
    return {path.name: known.get(path.name) or file_hash(path) for path in read}
