import re

from objectives.bit_maps import documented_bit_map
from objectives.layers import uniform
from objectives.loading.layer_discovery import find_layers
from tests.objectives.random_models import bert_base_layers, random_bert, random_roberta
from tests.shared import ROOT


def test_bert_base_has_the_layers_of_the_documented_configuration_in_its_order() -> None:
    layers = bert_base_layers()
    documented = (ROOT / "objectives" / "documented_map.txt").read_text(encoding="utf-8")
    assert [layer.name for layer in layers] == re.findall(r"Layer: (\S+) \|", documented)
    assert len(layers) == 76
    assert sum(layer.elements for layer in layers) == 109_360_128
    assert [layer.kind for layer in layers[:4]] == ["embedding"] * 3 + ["linear"]


def test_a_layer_is_the_shape_of_its_weight() -> None:
    model = random_bert()
    for layer in find_layers(model):
        assert model.get_parameter(layer.parameter).shape == (layer.rows, layer.columns)


def test_the_head_stays_out_in_other_models_of_the_family() -> None:
    layers = find_layers(random_roberta())
    assert len(layers) == 3 + 2 * 6  # RoBERTa's classifier takes the place of the pooler
    assert all(layer.name.startswith("roberta.") for layer in layers)


def test_uniform_gives_every_layer_the_width() -> None:
    layers = bert_base_layers()
    assert uniform(layers, 3) == (3,) * 76
    assert documented_bit_map(layers) != uniform(layers, 8)
