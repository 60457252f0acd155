import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from objectives.bit_maps import documented_bit_map
from objectives.errors import InputError
from objectives.evaluation.evaluator import Evaluator
from objectives.heads import TWO_CLASSES, YesNoLabels
from objectives.layers import uniform
from objectives.loading.hub import quiet_libraries
from objectives.loading.models import load_classifier
from objectives.loading.sentences import load_sentences
from objectives.loading.tasks import DataOptions
from objectives.miniature import Miniature
from objectives.problem import Problem, load_problem
from objectives.scores import LogOdds
from tests.objectives.architectures import tiny_model
from tests.objectives.tiny_bert import WORDS, make_tiny_bert
from tests.shared import COLA, MODEL, needs_shared


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What loading the problem reports."""
    return []


@pytest.fixture(scope="module")
def problem(miniature: Miniature, said: list[str]) -> Problem:
    return load_problem(str(miniature.model), str(miniature.data), report_progress=said.append)


@pytest.fixture(scope="module")
def shared() -> Problem:
    return load_problem(str(MODEL), str(COLA))


def plain_log_odds(model: str, data: str) -> LogOdds:
    """Return log-odds as anyone would compute them: transformers, padded batches of sentences of like length."""
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = load_sentences(data, "validation").texts
    log_odds = np.empty(len(texts), dtype=np.float32)
    by_length = np.argsort([len(text) for text in texts])
    with torch.inference_mode():
        for batch in np.split(by_length, range(64, len(texts), 64)):
            logits = network(**tokenizer([texts[at] for at in batch], padding=True, return_tensors="pt")).logits
            log_odds[batch] = (logits[:, 1] - logits[:, 0]).numpy()
    return log_odds


@pytest.mark.end_to_end
def test_the_miniature_learned_and_hurts_when_quantised_too_far(problem: Problem) -> None:
    assert problem.fp32.metric >= 0.7
    two, eight = (problem.evaluate(uniform(problem.layers, width)).scores for width in (2, 8))
    assert two.metric <= problem.fp32.metric - 0.1
    assert eight.metric >= problem.fp32.metric - 0.01
    damages = [problem.evaluate(uniform(problem.layers, width)).scores.damage for width in range(2, 9)]
    assert damages == sorted(damages, reverse=True)


def test_what_the_model_predicts_and_who_decided_it_is_reported(problem: Problem, said: list[str]) -> None:
    assert (problem.label_names, problem.paired) == (("unacceptable", "acceptable"), False)
    decided = "as transformers decides where its config does not say"
    assert f"the model predicts 2 classes, {decided}; scored by MCC" in said


def test_the_miniature_has_the_documented_layers(problem: Problem) -> None:
    assert len(problem.layers) == 76
    assert problem.footprint.compression(documented_bit_map(problem.layers), "nominal") >= 5.5


def test_the_miniature_scores_as_transformers_itself(problem: Problem, miniature: Miniature) -> None:
    expected = plain_log_odds(str(miniature.model), str(miniature.data))
    np.testing.assert_allclose(problem.fp32_log_odds, expected, atol=1e-4)


@needs_shared
@pytest.mark.slow
def test_the_shared_model_agrees_with_transformers_to_the_last_prediction(shared: Problem) -> None:
    expected = plain_log_odds(str(MODEL), str(COLA))
    np.testing.assert_allclose(shared.fp32_log_odds, expected, atol=1e-4)
    assert np.array_equal(TWO_CLASSES.predictions(shared.fp32_log_odds), TWO_CLASSES.predictions(expected))
    assert len(shared.labels) == 1043


@needs_shared
def test_the_documented_map_on_the_shared_model(shared: Problem) -> None:
    documented = documented_bit_map(shared.layers)
    assert round(shared.footprint.compression(documented, "nominal"), 3) == 5.644
    assert shared.footprint.fp32_packed_bytes == (MODEL / "model.safetensors").stat().st_size
    scores = shared.evaluate(documented).scores
    # The model's page measured 0.252 and 0.183 with a clipping search of its own.
    assert scores.damage == pytest.approx(0.252, rel=0.1)
    assert scores.metric == pytest.approx(0.183, abs=0.05)


@needs_shared
def test_quantised_class_scores_are_those_of_transformers(shared: Problem) -> None:
    network = load_classifier(str(MODEL)).model
    bit_map = tuple(2 + index % 7 for index in range(len(shared.layers)))
    for layer, width in zip(shared.layers, bit_map, strict=True):
        shared.evaluator.bank.write_weight(layer, width, network.get_parameter(layer.parameter))
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    texts = list(load_sentences(str(COLA), "validation").texts[::8])
    with torch.inference_mode():
        logits = network(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    ours = Evaluator(shared.network, shared.layers, shared.token_ids[::8], bank=shared.evaluator.bank).log_odds(bit_map)
    np.testing.assert_allclose(ours, (logits[:, 1] - logits[:, 0]).numpy(), atol=1e-4)


def test_sentences_longer_than_the_model_are_cut(miniature: Miniature, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    texts = [line.split("\t")[3] for line in (miniature.data / "raw" / "in_domain_dev.tsv").read_text().splitlines()]
    lines = (miniature.data / "raw" / "in_domain_dev.tsv").read_text()
    long = f"x\t1\t\t{' '.join(texts[:20])}\n"
    for name, content in (("in_domain_train", lines), ("in_domain_dev", lines + long), ("out_of_domain_dev", lines)):
        (raw / f"{name}.tsv").write_text(content)
    assert len(load_problem(str(miniature.model), str(tmp_path)).labels) == 2 * len(texts) + 1


def test_several_label_columns_make_a_model_of_yes_no_labels_as_transformers_decides(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "model", labels=3)
    network = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    texts = [f"the {one} {other}" for one in WORDS[2:9] for other in WORDS[2:9] if one.isalpha() and other.isalpha()]
    with torch.no_grad():
        logits = network(**AutoTokenizer.from_pretrained(directory)(texts, padding=True, return_tensors="pt")).logits
        middle = logits.median(dim=0)[0]
        network.get_parameter("classifier.bias").sub_(middle)
    with quiet_libraries():
        network.save_pretrained(directory)
    table = pd.DataFrame((logits > middle).int().numpy(), columns=["joy", "anger", "fear"])
    table.assign(text=texts).to_csv(tmp_path / "data.csv", index=False)
    lines: list[str] = []
    arguments = (str(directory), str(tmp_path / "data.csv"))
    options = DataOptions(label_column=("joy", "anger", "fear"))
    problem = load_problem(*arguments, report_progress=lines.append, options=options)
    assert (problem.head, problem.metric) == (YesNoLabels(3), "f1")
    assert problem.fp32.metric > 0.95  # a logit of the middle sentence may round to either side of 0
    how = "as transformers decides where its config does not say"
    assert f"the model predicts 3 yes/no labels, {how}; scored by F1, the mean over 3 yes/no labels (macro)" in lines
    config = directory / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "problem_type": "single_label_classification"}))
    with pytest.raises(InputError, match="has 3 label columns, and the model predicts 3 classes"):
        load_problem(*arguments, options=options)


def test_weights_that_are_not_searched_are_named_first(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "model")
    vocabulary = len(AutoTokenizer.from_pretrained(directory).get_vocab())
    tiny_model("squeezebert", vocab_size=vocabulary).save_pretrained(directory)
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("in_domain_train", "in_domain_dev", "out_of_domain_dev"):
        (raw / f"{name}.tsv").write_text("x\t1\t\tthe cat sleep\nx\t0\t*\tcat the\n", encoding="utf-8")
    lines: list[str] = []
    with suppress(InputError):  # a random model is no better than chance
        load_problem(str(directory), str(tmp_path), report_progress=lines.append)
    assert lines[1].startswith("not searched: 13 weights with ")  # the head is one
    assert "(transformer.encoder.layers.*." in lines[1]
