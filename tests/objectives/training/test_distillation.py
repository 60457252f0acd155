from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from objectives.heads import TWO_CLASSES
from objectives.layers import BitMap
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import Classifier, load_classifier
from objectives.loading.sentences import load_sentences
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.affine import AffineParameters, storable_zero_point
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from objectives.training import distillation as polishing
from objectives.training.distillation import TrainingSentences, polish
from results.export.packed import WEIGHTS, load_checkpoint, write_checkpoint
from tests.objectives.random_models import random_bert, random_roberta, random_sentences
from tests.search.tiny_problem import make_tiny_problem

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_classifier(str(make_tiny_problem(tmp_path_factory.mktemp("tiny")).model))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory, classifier: Classifier) -> TrainingSentences:
    tiny = make_tiny_problem(tmp_path_factory.mktemp("sentences"), seed=1, sentences=200)
    ids = classifier.tokenize(load_sentences(str(tiny.data), "train").texts)
    return TrainingSentences(ids, classifier.tokenizer.all_special_ids)


SCHEMES = pytest.mark.parametrize("scheme", [PER_ROW, Scheme("codebook"), Scheme(group_size=6)], ids=str)


def quantized_to(model: torch.nn.Module, bit_map: BitMap, scheme: Scheme = PER_ROW) -> QuantizedModel:
    return QuantizedModel.of(model, WeightBank(model, find_layers(model), scheme), bit_map)


def mixed_bits(model: torch.nn.Module) -> BitMap:
    return tuple(2 + index % 7 for index in range(len(find_layers(model))))


def logits_of(model: torch.nn.Module, sentences: Sequence[Sequence[int]]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in sentences])


def log_odds_of(model: torch.nn.Module, sentences: Sequence[Sequence[int]]) -> torch.Tensor:
    return TWO_CLASSES.outputs(logits_of(model, sentences))


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few and small batches a step has to be larger."""
    monkeypatch.setattr(polishing, "_LEARNING_RATE", 0.01)
    monkeypatch.setattr(polishing, "_BATCH_TOKENS", 64)


@SCHEMES
@pytest.mark.usefixtures("quickly")
def test_polishing_does_less_damage_in_as_many_bytes(
    scheme: Scheme, classifier: Classifier, sentences: TrainingSentences, tmp_path: Path
) -> None:
    quantized = quantized_to(classifier.model, (3,) * len(find_layers(classifier.model)), scheme)
    fp32_before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    polished = polish(quantized, classifier.model, sentences, epochs=6)
    assert polished is not None
    assert polished.kept
    assert polished.damage_after < 0.7 * polished.damage_before
    assert all(torch.equal(tensor, fp32_before[name]) for name, tensor in classifier.model.state_dict().items())

    unseen = random_sentences(5, n=40)
    unseen = [[token % 15 + 5 for token in ids] for ids in unseen]
    expected = log_odds_of(classifier.model, unseen)
    before, after = (
        float(TWO_CLASSES.torch_divergences(log_odds_of(model.decoded(classifier.model), unseen), expected).mean())
        for model in (quantized, polished.model)
    )
    assert after < before

    for (codes, start), (polished_codes, end) in zip(quantized.entries, polished.model.entries, strict=True):
        assert torch.equal(codes, polished_codes)
        if isinstance(end, AffineParameters):
            assert torch.equal(end.zero_point, storable_zero_point(end.zero_point, end.width))
        assert end.fault() == ""
        assert not torch.equal(start.scale, end.scale)
    lengths = {
        write_checkpoint(classifier, model, {}, tmp_path / name)
        for name, model in (("before", quantized), ("after", polished.model))
    }
    assert lengths == {footprint_of(classifier.model, scheme).packed_bytes(quantized.bit_map)}
    assert len({(tmp_path / name / WEIGHTS).stat().st_size for name in ("before", "after")}) == 1
    loaded = load_checkpoint(tmp_path / "after").classifier
    decoded = polished.model.decoded(classifier.model)
    assert all(torch.equal(tensor, decoded.state_dict()[name]) for name, tensor in loaded.model.state_dict().items())


@pytest.mark.usefixtures("quickly")
def test_a_seed_reproduces_it_exactly(classifier: Classifier, sentences: TrainingSentences) -> None:
    quantized = quantized_to(classifier.model, mixed_bits(classifier.model))
    once, again, other = (polish(quantized, classifier.model, sentences, 1, seed) for seed in (3, 3, 4))
    assert once is not None
    assert again is not None
    assert other is not None
    assert (once.damage_before, once.damage_after) == (again.damage_before, again.damage_after)
    assert once.damage_after != other.damage_after
    for (_, one), (_, two) in zip(once.model.entries, again.model.entries, strict=True):
        assert all(torch.equal(tensor, two.tensors()[name]) for name, tensor in one.tensors().items())
    assert all(torch.equal(tensor, again.model.kept[name]) for name, tensor in once.model.kept.items())


def test_what_the_held_out_sentences_are_worse_off_with_is_not_kept(
    classifier: Classifier, sentences: TrainingSentences, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polishing, "_LEARNING_RATE", 3.0)
    quantized = quantized_to(classifier.model, (8,) * len(find_layers(classifier.model)))
    polished = polish(quantized, classifier.model, sentences, epochs=1)
    assert polished is not None
    assert not polished.kept
    assert polished.damage_after > polished.damage_before
    assert polished.model is quantized


def test_it_stops_when_asked_to(classifier: Classifier, sentences: TrainingSentences) -> None:
    quantized = quantized_to(classifier.model, mixed_bits(classifier.model))
    assert polish(quantized, classifier.model, sentences, 1, should_stop=lambda: True) is None


@SCHEMES
@pytest.mark.parametrize("model", [random_bert(), random_roberta()], ids=["bert", "roberta"])
def test_what_is_tuned_computes_what_is_stored(model: torch.nn.Module, scheme: Scheme) -> None:
    quantized = quantized_to(model, mixed_bits(model), scheme)
    student = polishing._Student(quantized, model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for index, (_, parameters) in enumerate(quantized.entries):
            student.log_gains[index].normal_(0, 0.2, generator=generator)
            if student.shifts[index].requires_grad and not scheme.group_size:  # no shift is whole steps of all groups
                assert isinstance(parameters, AffineParameters)
                # Whole steps of what is stored, towards the middle: nothing is lost when they are rounded.
                sign = torch.where(parameters.zero_point < 2 ** (parameters.width - 1), -1.0, 1.0)
                steps = torch.randint(0, 3, sign.shape, generator=generator) * sign * 2.0 ** (parameters.width - 8)
                student.shifts[index].copy_((steps * parameters.scale).flatten() / student._spreads[index])
        for parameter in student.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    ids = random_sentences(0, n=8)
    tuned = student.tuned().decoded(model)
    torch.testing.assert_close(logits_of(student.network, ids), logits_of(tuned, ids), rtol=1e-4, atol=1e-4)
    assert float((logits_of(tuned, ids) - logits_of(quantized.decoded(model), ids)).abs().max()) > 0.1


def test_augmentation_keeps_the_ends_and_the_length() -> None:
    rng = np.random.default_rng(0)
    augmentation = polishing._Augmentation.of([[2, 7, 8, 9, 3], [2, 5, 3]], [0, 2, 3])
    changed = 0
    for _ in range(100):
        ids = augmentation([2, 7, 8, 9, 3], rng)
        assert (ids[0], ids[-1], len(ids)) == (2, 3, 5)
        assert set(ids[1:-1]) <= {5, 7, 8, 9}
        changed += ids != [2, 7, 8, 9, 3]
    assert changed > 50
    assert augmentation([2, 5, 3], rng) == [2, 5, 3]  # a single word stays


def test_one_sentence_is_too_few(classifier: Classifier) -> None:
    quantized = quantized_to(classifier.model, mixed_bits(classifier.model))
    with pytest.raises(ValueError, match="at least two sentences, got 1"):
        polish(quantized, classifier.model, TrainingSentences([[2, 5, 3]], [2, 3]), 1)
