"""Quantisers by name, and the banks they make: at once where that is quick, else layer by layer into the cache."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from objectives.batching import device_of
from objectives.errors import InputError
from objectives.layers import WIDTHS, Layer
from objectives.loading.fingerprint import short_digest, tensors_fingerprint
from objectives.loading.models import Classifier
from objectives.loading.sentences import load_sentences, tokenize, training_order
from objectives.memory import give_back_freed
from objectives.packing.scheme import PER_ROW, QuantizerName, Scheme
from objectives.quantization.bank import WeightBank
from objectives.quantization.dispatch import fits, groups_of, parameters_of
from objectives.quantization.gptq import HessianFactors, quantize_gptq
from objectives.quantization.parameters import Entry
from objectives.quantization.second_moments import second_moments
from objectives.tensor_files import save_tensors

_CALIBRATION_SENTENCES = 2048
_SAY_EVERY_S = 15.0
_DIGEST = "fingerprint"


@dataclass(frozen=True)
class Quantizer:
    """How weights become codes.

    Attributes:
        identity: name and version, and what it was calibrated on; part of a run's fingerprint. Raise the version
            whenever the codes can change.
        token_ids: the calibration sentences; empty where none are needed.
        scheme: what codes are decoded with.
    """

    identity: str
    token_ids: tuple[tuple[int, ...], ...] = ()
    scheme: Scheme = PER_ROW


def load_quantizer(name: QuantizerName, classifier: Classifier, data: str, group_size: int = 0) -> Quantizer:
    """Return a quantiser, with unlabelled training sentences of ``data`` where it is to be calibrated.

    With a ``group_size`` its scales and zero points are those of so many columns each (see ``Scheme``).

    Raises:
        InputError: there are no training sentences to calibrate on.
        ValueError: a codebook is to have groups.
    """
    scheme = Scheme("codebook" if name == "codebook" else "affine", group_size)
    grouped = f" in groups of {group_size}" if group_size else ""
    if name != "calibrated":
        return Quantizer(f"{name}-1{grouped}", scheme=scheme)
    try:
        texts = load_sentences(data, "train").texts
    except InputError as error:
        raise InputError(f"{error}; or use --quantizer affine, which needs no training sentences") from error
    chosen = training_order(len(texts))[:_CALIBRATION_SENTENCES]
    token_ids = tokenize(classifier.tokenizer, [texts[index] for index in sorted(chosen)], classifier.max_tokens)
    return Quantizer(f"calibrated-2{grouped} on {short_digest(json.dumps(token_ids))}", token_ids, scheme)


def make_bank(
    quantizer: Quantizer,
    model: nn.Module,
    layers: Sequence[Layer],
    fingerprint: str,
    cache: Path,
    report_progress: Callable[[str], None],
    in_files: bool = False,
) -> WeightBank:
    """Return the bank of a model.

    A calibrated one is made in full, each layer kept in a file of the cache as soon as it is done, and read from there
    the next time. Files are mapped, not copied: processes that read the same ones share them in memory. It is made on
    the CPU, wherever the model is: a GPU makes no difference to its codes, and would have to be sent millions of small
    steps one by one.

    Args:
        quantizer: as :func:`load_quantizer` returns it.
        model: the FP32 model, on the device on which the bank shall be.
        layers: its searchable layers.
        fingerprint: the model's.
        cache: a directory.
        report_progress: told now and then how far it is.
        in_files: make one that needs no calibration that way too, for processes to share.
    """
    bank = WeightBank.of(model, layers, quantizer.scheme)
    if not (quantizer.token_ids or in_files):
        return bank
    folder = cache / f"bank-{short_digest(f'{fingerprint} {quantizer.identity}')}"
    paths = {layer: folder / f"{layer.name}.safetensors" for layer in layers}

    def kept(layer: Layer) -> tuple[Entries, str] | None:
        return _read(paths[layer], quantizer.scheme, layer)

    def fill(layer: Layer, entries: Entries, digest: str) -> None:
        bank.fill(layer, _moved(entries, quantizer.scheme, device_of(model)), digest)

    missing = []
    for layer in layers:
        found = kept(layer)
        if found is None:
            missing.append(layer)
        else:
            fill(layer, *found)
    made: Iterable[tuple[Layer, Entries]]
    if quantizer.token_ids and missing:
        report_progress(f"calibrating on {len(quantizer.token_ids)} training sentences")
        made = calibrated_entries(quantizer, _on_cpu(model), missing)
    else:
        made = ((layer, {width: bank.entry(layer, width) for width in WIDTHS}) for layer in missing)
    said = time.monotonic()
    for done, (layer, entries) in enumerate(made, start=len(layers) - len(missing) + 1):
        digest = _write(paths[layer], entries)
        fill(layer, *(kept(layer) or (entries, digest)))  # the file itself, and not what was put together for it
        give_back_freed()  # gigabytes in the end: glibc keeps it for the threads that had it
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            report_progress(f"quantising: {done}/{len(layers)} layers")
    return bank


Entries = dict[int, Entry]
"""A layer's codes and their parameters by width."""


def calibrated_entries(
    quantizer: Quantizer, model: nn.Module, layers: Sequence[Layer], widths: Sequence[int] = WIDTHS
) -> Iterator[tuple[Layer, Entries]]:
    """Yield the calibrated entries of layers of an FP32 model, as each is done; several are worked on at a time.

    Whoever stops early waits a few seconds for what is being worked on.

    Args:
        quantizer: with calibration sentences.
        model: in FP32.
        layers: of the model.
        widths: to quantise to.
    """
    if not layers:
        return
    moments = dict(second_moments(model, layers, quantizer.token_ids))
    give_back_freed()
    over = threading.Event()

    def entries_of(layer: Layer) -> tuple[Layer, Entries]:
        factors = HessianFactors.of(moments.pop(layer.name))  # as large as all weights: each is let go
        weight = model.get_parameter(layer.parameter).detach()
        groups = groups_of(quantizer.scheme, weight)
        return layer, {width: quantize_gptq(weight, width, factors, groups, over.is_set) for width in widths}

    # A layer's columns follow one another: more threads help little within it, and much across layers.
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(max_workers=threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            # Not in their order: the first of them is the largest by far, and what is done is to be kept.
            for done in as_completed([pool.submit(entries_of, layer) for layer in layers]):
                yield done.result()
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _on_cpu(model: nn.Module) -> nn.Module:
    return model if device_of(model).type == "cpu" else copy.deepcopy(model).cpu()


def _moved(entries: Entries, scheme: Scheme, device: torch.device) -> Entries:
    """Return a layer's entries on a device."""
    moved = {}
    for width, (codes, parameters) in entries.items():
        tensors = {part: tensor.to(device) for part, tensor in parameters.tensors().items()}
        codes = codes.to(device)
        moved[width] = codes, parameters_of(scheme, codes, width, tensors)
    return moved


def _write(path: Path, entries: Entries) -> str:
    """Write a layer's entries, and return their fingerprint, which stands in the file too."""
    tensors: dict[str, Tensor] = {}
    for width, (codes, parameters) in entries.items():
        parts = {"codes": codes, **parameters.tensors()}
        tensors |= {f"{width}.{part}": tensor.contiguous().cpu() for part, tensor in parts.items()}
    digest = tensors_fingerprint(tensors)
    save_tensors(path, tensors, {_DIGEST: digest})
    return digest


def _read(path: Path, scheme: Scheme, layer: Layer) -> tuple[Entries, str] | None:
    """Return a layer's entries and their fingerprint; None where the file is missing or damaged, to be made anew."""
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            recorded = (file.metadata() or {}).get(_DIGEST)
        if recorded is None or recorded != tensors_fingerprint(found):
            return None
        entries: Entries = {}
        for width in WIDTHS:
            codes = found[f"{width}.codes"]
            parts = {part: found[f"{width}.{part}"] for part in scheme.parts(layer, width)}
            entries[width] = codes, parameters_of(scheme, codes, width, parts)
    except (OSError, SafetensorError, KeyError):
        return None
    sound = all(
        codes.shape == (layer.rows, layer.columns)
        and codes.dtype == torch.uint8
        and int(codes.max()) < 2**width
        and fits(scheme, layer, parameters)
        for width, (codes, parameters) in entries.items()
    )
    return (entries, recorded) if sound else None
