import numpy as np
import pytest
import torch

from objectives.calibrate import Compensation, encode_calibrated, second_moments
from objectives.layers import WIDTHS, find_layers
from objectives.quantize import choose_affine, decode, encode
from tests.objectives.random_models import random_bert, random_roberta
from tests.objectives.test_evaluate import random_sentences


def correlated_inputs(columns: int, seed: int) -> torch.Tensor:
    """Return inputs ``(n, columns)`` that go together in a few directions, some much larger than others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) * torch.logspace(0, -1.5, columns)
    return torch.randn(4 * columns, columns, generator=generator) @ mixing.T


def output_error(weight: torch.Tensor, codes: torch.Tensor, inputs: torch.Tensor, bits: int) -> float:
    return float((inputs @ (decode(codes, choose_affine(weight, bits)) - weight).T).square().mean())


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("columns", [24, 150])  # within one block of columns, and over three
def test_outputs_are_nearer_than_with_rounding_to_the_nearest(bits: int, columns: int) -> None:
    weight = torch.randn(40, columns, generator=torch.Generator().manual_seed(bits))
    inputs = correlated_inputs(columns, seed=1)
    parameters = choose_affine(weight, bits)
    codes = encode_calibrated(weight, parameters, Compensation.of(inputs.T @ inputs / len(inputs)))
    assert codes.dtype == torch.uint8
    assert int(codes.max()) < 2**bits
    nearest = output_error(weight, encode(weight, parameters), inputs, bits)
    assert output_error(weight, codes, inputs, bits) < 0.7 * nearest


def test_inputs_that_have_nothing_to_do_with_each_other_leave_nothing_to_make_up_for() -> None:
    weight = torch.randn(10, 30, generator=torch.Generator().manual_seed(0))
    parameters = choose_affine(weight, 3)
    moments = torch.diag(torch.linspace(0.5, 2.0, 30))
    assert torch.equal(encode_calibrated(weight, parameters, Compensation.of(moments)), encode(weight, parameters))


def test_inputs_that_never_occur_are_no_obstacle() -> None:
    weight = torch.randn(10, 30, generator=torch.Generator().manual_seed(0))
    moments = torch.zeros(30, 30)
    for seen in (moments, moments + torch.diag((torch.arange(30) < 3).float())):
        codes = encode_calibrated(weight, choose_affine(weight, 4), Compensation.of(seen))
        assert int(codes.max()) < 16


@pytest.mark.parametrize("model", [random_bert(), random_roberta()], ids=["bert", "roberta"])
def test_moments_are_those_of_the_inputs_of_each_layer(model: torch.nn.Module) -> None:
    layers, sentences = find_layers(model), random_sentences(0, n=20)
    moments = second_moments(model, layers, sentences)
    assert set(moments) == {layer.name for layer in layers}
    for layer in layers:
        if layer.kind != "linear":
            continue
        seen: list[torch.Tensor] = []
        handle = model.get_submodule(layer.name).register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0].flatten(0, -2))
        )
        with torch.inference_mode():
            for ids in sentences:
                model(input_ids=torch.tensor([ids]))
        handle.remove()
        inputs = torch.cat(seen)
        np.testing.assert_allclose(moments[layer.name], inputs.T @ inputs / len(inputs), atol=1e-4)
    query, key = (moments[f"{layers[3].name.rpartition('.')[0]}.{part}"] for part in ("query", "key"))
    assert query is key  # the same inputs are summed and held once


def test_moments_of_embeddings_are_those_of_the_gradients_of_the_log_odds() -> None:
    model, sentences = random_bert(), random_sentences(1, n=9)
    layers = find_layers(model)
    name = "bert.embeddings.word_embeddings"
    moments = second_moments(model, layers, sentences)[name]
    total = torch.zeros_like(moments)
    for ids in sentences:
        embedded = model.bert.embeddings.word_embeddings(torch.tensor([ids])).detach().requires_grad_()
        logits = model(inputs_embeds=embedded).logits
        (gradient,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], embedded)
        total += gradient[0].T @ gradient[0]
    np.testing.assert_allclose(moments, total / sum(map(len, sentences)), atol=1e-5)
    positions = second_moments(model, layers, sentences)["bert.embeddings.position_embeddings"]
    np.testing.assert_allclose(positions, moments, atol=1e-6)  # added to the words, they have the same gradients
