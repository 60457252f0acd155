from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from objectives.errors import InputError
from objectives.evaluation.evaluator import Evaluator
from objectives.heads import TWO_CLASSES
from objectives.layers import WIDTHS
from objectives.loading.layer_discovery import find_layers
from objectives.quantization.bank import FP32_WIDTH, WeightBank
from objectives.quantization.first_order import first_order_shifts
from objectives.quantization.second_moments import second_moments
from tests.objectives.architectures import single_shifts, tiny_model
from tests.objectives.random_models import random_bert, random_roberta, random_sentences


@pytest.mark.parametrize("model", [random_bert(), random_roberta()], ids=["bert", "roberta"])
def test_small_changes_shift_the_log_odds_as_the_gradient_says(model: nn.Module) -> None:
    layers, sentences = find_layers(model), random_sentences(0)
    evaluator = Evaluator(model, layers, sentences)
    shifts = first_order_shifts(model, layers, sentences, evaluator.bank)
    assert shifts is not None
    fp32 = (FP32_WIDTH,) * len(layers)
    fp32_log_odds = evaluator.log_odds(fp32)
    for index in range(len(layers)):
        for width in (8, 7):
            measured = evaluator.log_odds((*fp32[:index], width, *fp32[index + 1 :])) - fp32_log_odds
            error = shifts[index, WIDTHS.index(width)] - measured
            scale = np.sqrt(np.mean(measured**2))
            assert np.sqrt(np.mean(error**2)) <= 0.1 * scale + 1e-5, layers[index].name


def test_a_sentence_alone_shifts_as_it_does_among_others() -> None:
    model, sentences = random_bert(), random_sentences(1, n=12)
    layers = find_layers(model)
    bank = Evaluator(model, layers, sentences).bank
    together = first_order_shifts(model, layers, sentences, bank)
    alone = first_order_shifts(model, layers, sentences[3:4], bank)
    assert together is not None
    assert alone is not None
    np.testing.assert_allclose(alone[..., 0], together[..., 3], atol=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "mpnet"])
def test_each_of_many_outputs_shifts_as_that_of_two_classes(model_type: str) -> None:
    """Outputs run in groups, and one by one for MPNet."""
    model, sentences = tiny_model(model_type, num_labels=7), random_sentences(8, n=3)
    layers = find_layers(model)
    bank = WeightBank(model, layers)
    shifts = first_order_shifts(model, layers, sentences, bank)
    assert shifts is not None
    assert shifts.shape == (len(layers), len(WIDTHS), 3, 6)
    classifier: Any = model.classifier
    head = classifier if model_type == "bert" else classifier.out_proj
    weight, bias = head.weight.data, head.bias.data
    model.config.num_labels = 2
    for output in (3, 4):  # the last of a group, and the first of the next
        head.weight.data, head.bias.data = weight[[0, output + 1]], bias[[0, output + 1]]
        alone = first_order_shifts(model, layers, sentences, bank)
        assert alone is not None
        np.testing.assert_allclose(shifts[..., output], alone, rtol=1e-4, atol=1e-6)


def test_second_order_damage_is_that_of_small_changes() -> None:
    model, sentences = random_bert(2), random_sentences(2)
    layers = find_layers(model)
    evaluator = Evaluator(model, layers, sentences)
    shifts = first_order_shifts(model, layers, sentences, evaluator.bank)
    assert shifts is not None
    fp32_log_odds = evaluator.fp32_log_odds()
    probability = 1 / (1 + np.exp(-fp32_log_odds))
    quadratic = 0.5 * (probability * (1 - probability) * shifts[:, -1] ** 2).mean(axis=-1)
    exact = [TWO_CLASSES.divergences(fp32_log_odds + shift, fp32_log_odds).mean() for shift in shifts[:, -1]]
    np.testing.assert_allclose(quadratic, exact, rtol=0.02)


def test_the_model_is_left_as_it_is() -> None:
    model, sentences = random_bert(), random_sentences(3, n=4)
    layers = find_layers(model)
    model.classifier.bias.requires_grad_(False)
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    first_order_shifts(model, layers, sentences, Evaluator(model, layers, sentences).bank)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.inference_mode():
        assert not model(input_ids=torch.tensor([[2, 7, 3]])).logits.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


def test_it_stops_when_told() -> None:
    model, sentences = random_bert(), random_sentences(3, n=4)
    layers = find_layers(model)
    bank = Evaluator(model, layers, sentences).bank
    assert first_order_shifts(model, layers, sentences, bank, should_stop=lambda: True) is None


def test_a_model_without_gradients_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sentences = random_bert(), random_sentences(4, n=4)
    layers = find_layers(model)
    bank = WeightBank(model, layers)
    monkeypatch.setattr(model.bert.pooler, "forward", lambda states: states[:, 0].detach())
    for needs_gradients in (
        lambda: first_order_shifts(model, layers[:3], sentences, bank),
        lambda: second_moments(model, layers, sentences),
    ):
        with pytest.raises(InputError, match=r"BertForSequenceClassification.*--sensitivity none"):
            needs_gradients()


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("mpnet", {}),
        ("deberta", {}),
        ("deberta-v2", {}),
        ("deberta-v2", {"share_att_key": False, "position_buckets": -1}),
    ],
)
def test_layers_that_see_all_sentences_at_once_shift_each_as_it_does_alone(
    model_type: str, changes: dict[str, Any]
) -> None:
    """Positions are looked up once for a batch, or by a weight without its layer, and changed in place."""
    model, sentences = tiny_model(model_type, **changes), random_sentences(6, n=7)
    sentences += sentences[:2]  # batches of several
    layers = find_layers(model)
    bank = WeightBank(model, layers)
    shifts = first_order_shifts(model, layers, sentences, bank)
    expected = single_shifts(model, layers, sentences, bank)
    assert shifts is not None
    np.testing.assert_allclose(shifts, expected, rtol=1e-3, atol=1e-5)
    assert expected.abs().amax(dim=(1, 2)).gt(1e-4).all()


def test_a_model_that_changes_inputs_and_outputs_in_place_is_recorded_as_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, sentences = random_bert(), random_sentences(7, n=4)
    layers = find_layers(model)
    block: Any = model.bert.encoder.layer[0]
    bank = WeightBank(model, layers)

    def forward(states: Tensor, before: Tensor) -> Tensor:
        outputs: Tensor = block.output.dense(states)
        return 3 * outputs + before

    def forward_in_place(states: Tensor, before: Tensor) -> Tensor:
        outputs: Tensor = block.output.dense(states)
        states.mul_(0)
        return outputs.mul_(3).add_(before)

    monkeypatch.setattr(block.intermediate, "intermediate_act_fn", torch.nn.Identity())  # keeps no result
    monkeypatch.setattr(block.output, "forward", forward)
    expected = first_order_shifts(model, layers, sentences, bank)
    monkeypatch.setattr(block.output, "forward", forward_in_place)
    shifts = first_order_shifts(model, layers, sentences, bank)
    assert expected is not None and shifts is not None
    np.testing.assert_allclose(shifts, expected, rtol=1e-3, atol=1e-5)


def test_what_no_score_depends_on_shifts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sentences = random_bert(), random_sentences(5, n=6)
    layers, pooler = find_layers(model), model.bert.pooler
    assert pooler is not None

    def forward(states: Tensor) -> Tensor:
        pooler.dense(states[:, 0])
        return states[:, 0]

    monkeypatch.setattr(pooler, "forward", forward)
    shifts = first_order_shifts(model, layers, sentences, WeightBank(model, layers))
    assert shifts is not None
    assert layers[-1].name == "bert.pooler.dense"
    assert not shifts[-1].any()
    assert shifts[:-1].any(axis=(1, 2)).all()
