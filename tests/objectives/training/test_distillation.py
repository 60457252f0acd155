from collections.abc import Sequence
from dataclasses import replace
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
from objectives.training import distillation, student
from objectives.training.augmentation import Augmentation
from objectives.training.distillation import Distilled, Training, TrainingSentences, distil
from objectives.training.student import Student, Trained
from results.export.packed import WEIGHTS, load_checkpoint, write_checkpoint
from tests.objectives.random_models import random_bert, random_roberta, random_sentences
from tests.search.tiny_problem import make_tiny_problem

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_classifier(str(make_tiny_problem(tmp_path_factory.mktemp("tiny")).model))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory, classifier: Classifier) -> TrainingSentences:
    tiny = make_tiny_problem(tmp_path_factory.mktemp("sentences"), seed=1, sentences=90)
    ids = classifier.tokenize(load_sentences(str(tiny.data), "train").texts)
    return TrainingSentences(ids, classifier.tokenizer.all_special_ids)


GROUPS = Scheme(group_size=6)
WAYS = pytest.mark.parametrize(
    ("scheme", "trained"),
    [
        (PER_ROW, "scales"),
        (Scheme("codebook"), "scales"),
        (GROUPS, "scales"),
        (PER_ROW, "weights"),
        (GROUPS, "weights"),
    ],
    ids=str,
)


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
    monkeypatch.setattr(distillation, "LATENT_RATE", 0.015)
    for name in ("_LEVEL_RATE", "_OTHER_RATE"):
        monkeypatch.setattr(student, name, 0.01)
    monkeypatch.setattr(distillation, "_BATCH_TOKENS", 64)


def assert_same(one: Distilled, two: Distilled) -> None:
    assert (one.damage_before, one.damage_after) == (two.damage_before, two.damage_after)
    for (codes, first), (other_codes, second) in zip(one.model.entries, two.model.entries, strict=True):
        assert torch.equal(codes, other_codes)
        assert all(torch.equal(tensor, second.tensors()[name]) for name, tensor in first.tensors().items())
    assert all(torch.equal(tensor, two.model.kept[name]) for name, tensor in one.model.kept.items())


@WAYS
@pytest.mark.usefixtures("quickly")
def test_distillation_does_less_damage_in_as_many_bytes(
    scheme: Scheme, trained: Trained, classifier: Classifier, sentences: TrainingSentences, tmp_path: Path
) -> None:
    quantized = quantized_to(classifier.model, (3,) * len(find_layers(classifier.model)), scheme)
    fp32_before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    distilled = distil(quantized, classifier.model, sentences, Training(trained, epochs=5))
    assert distilled.kept
    assert distilled.finished
    assert distilled.damage_after < 0.7 * distilled.damage_before
    assert all(torch.equal(tensor, fp32_before[name]) for name, tensor in classifier.model.state_dict().items())

    unseen = random_sentences(5, n=40)
    unseen = [[token % 15 + 5 for token in ids] for ids in unseen]
    expected = log_odds_of(classifier.model, unseen)
    before, after = (
        float(TWO_CLASSES.torch_divergences(log_odds_of(model.decoded(classifier.model), unseen), expected).mean())
        for model in (quantized, distilled.model)
    )
    assert after < before

    same_codes = []
    for (codes, start), (new_codes, end) in zip(quantized.entries, distilled.model.entries, strict=True):
        same_codes.append(torch.equal(codes, new_codes))
        assert int(new_codes.max()) < 2**start.width
        if isinstance(end, AffineParameters):
            assert torch.equal(end.zero_point, storable_zero_point(end.zero_point, end.width))
        assert end.fault() == ""
        assert not torch.equal(start.scale, end.scale)
    assert all(same_codes) == (trained == "scales")
    lengths = {
        write_checkpoint(classifier, model, {}, tmp_path / name)
        for name, model in (("before", quantized), ("after", distilled.model))
    }
    assert lengths == {footprint_of(classifier.model, scheme).packed_bytes(quantized.bit_map)}
    assert len({(tmp_path / name / WEIGHTS).stat().st_size for name in ("before", "after")}) == 1
    loaded = load_checkpoint(tmp_path / "after").classifier
    decoded = distilled.model.decoded(classifier.model)
    assert all(torch.equal(tensor, decoded.state_dict()[name]) for name, tensor in loaded.model.state_dict().items())


@pytest.mark.usefixtures("quickly")
def test_a_seed_reproduces_it_exactly_also_if_it_was_stopped_or_killed(
    classifier: Classifier,
    sentences: TrainingSentences,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quantized, state = quantized_to(classifier.model, mixed_bits(classifier.model)), tmp_path / "state.safetensors"
    training = Training("weights", epochs=2, seed=3)
    whole = distil(quantized, classifier.model, sentences, training, state=state)
    assert not state.exists()
    seen: list[tuple[int, int]] = []

    def distilled(stop: int = -1, kill: int = -1) -> Distilled:
        """Distil until this many batches of all are trained on."""
        seen.clear()

        def report_progress(done: int, total: int) -> None:
            seen.append((done, total))
            if done == kill:
                raise MemoryError

        return distil(
            quantized,
            classifier.model,
            sentences,
            training,
            state=state,
            report_progress=report_progress,
            should_stop=lambda: seen[-1][0] == stop,
        )

    assert not distilled(stop=3).finished  # in the first epoch
    total = seen[0][1]
    monkeypatch.setattr(distillation, "_SAVE_EVERY_S", 0.0)
    with pytest.raises(MemoryError):
        distilled(kill=total - 2)  # in the second one
    assert_same(whole, distilled())
    assert seen[0] == (total - 3, total)

    # A state of another training is not continued, nor is a damaged one.
    training = replace(training, seed=4)
    assert distilled().damage_after != whole.damage_after
    assert seen[0] == (0, total)
    state.write_bytes(b"damaged")
    training = replace(training, seed=3)
    assert_same(whole, distilled())
    assert seen[0] == (0, total)


def test_what_the_held_out_sentences_are_worse_off_with_is_not_kept(
    classifier: Classifier, sentences: TrainingSentences, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student, "_OTHER_RATE", 3.0)
    quantized = quantized_to(classifier.model, (8,) * len(find_layers(classifier.model)))
    distilled = distil(quantized, classifier.model, sentences)
    assert not distilled.kept
    assert distilled.damage_after > distilled.damage_before
    assert distilled.model is quantized


def test_what_is_stopped_at_once_is_as_it_was(classifier: Classifier, sentences: TrainingSentences) -> None:
    quantized = quantized_to(classifier.model, mixed_bits(classifier.model))
    stopped = distil(quantized, classifier.model, sentences, should_stop=lambda: True)
    assert (stopped.model, stopped.kept, stopped.finished) == (quantized, False, False)


MODELS = pytest.mark.parametrize("model", [random_bert(), random_roberta()], ids=["bert", "roberta"])


def batch() -> torch.Tensor:
    return torch.tensor(random_sentences(0, n=1) * 3)


@MODELS
@WAYS
def test_training_starts_at_the_quantised_model_and_computes_what_it_stores(
    model: torch.nn.Module, scheme: Scheme, trained: Trained
) -> None:
    quantized = quantized_to(model, mixed_bits(model), scheme)
    own = Student(quantized, model, trained)
    ids = batch()
    with torch.inference_mode():
        expected = quantized.decoded(model)(input_ids=ids).logits
        assert torch.equal(own.network(input_ids=ids).logits, expected)
    for (codes, start), (same_codes, same) in zip(quantized.entries, own.quantized().entries, strict=True):
        assert torch.equal(codes, same_codes)
        assert all(torch.equal(tensor, same.tensors()[name]) for name, tensor in start.tensors().items())
    for _ in range(3):
        own.step(own.network(input_ids=ids).logits.square().sum(), 50.0)
    with torch.inference_mode():
        stepped = own.network(input_ids=ids).logits
        assert torch.equal(own.quantized().decoded(model)(input_ids=ids).logits, stepped)
    assert float((stepped - expected).abs().max()) > 0.01
    widest = [
        bool((new == old).all()) for (new, _), (old, _) in zip(own.quantized().entries, quantized.entries, strict=True)
    ]
    assert all(widest) == (trained == "scales")


def test_gradients_of_gains_shifts_and_weights_are_those_of_the_decoded_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, ids, step = random_bert(), batch(), 1e-4
    quantized = quantized_to(model, mixed_bits(model))
    own = Student(quantized, model, "weights")

    def loss(network: torch.nn.Module) -> torch.Tensor:
        logits: torch.Tensor = network(input_ids=ids).logits
        return logits.square().sum()

    gradients: dict[int, torch.Tensor] = {}  # of latent weights; they are dropped at once
    take_gradient = student._Layer.take_gradient

    def record(layer: student._Layer) -> None:
        take_gradient(layer)
        assert layer.latent is not None and layer.latent.grad is not None
        gradients[own._layers.index(layer)] = layer.latent.grad.clone()

    monkeypatch.setattr(student._Layer, "take_gradient", record)
    loss(own.network).backward()
    own._layers[0].take_gradient()
    assert own._layers[0].latent is not None and own._layers[0].latent.grad is not None
    gradients[0] = own._layers[0].latent.grad
    decoded = quantized.decoded(model).double()
    for index in (0, 3, 7):  # an embedding, and linear layers of narrow and of wide codes
        layer = own._layers[index]
        weight = decoded.get_parameter(quantized.layers[index].parameter)
        row = int(layer.log_gain.grad.abs().argmax()) if layer.log_gain.grad is not None else 0
        changes = {
            "gain": weight[row].detach().clone(),
            "shift": torch.full_like(weight[row], float(layer.spread[row])),
        }
        changes["weight"] = torch.zeros_like(weight[row])
        changes["weight"][1] = 1.0
        expected = {}
        with torch.no_grad():
            for name, change in changes.items():
                weight[row] += step * change
                above = loss(decoded)
                weight[row] -= 2 * step * change
                expected[name] = float(above - loss(decoded)) / (2 * step)
                weight[row] += step * change
        assert layer.log_gain.grad is not None
        actual = {"gain": layer.log_gain.grad[row], "weight": gradients[index][row, 1]}
        if layer.is_shifted:
            assert layer.shift.grad is not None
            actual["shift"] = layer.shift.grad[row]
        assert layer.is_shifted == (layer.start.width <= 4)
        for name, gradient in actual.items():
            assert float(gradient) == pytest.approx(expected[name], rel=1e-3, abs=1e-4), (index, name)


def test_latent_weights_stay_within_half_a_step_of_the_levels() -> None:
    model = random_bert()
    own = Student(quantized_to(model, mixed_bits(model)), model, "weights")
    for _ in range(3):
        own.step(own.network(input_ids=batch()).logits.sum(), 1e4)
    layer = own._layers[-1]
    assert layer.latent is not None
    assert -0.5 < float(layer.latent.min()) < -0.4
    assert 2**layer.start.width - 0.6 < float(layer.latent.max()) < 2**layer.start.width - 0.5


def test_latent_weights_of_all_widths_move_by_the_same_part_of_a_step() -> None:
    model = random_bert()
    own = Student(quantized_to(model, mixed_bits(model)), model, "weights", latent_rate=1e-2)
    before = [layer.latent.clone() for layer in own._layers if layer.latent is not None]
    own.step(own.network(input_ids=batch()).logits.square().sum(), 0.5)
    moved = {}
    for layer, latent in zip(own._layers, before, strict=True):
        assert layer.latent is not None
        moved[layer.start.width] = float((layer.latent - latent).abs().max())
    assert moved == pytest.approx(dict.fromkeys(range(2, 9), 5e-3), rel=1e-2)


def test_latent_weights_of_a_training_of_a_quarter_of_the_epochs_move_twice_as_fast(
    classifier: Classifier, sentences: TrainingSentences
) -> None:
    quantized = quantized_to(classifier.model, (3,) * len(find_layers(classifier.model)))
    fast, slow = (
        distillation._Distillation(quantized, classifier.model, sentences, Training("weights", epochs), TWO_CLASSES)
        for epochs in (5, 20)
    )
    assert fast.student._groups[0].rate == pytest.approx(2 * slow.student._groups[0].rate)


def test_weights_in_bf16_are_trained_in_fp32(classifier: Classifier, sentences: TrainingSentences) -> None:
    quantized = quantized_to(classifier.model, (3,) * len(find_layers(classifier.model)))
    distilled = distil(quantized, classifier.model, sentences, Training("weights", 2, precision="bf16"))
    assert distilled.kept
    dtypes = {tensor.dtype for tensor in distilled.model.kept.values()}
    assert dtypes == {parameters.scale.dtype for _, parameters in distilled.model.entries} == {torch.float32}


def test_augmentation_keeps_the_ends_and_the_length() -> None:
    rng = np.random.default_rng(0)
    augmentation = Augmentation.of([[2, 7, 8, 9, 3], [2, 5, 3]], [0, 2, 3])
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
        distil(quantized, classifier.model, TrainingSentences([[2, 5, 3]], [2, 3]))
