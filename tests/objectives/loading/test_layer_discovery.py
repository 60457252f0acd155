import pytest

from objectives.layers import Layer
from objectives.loading.layer_discovery import find_layers, footprint_of, what_is_searched
from tests.objectives.architectures import tiny_model

SHARED_LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0"


def test_a_layer_that_runs_many_times_is_one_layer_with_one_width() -> None:
    model = tiny_model("albert", num_hidden_layers=6)
    layers = find_layers(model)
    assert layers == find_layers(tiny_model("albert", num_hidden_layers=1))
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names)
    assert [name.removeprefix(f"{SHARED_LAYER}.") for name in names if name.startswith(SHARED_LAYER)] == [
        *("attention.query", "attention.key", "attention.value", "attention.dense", "ffn", "ffn_output")
    ]
    assert Layer("albert.encoder.embedding_hidden_mapping_in", "linear", rows=16, columns=8) in layers


@pytest.mark.parametrize(
    ("model_type", "head"),
    [
        ("bert", ["classifier"]),
        ("roberta", ["classifier.dense", "classifier.out_proj"]),
        ("distilbert", ["pre_classifier", "classifier"]),
        ("electra", ["classifier.dense", "classifier.out_proj"]),
        ("deberta-v2", ["pooler.dense", "classifier"]),
        ("modernbert", ["head.dense", "classifier"]),
    ],
)
def test_the_head_stays_in_fp32_and_is_named(model_type: str, head: list[str]) -> None:
    model = tiny_model(model_type)
    layers = find_layers(model)
    assert all(layer.name.startswith(f"{model.base_model_prefix}.") for layer in layers)
    kept = [name for name, shape in footprint_of(model).kept.items() if len(shape) > 1]
    assert kept == [f"{name}.weight" for name in head]
    assert what_is_searched(model) == (
        f"layers: each embedding and linear weight of {model.base_model_prefix}; "
        f"the head stays in FP32 ({', '.join(head)})"
    )


def test_a_pooler_of_the_encoder_is_searched() -> None:
    assert find_layers(tiny_model("bert"))[-1].name == "bert.pooler.dense"
