"""The miniature as it is shipped; how it was made is tested beside its maker, in tests/assets."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.metrics import matthews_corrcoef
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from objectives.loading.sentences import load_sentences
from objectives.miniature import Miniature
from tests.assets.miniature.grammar import Sentences, generate
from tests.assets.miniature.training import write_sentences
from tests.shared import ROOT

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WEIGHTS = "33ecd13b60faebdf538cf5020b2e2bdabbf307d665f3c5b5366db060dc269c44"


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return generate(0)


def test_the_weights_are_those_that_all_figures_are_of(miniature: Miniature) -> None:
    assert hashlib.sha256((miniature.model / "model.safetensors").read_bytes()).hexdigest() == WEIGHTS


def test_the_sentences_are_those_that_the_grammar_gives(
    miniature: Miniature, sentences: Sentences, tmp_path: Path
) -> None:
    write_sentences(sentences, tmp_path)
    given = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.tsv")}
    shipped = [path for folder in (miniature.data, miniature.held_out) for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(miniature.model.parent): path.read_bytes() for path in shipped} == given


@pytest.mark.end_to_end
def test_the_model_has_learned(miniature: Miniature) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(miniature.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(miniature.model)
    assert model.config.id2label == {0: "unacceptable", 1: "acceptable"}
    for data in (miniature.data, miniature.held_out):
        validation = load_sentences(str(data), "validation")
        with torch.no_grad():
            logits = model(**tokenizer(list(validation.texts), padding=True, return_tensors="pt")).logits
        assert matthews_corrcoef(validation.labels, logits.argmax(dim=1)) >= 0.7


def test_every_word_is_one_token_and_every_row_a_token(miniature: Miniature, sentences: Sentences) -> None:
    tokenizer = AutoTokenizer.from_pretrained(miniature.model)
    model = AutoModelForSequenceClassification.from_pretrained(miniature.model)
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == [*SPECIAL_TOKENS, *sentences.words]
    assert model.get_input_embeddings().weight.shape == (len(tokenizer), 64)
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 32
    text = sentences.train[0].text
    assert tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) == ["[CLS]", *text.split(), "[SEP]"]


def test_no_path_of_the_machine_that_made_it_is_in_its_files(miniature: Miniature) -> None:
    for path in miniature.model.glob("*.json"):
        content = path.read_text(encoding="utf-8")
        assert "_name_or_path" not in content
        assert "/" not in content


def test_the_documented_map_is_feasible(miniature: Miniature) -> None:
    lines = (ROOT / "objectives" / "documented_map.txt").read_text(encoding="utf-8").splitlines()
    matches = [re.fullmatch(r"Layer: (\S+) \| bit: (\d)", line) for line in lines]
    widths = {match[1]: int(match[2]) for match in matches if match}
    with safe_open(miniature.model / "model.safetensors", framework="pt") as weights:
        elements = {name: int(np.prod(weights.get_slice(f"{name}.weight").get_shape())) for name in widths}
    assert len(elements) == 76
    assert 32 * sum(elements.values()) / sum(elements[name] * widths[name] for name in widths) >= 5.5
