import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from objectives.errors import InputError
from objectives.evaluation import evaluator as evaluator_module
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.forward import States
from objectives.evaluation.layout import _split
from objectives.evaluation.packed_bert import PackedBert
from objectives.layers import WIDTHS, Layer, uniform
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import load_classifier
from objectives.loading.sentences import load_sentences
from objectives.miniature import Miniature
from objectives.quantization.affine import choose_affine
from objectives.quantization.affine import encode as quantise
from objectives.quantization.bank import FP32_WIDTH, WeightBank
from objectives.quantization.parameters import decode
from objectives.scores import Precision
from tests.objectives.architectures import tiny_model
from tests.objectives.padded import difference_from_transformers, padded_log_odds, padded_logits
from tests.objectives.random_models import random_bert, random_sentences, random_types
from tests.shared import COLA, MODEL, needs_shared

LEAN = {
    "bert": "BERT",
    "roberta": "RoBERTa",
    "xlm-roberta": "XLM-R",
    "camembert": "CamemBERT",
    "distilbert": "DistilBERT",
    "electra": "ELECTRA",
}


@pytest.fixture
def model() -> BertForSequenceClassification:
    return random_bert()


def test_fp32_log_odds_are_those_of_the_padded_forward(model: BertForSequenceClassification) -> None:
    sentences = random_sentences(0)
    evaluator = Evaluator(model, find_layers(model), sentences)
    np.testing.assert_allclose(evaluator.fp32_log_odds(), padded_log_odds(model, sentences), atol=1e-5)


@pytest.mark.parametrize("model_type", LEAN)
def test_an_architecture_scores_pairs_as_the_padded_forward(model_type: str) -> None:
    model, sentences = tiny_model(model_type, num_labels=3), random_sentences(1)
    types = random_types(sentences) if model_type != "distilbert" else None
    layers = find_layers(model)
    evaluator = Evaluator(model, layers, sentences, token_types=types)
    assert evaluator.description == f"lean {LEAN[model_type]} forward in FP32"
    logits = evaluator.logits(uniform(layers, FP32_WIDTH))
    np.testing.assert_allclose(logits, padded_logits(model, sentences, types), atol=1e-5)
    assert difference_from_transformers(model, sentences, types) < 1e-5
    in_bf16 = Evaluator(model, layers, sentences, "bf16", evaluator.bank, types)
    assert 0 < np.abs(in_bf16.logits(uniform(layers, FP32_WIDTH)) - logits).max() < 0.1
    if types is not None:
        without = Evaluator(model, layers, sentences, bank=evaluator.bank).logits(uniform(layers, FP32_WIDTH))
        np.testing.assert_allclose(without, padded_logits(model, sentences), atol=1e-5)
        assert np.abs(without - logits).max() > 0.1


@pytest.mark.parametrize("model_type", ["albert", "deberta-v2", "ernie", "modernbert", "mpnet"])
def test_another_architecture_scores_pairs_with_transformers(model_type: str) -> None:
    model, sentences = tiny_model(model_type), random_sentences(1, n=12)
    evaluator = Evaluator(model, find_layers(model), sentences, token_types=random_types(sentences))
    assert evaluator.description == f"transformers' forward in FP32 ({type(model).__name__} has no faster one)"
    takes_types = model_type not in ("modernbert", "mpnet")  # others do not read them
    expected = padded_logits(model, sentences, random_types(sentences) if takes_types else None)
    np.testing.assert_allclose(evaluator.logits(uniform(evaluator.layers, FP32_WIDTH)), expected, atol=1e-5)


def test_a_padding_token_inside_a_sentence_has_no_position_in_a_roberta() -> None:
    model, sentences = tiny_model("roberta"), [[5, 1, 6, 1, 7], [8, 9, 1], [1, 5], [6, 7]]
    evaluator = Evaluator(model, find_layers(model), sentences)
    np.testing.assert_allclose(evaluator.fp32_log_odds(), padded_log_odds(model, sentences), atol=1e-5)


def test_embeddings_as_wide_as_the_layers_are_not_projected() -> None:
    model, sentences = tiny_model("electra", embedding_size=16), random_sentences(2, n=12)
    assert "electra.embeddings_project" not in {layer.name for layer in find_layers(model)}
    assert difference_from_transformers(model, sentences) < 1e-5


def test_token_types_that_do_not_fit_are_refused(model: BertForSequenceClassification) -> None:
    layers, sentences = find_layers(model), [[5, 6], [7, 8, 9]]
    with pytest.raises(InputError, match="token type 2, but the model has 2 token types"):
        Evaluator(model, layers, sentences, token_types=[[0, 0], [0, 1, 2]])
    with pytest.raises(ValueError, match="each token needs one"):
        Evaluator(model, layers, sentences, token_types=[[0, 0, 0], [0, 1]])


def test_a_map_scores_as_the_model_with_its_weights_replaced(model: BertForSequenceClassification) -> None:
    layers, sentences = find_layers(model), random_sentences(2)
    evaluator = Evaluator(model, layers, sentences)
    rng = np.random.default_rng(0)
    for _ in range(3):
        bit_map = tuple(int(width) for width in rng.choice(WIDTHS, size=len(layers)))
        twin = copy.deepcopy(model)
        for layer, width in zip(layers, bit_map, strict=True):
            weight = twin.get_parameter(layer.parameter)
            parameters = choose_affine(weight.detach(), width)
            weight.data = decode(quantise(weight.detach(), parameters), parameters)
        np.testing.assert_allclose(evaluator.log_odds(bit_map), padded_log_odds(twin, sentences), atol=1e-5)


@pytest.mark.end_to_end
@pytest.mark.parametrize("which", ["miniature", pytest.param("shared", marks=needs_shared)])
def test_a_trained_model_scores_as_with_transformers(which: str, miniature: Miniature) -> None:
    model, data = (miniature.model, miniature.data) if which == "miniature" else (MODEL, COLA)
    classifier = load_classifier(str(model))
    texts = load_sentences(str(data), "validation").texts[::16]
    sentences = classifier.tokenize(texts)
    assert difference_from_transformers(classifier.model, sentences) < 1e-4


@pytest.mark.slow
def test_bert_base_scores_as_with_transformers() -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig()).eval()
    assert difference_from_transformers(model, random_sentences(9)) < 1e-4


def test_results_do_not_depend_on_what_was_evaluated_before(model: BertForSequenceClassification) -> None:
    layers, sentences = find_layers(model), random_sentences(3)
    evaluator = Evaluator(model, layers, sentences)
    first = evaluator.log_odds(uniform(layers, 3))
    fp32 = evaluator.fp32_log_odds()
    mixed = (3, *uniform(layers[1:], FP32_WIDTH))
    changed = evaluator.log_odds(mixed)
    assert not np.array_equal(changed, fp32)
    assert np.array_equal(evaluator.fp32_log_odds(), fp32)
    assert np.array_equal(evaluator.log_odds(uniform(layers, 3)), first)
    assert np.array_equal(Evaluator(model, layers, sentences).log_odds(mixed), changed)


def test_the_model_handed_over_is_left_as_it_is(model: BertForSequenceClassification) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layers = find_layers(model)
    Evaluator(model, layers, random_sentences(4)).log_odds(uniform(layers, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_bank_quantises_each_entry_once(model: BertForSequenceClassification) -> None:
    layers = find_layers(model)
    bank = WeightBank(model, layers)
    codes, _ = bank.entry(layers[3], 4)
    assert bank.entry(layers[3], 4)[0] is codes
    out = torch.empty(layers[3].rows, layers[3].columns)
    bank.write_weight(layers[3], 4, out)
    assert len(out.unique()) <= 16 * layers[3].rows
    bank.write_weight(layers[3], FP32_WIDTH, out)
    assert torch.equal(out, model.get_parameter(layers[3].parameter))


def test_a_bert_of_another_activation_is_scored_by_transformers() -> None:
    relu = random_bert(hidden_act="relu")
    sentences = random_sentences(5)
    evaluator = Evaluator(relu, find_layers(relu), sentences)
    assert "transformers' forward" in evaluator.description
    np.testing.assert_allclose(evaluator.fp32_log_odds(), padded_log_odds(relu, sentences), atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "precision"), [("bert", "fp32"), ("bert", "bf16"), ("electra", "fp32"), ("distilbert", "fp32")]
)
def test_remembered_states_change_nothing_but_the_work(model_type: str, precision: Precision) -> None:
    model = tiny_model(model_type)
    layers, sentences = find_layers(model), random_sentences(6)
    remembering, plain = (Evaluator(model, layers, sentences, precision) for _ in range(2))
    remembering.fp32_log_odds(remember=True)
    for index in range(len(layers)):
        bit_map = tuple(2 if other == index else FP32_WIDTH for other in range(len(layers)))
        assert np.array_equal(remembering.log_odds(bit_map), plain.log_odds(bit_map)), layers[index].name
    mixed = tuple(int(width) for width in np.random.default_rng(0).choice(WIDTHS, size=len(layers)))
    assert np.array_equal(remembering.log_odds(mixed), plain.log_odds(mixed))
    assert np.array_equal(remembering.fp32_log_odds(), plain.fp32_log_odds())


@pytest.mark.end_to_end
def test_long_sentences_and_many_of_one_length_are_split_into_chunks(model: BertForSequenceClassification) -> None:
    rng = np.random.default_rng(7)
    lengths = [3] * 900 + [500, 500, 2, 400, 400, 400]
    sentences = [[int(token) for token in rng.integers(5, 50, size=length)] for length in lengths]
    evaluator = Evaluator(model, find_layers(model), sentences)
    np.testing.assert_allclose(evaluator.fp32_log_odds(), padded_log_odds(model, sentences), atol=1e-5)


def test_padded_sentences_take_little_more_than_their_tokens() -> None:
    lengths = [12] * 2000 + [14] * 50 + [512]
    chunks = _split(lengths, 1 << 14)
    assert [length for chunk in chunks for length in chunk] == lengths
    assert all(len(chunk) * chunk[-1] <= 1 << 15 for chunk in chunks)
    assert len(chunks) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("interrupted", ["write_weight", "refresh"])
def test_an_interruption_leaves_no_stale_weights(
    model: BertForSequenceClassification, precision: Precision, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, sentences = find_layers(model), random_sentences(9)
    evaluator, fresh = (Evaluator(model, layers, sentences, precision) for _ in range(2))
    evaluator.log_odds(uniform(layers, 3))
    honest = evaluator.bank.write_weight
    calls = 0

    def write_weight(layer: Layer, width: int, out: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        nonlocal calls
        calls += 1
        if calls == len(layers) // 2:
            out.zero_()
            raise KeyboardInterrupt
        honest(layer, width, out, rows)

    def refresh(indices: Sequence[int]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        if interrupted == "refresh":
            patched.setattr(evaluator._forward, "refresh", refresh)
        else:
            patched.setattr(evaluator.bank, "write_weight", write_weight)
        evaluator.log_odds(uniform(layers, 4))
    for width in (4, 3):
        assert np.array_equal(evaluator.log_odds(uniform(layers, width)), fresh.log_odds(uniform(layers, width)))


def test_bf16_stays_near_fp32(model: BertForSequenceClassification) -> None:
    layers, sentences = find_layers(model), random_sentences(8)
    fp32 = Evaluator(model, layers, sentences).log_odds(uniform(layers, 4))
    bf16 = Evaluator(model, layers, sentences, "bf16").log_odds(uniform(layers, 4))
    assert 0 < np.abs(fp32 - bf16).max() < 0.2


@pytest.mark.end_to_end
@pytest.mark.parametrize(("model_type", "precision"), [("bert", "fp32"), ("electra", "bf16")])
def test_on_a_gpu_everything_is_computed_there_and_nothing_waits(model_type: str, precision: Precision) -> None:
    """Tensors without content stand in for a GPU's: they do not mix with others, and to read a value of one fails."""
    sentences = random_sentences(5, n=12)
    model = tiny_model(model_type).to("meta")  # type: ignore[arg-type]
    layers = find_layers(model)
    evaluator = Evaluator(model, layers, sentences, precision, token_types=random_types(sentences))
    assert {slot.out.device.type for slot in evaluator._forward.slots} == {"meta"}
    evaluator._load(uniform(layers, 3), first=0)
    forward = evaluator._forward
    assert isinstance(forward, PackedBert)
    keep: dict[int, States] = {}
    logits = forward.sorted_logits(-1, None, keep)
    assert logits.device.type == "meta"
    assert logits.shape == (len(sentences), 2)
    assert forward.sorted_logits(1, keep[1], None).device.type == "meta"


def test_while_it_remembers_only_the_latest_states_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator_module, "_REMEMBERED_BYTES", 100)
    kept = evaluator_module._LatestStates()
    for boundary in range(5):
        kept[boundary] = (torch.zeros(10),)  # 40 bytes
        assert list(kept) == list(range(max(0, boundary - 1), boundary + 1))
