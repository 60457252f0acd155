import os
import shutil
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives.cache import prune
from objectives.errors import InputError
from objectives.layers import WIDTHS
from objectives.loading.fingerprint import model_fingerprint
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import Classifier, load_classifier
from objectives.packing.scheme import Scheme
from objectives.quantization import gptq
from objectives.quantization.affine import choose_affine, encode
from objectives.quantization.bank_cache import (
    Quantizer,
    calibrated_entries,
    calibration_seconds,
    load_quantizer,
    make_bank,
    missing_codes,
)
from objectives.quantization.parameters import decode
from tests.objectives.tiny_bert import make_tiny_bert
from tests.search.tiny_problem import TinyProblem, make_tiny_problem
from tests.waiting import wait_until

pytestmark = pytest.mark.end_to_end  # models are calibrated


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyProblem:
    return make_tiny_problem(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def classifier(tiny: TinyProblem) -> Classifier:
    return load_classifier(str(tiny.model))


@pytest.fixture(scope="module")
def calibrated(tiny: TinyProblem, classifier: Classifier) -> Quantizer:
    return load_quantizer("calibrated", classifier, str(tiny.data))


@pytest.fixture(scope="module")
def made(calibrated: Quantizer, classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the model's calibrated bank."""
    cache = tmp_path_factory.mktemp("made")
    model = classifier.model
    make_bank(calibrated, model, find_layers(model), model_fingerprint(model), cache, silent)
    return cache


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(made, tmp_path / "cache")


def silent(line: str) -> None:
    pass


def test_a_quantizer_says_what_it_was_calibrated_on(
    calibrated: Quantizer, classifier: Classifier, tiny: TinyProblem, tmp_path: Path
) -> None:
    assert len(calibrated.token_ids) == 80
    other = make_tiny_problem(tmp_path, seed=1)
    assert load_quantizer("calibrated", classifier, str(other.data)).identity != calibrated.identity
    assert load_quantizer("affine", classifier, "no such place").identity == "affine-1"
    assert load_quantizer("codebook", classifier, "no such place").identity == "codebook-1"
    grouped = [load_quantizer("calibrated", classifier, str(tiny.data), size) for size in (0, 8, 16)]
    assert len({quantizer.identity for quantizer in grouped}) == 3
    assert grouped[0].identity == calibrated.identity
    assert load_quantizer("affine", classifier, "", 8).identity == "affine-1 in groups of 8"


def test_an_affine_bank_needs_no_cache(classifier: Classifier, tmp_path: Path) -> None:
    layers = find_layers(classifier.model)
    make_bank(load_quantizer("affine", classifier, ""), classifier.model, layers, "m", tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group_size", [0, 5])
def test_a_calibrated_bank_is_made_once(
    group_size: int, classifier: Classifier, tiny: TinyProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated = load_quantizer("calibrated", classifier, str(tiny.data), group_size)
    layers = find_layers(classifier.model)
    monkeypatch.setattr(
        "objectives.quantization.bank_cache._REPORT_EVERY_S", float("inf")
    )  # however slow the machine is
    messages: list[str] = []
    assert missing_codes(calibrated, layers, "m", tmp_path) == list(layers)
    assert 0 < calibration_seconds(calibrated, classifier.model, layers) < 600
    first = make_bank(calibrated, classifier.model, layers, "m", tmp_path, messages.append)
    assert missing_codes(calibrated, layers, "m", tmp_path) == []
    assert messages == ["calibrating on 80 training sentences"]
    changed = 0
    for layer in layers:
        weight = classifier.model.get_parameter(layer.parameter).detach()
        for width in WIDTHS:
            codes, parameters = first.entry(layer, width)
            nearest = encode(weight, choose_affine(weight, width))
            assert parameters.width == width
            changed += not torch.equal(codes, nearest)
    assert changed > 0.5 * len(layers) * len(WIDTHS)

    for path in (*tmp_path.glob("*/*"), *tmp_path.iterdir()):
        os.utime(path, (0, 0))
    with monkeypatch.context() as patched:
        patched.delattr("objectives.quantization.bank_cache.second_moments")
        again = make_bank(calibrated, classifier.model, layers, "m", tmp_path, messages.append)
    assert len(messages) == 1
    assert prune(tmp_path, days=1) == []  # it was used just now
    for layer in layers:
        for width in WIDTHS:
            assert torch.equal(again.entry(layer, width)[0], first.entry(layer, width)[0])
            found, expected = (decode(*of.entry(layer, width)) for of in (again, first))
            assert torch.equal(found, expected)


@pytest.mark.parametrize("fault", ["absent", "cut off", "of another layer", "one bit"])
def test_what_is_damaged_in_the_cache_is_made_again(
    calibrated: Quantizer, classifier: Classifier, cache: Path, fault: str
) -> None:
    layers, name = find_layers(classifier.model), model_fingerprint(classifier.model)
    first = make_bank(calibrated, classifier.model, layers, name, cache, silent).entry(layers[-1], 2)[0].clone()
    (folder,) = cache.iterdir()
    path = folder / f"{layers[-1].name}.safetensors"
    whole = path.read_bytes()
    match fault:
        case "absent":
            path.unlink()
        case "cut off":
            path.write_bytes(whole[:-1])
        case "of another layer":
            path.write_bytes((folder / f"{layers[0].name}.safetensors").read_bytes())
        case "one bit":
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = make_bank(calibrated, classifier.model, layers, name, cache, silent)
    assert path.read_bytes() == whole
    assert torch.equal(again.entry(layers[-1], 2)[0], first)


def test_another_model_has_a_bank_of_its_own(calibrated: Quantizer, cache: Path, tmp_path: Path) -> None:
    other = load_classifier(str(make_tiny_bert(tmp_path / "model", seed=7))).model
    make_bank(calibrated, other, find_layers(other), model_fingerprint(other), cache, silent)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell what is mapped")
@pytest.mark.parametrize("quantizer", [Quantizer("affine-1"), Quantizer("codebook-1", (), Scheme("codebook"))], ids=str)
def test_processes_share_a_bank_that_lies_in_files(
    quantizer: Quantizer, classifier: Classifier, tmp_path: Path
) -> None:
    layers = find_layers(classifier.model)
    own = make_bank(quantizer, classifier.model, layers, "m", tmp_path, silent)
    assert not list(tmp_path.iterdir())
    for _ in range(2):  # made, then found
        bank = make_bank(quantizer, classifier.model, layers, "m", tmp_path, silent, in_files=True)
        for layer in layers:
            for width in WIDTHS:
                assert torch.equal(bank.entry(layer, width)[0], own.entry(layer, width)[0])
                found, expected = (of.entry(layer, width)[1].tensors() for of in (bank, own))
                assert found.keys() == expected.keys()
                assert all(torch.equal(found[part], expected[part]) for part in expected)
        (folder,) = tmp_path.iterdir()
        mapped = Path("/proc/self/smaps").read_text()
        assert all(str(folder / f"{layer.name}.safetensors") in mapped for layer in layers)


def test_the_codes_that_a_machine_calibrated_have_a_fingerprint(
    calibrated: Quantizer, classifier: Classifier, cache: Path
) -> None:
    layers, name = find_layers(classifier.model), model_fingerprint(classifier.model)

    def fingerprint(quantizer: Quantizer) -> str:
        return make_bank(quantizer, classifier.model, layers, name, cache, silent).fingerprint

    assert fingerprint(Quantizer("affine-1")) == ""
    made = fingerprint(calibrated)
    assert made
    assert made == fingerprint(calibrated)
    assert made != fingerprint(Quantizer(calibrated.identity + "'", calibrated.token_ids[:40]))


def test_calibrating_without_training_sentences_names_the_way_out(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use --quantizer affine"):
        load_quantizer("calibrated", classifier, str(tmp_path))


def test_who_stops_a_calibration_has_every_layer_that_was_done_and_does_not_wait_for_the_rest(
    calibrated: Quantizer, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest, *others = find_layers(classifier.model)

    def endless(weight: Tensor, *arguments: Any) -> Tensor:
        should_stop = arguments[-1]
        if weight.shape == (largest.rows, largest.columns):
            wait_until(should_stop, timeout_s=60, pause_s=0.001)
        return weight

    monkeypatch.setattr("objectives.quantization.bank_cache.quantize_gptq", endless)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # one for the layer that does not end
    try:
        made = calibrated_entries(calibrated, classifier.model, [largest, *others])
        assert {next(made)[0] for _ in others} == set(others)
        made.close()  # type: ignore[attr-defined]  # a generator
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(CancelledError):
        gptq.quantize_gptq(torch.eye(4), 4, gptq.HessianFactors.of(torch.eye(4)), None, should_stop=lambda: True)
