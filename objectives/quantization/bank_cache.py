"""Quantisers by name, and their banks; a calibrated bank is computed once and cached, one file for each layer."""

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
from objectives.cache import mark_used, writable_cache
from objectives.errors import InputError
from objectives.layers import WIDTHS, Layer
from objectives.loading.fingerprint import short_digest, tensors_fingerprint
from objectives.loading.models import Classifier
from objectives.loading.sentences import load_texts, training_order
from objectives.loading.tasks import ALL_DEFAULT, DataOptions
from objectives.memory import give_back_freed
from objectives.packing.scheme import PER_ROW, QuantizerName, Scheme
from objectives.quantization.bank import WeightBank
from objectives.quantization.dispatch import groups_of, parameters_of, shapes_match
from objectives.quantization.gptq import HessianFactors, quantize_gptq
from objectives.quantization.parameters import Entry
from objectives.quantization.second_moments import second_moments
from objectives.tensor_files import save_tensors

_CALIBRATION_SENTENCES = 2048
_REPORT_EVERY_S = 15.0
_TIMED_SENTENCES, _TIMED_ROWS = 64, 256
_DIGEST = "fingerprint"


@dataclass(frozen=True)
class Quantizer:
    """How weights become codes.

    Attributes:
        identity: name, version and calibration sentences; part of a run's fingerprint. Raise the version whenever
            the codes can change.
        token_ids: the calibration sentences; empty if it needs none.
        scheme: which parameters decode the codes.
    """

    identity: str
    token_ids: tuple[tuple[int, ...], ...] = ()
    scheme: Scheme = PER_ROW


def load_quantizer(
    name: QuantizerName, classifier: Classifier, data: str, group_size: int = 0, options: DataOptions = ALL_DEFAULT
) -> Quantizer:
    """Return a quantiser; ``calibrated`` (GPTQ) takes its calibration sentences, unlabelled, from ``data``.

    They come from the training split, or the file of the options. A ``group_size`` other than 0 is how many columns
    share a scale and a zero point (see ``Scheme``).

    Raises:
        InputError: there are no training sentences to calibrate on.
        ValueError: a codebook with groups.
    """
    scheme = Scheme("codebook" if name == "codebook" else "affine", group_size)
    grouped = f" in groups of {group_size}" if group_size else ""
    if name != "calibrated":
        return Quantizer(f"{name}-1{grouped}", scheme=scheme)
    try:
        texts = load_texts(data, options)
    except InputError as error:
        raise InputError(
            f"{error}; or calibrate on other texts with --calibration FILE, or use --quantizer affine, which needs none"
        ) from error
    chosen = training_order(len(texts))[:_CALIBRATION_SENTENCES]
    token_ids = classifier.encode([texts[index] for index in sorted(chosen)]).ids
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

    A calibrated bank is computed in full. Each layer is written to a file of the cache as soon as it is done, and read
    from there the next time. Files are memory-mapped, so processes share them. Calibration always runs on the CPU, so
    that codes do not depend on the device; a GPU would have to launch millions of small steps.

    Args:
        quantizer: as :func:`load_quantizer` returns it.
        model: the FP32 model, on the bank's device.
        layers: its searchable layers.
        fingerprint: the model's fingerprint.
        cache: a directory.
        report_progress: takes a line of progress now and then.
        in_files: cache a bank without calibration as well, so that processes share it.
    """
    bank = WeightBank(model, layers, quantizer.scheme)
    if not (quantizer.token_ids or in_files):
        return bank
    paths = _paths(quantizer, layers, fingerprint, cache)
    folder = paths[layers[0]].parent

    def fill_from_file(layer: Layer) -> bool:
        if cached := _read(paths[layer], quantizer.scheme, layer):
            entries, digest = cached
            bank.fill(layer, _to_device(entries, quantizer.scheme, device_of(model)), digest)
        return cached is not None

    mark_used(folder)
    missing = [layer for layer in layers if not fill_from_file(layer)]
    if missing:
        writable_cache(folder)  # before minutes of calibration
    computed: Iterable[tuple[Layer, Entries]]
    if quantizer.token_ids and missing:
        report_progress(f"calibrating on {len(quantizer.token_ids)} training sentences")
        computed = calibrated_entries(quantizer, _on_cpu(model), missing)
    else:
        computed = ((layer, {width: bank.entry(layer, width) for width in WIDTHS}) for layer in missing)
    last_report_s = time.monotonic()
    for n_done, (layer, entries) in enumerate(computed, start=len(layers) - len(missing) + 1):
        digest = _write(paths[layer], entries)
        if not fill_from_file(layer):  # the mapped file, which processes share, is preferred
            bank.fill(layer, _to_device(entries, quantizer.scheme, device_of(model)), digest)
        give_back_freed()  # glibc would keep gigabytes for the threads that freed them
        if time.monotonic() - last_report_s > _REPORT_EVERY_S:
            last_report_s = time.monotonic()
            report_progress(f"quantising: {n_done}/{len(layers)} layers")
    return bank


def _on_cpu(model: nn.Module) -> nn.Module:
    return model if device_of(model).type == "cpu" else copy.deepcopy(model).cpu()


def _paths(quantizer: Quantizer, layers: Sequence[Layer], fingerprint: str, cache: Path) -> dict[Layer, Path]:
    folder = cache / f"bank-{short_digest(f'{fingerprint} {quantizer.identity}')}"
    return {layer: folder / f"{layer.name}.safetensors" for layer in layers}


def missing_codes(quantizer: Quantizer, layers: Sequence[Layer], fingerprint: str, cache: Path) -> list[Layer]:
    """Return the layers whose codes :func:`make_bank` would calibrate, since the cache has no file of them."""
    paths = _paths(quantizer, layers, fingerprint, cache)
    return [layer for layer in layers if quantizer.token_ids and not paths[layer].is_file()]


def calibration_seconds(quantizer: Quantizer, model: nn.Module, layers: Sequence[Layer]) -> float:
    """Estimate how long the codes of layers take, in seconds.

    Timed are the second moments on a few sentences, and for each number of columns the factors of one layer and some
    of its rows at one width. A row takes as long at each width.

    Args:
        quantizer: a quantiser with calibration sentences.
        model: the FP32 model.
        layers: the layers to calibrate.
    """
    if not layers:
        return 0.0
    model, sample = _on_cpu(model), quantizer.token_ids[:_TIMED_SENTENCES]
    began = time.monotonic()
    moments = second_moments(model, layers, sample)
    moments_s = time.monotonic() - began
    tokens, timed_tokens = (sum(map(len, token_ids)) for token_ids in (quantizer.token_ids, sample))
    factors_s: dict[int, float] = {}
    row_s: dict[int, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as calibrated_entries does
    try:
        for layer in layers:
            if layer.columns in factors_s:
                continue
            weight = model.get_parameter(layer.parameter).detach()[:_TIMED_ROWS]
            began = time.monotonic()
            factors = HessianFactors.of(moments[layer.name])
            factored = time.monotonic()
            quantize_gptq(weight, WIDTHS[-1], factors, groups_of(quantizer.scheme, weight))
            factors_s[layer.columns] = factored - began
            row_s[layer.columns] = (time.monotonic() - factored) / len(weight)
    finally:
        torch.set_num_threads(threads)
    each = (factors_s[layer.columns] + len(WIDTHS) * layer.rows * row_s[layer.columns] for layer in layers)
    return moments_s * tokens / timed_tokens + sum(each) / threads


Entries = dict[int, Entry]
"""A layer's codes and their parameters by width."""


def calibrated_entries(
    quantizer: Quantizer, model: nn.Module, layers: Sequence[Layer], widths: Sequence[int] = WIDTHS
) -> Iterator[tuple[Layer, Entries]]:
    """Yield each layer with its calibrated entries as soon as they are done; threads share the layers.

    Closing the generator early takes a few seconds, until the threads stop.

    Args:
        quantizer: a quantiser with calibration sentences.
        model: the FP32 model.
        layers: layers of the model.
        widths: the widths to quantise to.
    """
    if not layers:
        return
    moments = dict(second_moments(model, layers, quantizer.token_ids))
    give_back_freed()
    stop = threading.Event()

    def entries_of(layer: Layer) -> tuple[Layer, Entries]:
        factors = HessianFactors.of(moments.pop(layer.name))  # popped: all moments take as much memory as all weights
        weight = model.get_parameter(layer.parameter).detach()
        groups = groups_of(quantizer.scheme, weight)
        return layer, {width: quantize_gptq(weight, width, factors, groups, stop.is_set) for width in widths}

    # GPTQ goes column by column: threads help little within a layer, and much across layers.
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(max_workers=threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            # As completed: the first layer is the largest by far, and others are cached meanwhile.
            for future in as_completed([pool.submit(entries_of, layer) for layer in layers]):
                yield future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _to_device(entries: Entries, scheme: Scheme, device: torch.device) -> Entries:
    """Copy a layer's entries to a device."""
    moved = {}
    for width, (codes, parameters) in entries.items():
        tensors = {part: tensor.to(device) for part, tensor in parameters.tensors().items()}
        codes = codes.to(device)
        moved[width] = codes, parameters_of(scheme, codes, width, tensors)
    return moved


def _write(path: Path, entries: Entries) -> str:
    """Write a layer's entries with their fingerprint, and return the fingerprint."""
    tensors: dict[str, Tensor] = {}
    for width, (codes, parameters) in entries.items():
        parts = {"codes": codes, **parameters.tensors()}
        tensors |= {f"{width}.{part}": tensor.contiguous().cpu() for part, tensor in parts.items()}
    digest = tensors_fingerprint(tensors)
    save_tensors(path, tensors, {_DIGEST: digest})
    return digest


def _read(path: Path, scheme: Scheme, layer: Layer) -> tuple[Entries, str] | None:
    """Return a layer's entries and their fingerprint; None if the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            recorded = (file.metadata() or {}).get(_DIGEST)
        if recorded is None or recorded != tensors_fingerprint(tensors):
            return None
        entries: Entries = {}
        for width in WIDTHS:
            codes = tensors[f"{width}.codes"]
            parts = {part: tensors[f"{width}.{part}"] for part in scheme.parts(layer, width)}
            entries[width] = codes, parameters_of(scheme, codes, width, parts)
    except (OSError, SafetensorError, KeyError):
        return None
    valid = all(
        codes.shape == (layer.rows, layer.columns)
        and codes.dtype == torch.uint8
        and int(codes.max()) < 2**width
        and shapes_match(scheme, layer, parameters)
        for width, (codes, parameters) in entries.items()
    )
    return (entries, recorded) if valid else None
