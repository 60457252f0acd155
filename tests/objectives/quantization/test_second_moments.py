import numpy as np
import pytest
import torch

from objectives.loading.layer_discovery import find_layers
from objectives.quantization.gptq import HessianFactors, quantize_gptq
from objectives.quantization.parameters import decode
from objectives.quantization.second_moments import second_moments
from tests.objectives.architectures import tiny_model
from tests.objectives.random_models import random_bert, random_roberta, random_sentences


@pytest.mark.parametrize(
    "model",
    [random_bert(), random_roberta(), *map(tiny_model, ("mpnet", "deberta", "deberta-v2"))],
    ids=["bert", "roberta", "mpnet", "deberta", "deberta-v2"],
)
def test_moments_are_those_of_the_inputs_of_each_layer(model: torch.nn.Module) -> None:
    layers, sentences = find_layers(model), random_sentences(0, n=20)
    moments = second_moments(model, layers, sentences)
    assert set(moments) == {layer.name for layer in layers}
    for layer in layers:
        if layer.kind != "linear":
            continue
        seen: list[torch.Tensor] = []
        handle = model.get_submodule(layer.name).register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0].detach().flatten(0, -2))
        )
        with torch.inference_mode():
            for ids in sentences:
                model(input_ids=torch.tensor([ids]))
        handle.remove()
        inputs = torch.cat(seen)
        wanted = inputs.T @ inputs / len(inputs)
        np.testing.assert_allclose(moments[layer.name], wanted, atol=1e-4)
    if hasattr(model, "bert"):
        query, key = (moments[f"bert.encoder.layer.0.attention.self.{part}"] for part in ("query", "key"))
        assert query is key  # the same inputs are summed and held once


def test_a_linear_layer_that_never_runs_has_moments_of_nothing() -> None:
    model = random_bert()
    model.bert.extra = torch.nn.Linear(6, 4)
    layers = find_layers(model)
    [extra] = [layer for layer in layers if layer.name == "bert.extra"]
    moments = second_moments(model, layers, random_sentences(0, n=4))
    assert moments.keys() == {layer.name for layer in layers}
    assert torch.equal(moments[extra.name], torch.zeros(6, 6))
    weight = torch.randn(4, 6)
    codes, parameters = quantize_gptq(weight, 4, HessianFactors.of(moments[extra.name]), None)
    assert (decode(codes, parameters) - weight).abs().max() < 0.5 * weight.abs().max()


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


@pytest.mark.parametrize("model_type", ["mpnet", "deberta", "deberta-v2"])
def test_moments_of_relative_positions_are_those_of_the_gradients_of_each_sentence(model_type: str) -> None:
    model, sentences = tiny_model(model_type), random_sentences(2, n=6)
    [layer] = [layer for layer in find_layers(model) if "rel" in layer.name]
    moments = second_moments(model, [layer], sentences)[layer.name]
    total = torch.zeros_like(moments)
    weight = model.get_parameter(layer.parameter)
    for ids in sentences:
        logits = model(input_ids=torch.tensor([ids])).logits
        (gradient,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], weight)
        total += gradient.T @ gradient
    assert total.any()
    np.testing.assert_allclose(moments, total / sum(map(len, sentences)), rtol=1e-4, atol=1e-6)
