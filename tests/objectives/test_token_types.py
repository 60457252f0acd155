"""Pairs: token types as the tokenizer gives them, in every pass of the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertTokenizer, PreTrainedModel

from objectives.errors import InputError
from objectives.layers import uniform
from objectives.loading.hub import quiet_libraries
from objectives.loading.models import Classifier
from objectives.loading.tasks import DataOptions
from objectives.problem import load_problem
from objectives.quantization.second_moments import second_moments
from objectives.scores import LogOdds
from objectives.token_types import types_by_separator, types_of
from objectives.training_sentences import unseen_sentences
from tests.objectives.architectures import tiny_model
from tests.objectives.tiny_bert import SPECIAL, WORDS, make_tiny_bert

VOCABULARY = {token: index for index, token in enumerate((*SPECIAL, *WORDS))}


def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab=VOCABULARY, model_max_length=24)


def made_pairs(count: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(0)
    words = [word for word in WORDS if word.isalpha()]
    texts = [" ".join(random.choice(words, random.integers(1, 6))) for _ in range(2 * count)]
    return list(zip(texts[:count], texts[count:], strict=True))


def padded_log_odds(model: PreTrainedModel, pairs: list[tuple[str, str]]) -> LogOdds:
    """Return what ``transformers`` makes of the tokenizer's own output."""
    inputs = tokenizer()([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    log_odds: LogOdds = (logits[:, 1] - logits[:, 0]).numpy()
    return log_odds


def test_types_follow_the_separator_as_the_tokenizer_gives_them() -> None:
    classifier = Classifier(tiny_model("electra", vocab_size=len(VOCABULARY)), tokenizer(), "here", max_length=7)
    tokens = classifier.encode([("the cat", "a dog sleep"), ("the", "cat")])
    assert tokens.types == ((0, 0, 0, 0, 1, 1, 1), (0, 0, 0, 1, 1))
    assert [types_by_separator(torch.tensor(ids), VOCABULARY["[SEP]"]).tolist() for ids in tokens.ids] == [
        [*types] for types in tokens.types
    ]
    assert classifier.encode(["the cat"]).types is None
    with pytest.raises(InputError, match=r"pair 1: its token types do not change after the first '\[SEP\]'"):
        classifier.encode([("the", "cat"), ("the [SEP] cat", "dog")])
    without = Classifier(tiny_model("distilbert", vocab_size=len(VOCABULARY)), tokenizer(), "here")
    assert without.encode([("the cat", "dog")]).types is None
    short = Classifier(without.model, tokenizer(), "here", max_length=4)
    with pytest.raises(InputError, match="needs 5 tokens or more, 3 of which are special, and is cut to 4"):
        short.encode([("the cat", "dog")])


@pytest.mark.parametrize("kind", ["electra", "bert", "albert"])
def test_pairs_are_scored_calibrated_and_checked_with_their_types(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind, vocab_size=len(VOCABULARY))
    pairs = made_pairs(40)
    log_odds = padded_log_odds(model, pairs)
    model.config.id2label, model.config.label2id = {0: "Same", 1: "Other"}, {"Same": 0, "Other": 1}
    with torch.no_grad():
        model.get_parameter("classifier.out_proj.bias" if kind == "electra" else "classifier.bias")[1] -= float(
            np.median(log_odds)
        )
    log_odds = padded_log_odds(model, pairs)
    with quiet_libraries():
        model.save_pretrained(tmp_path / "model")
        tokenizer().save_pretrained(tmp_path / "model")
    labels = np.where(log_odds > 0, "other", "same")
    rows = pd.DataFrame({"sentence1": [a for a, _ in pairs], "sentence2": [b for _, b in pairs], "label": labels})
    (tmp_path / "data").mkdir()
    rows.to_csv(tmp_path / "data" / "validation.csv", index=False)
    rows[["sentence2", "sentence1"]].set_axis(["sentence1", "sentence2"], axis=1).to_csv(
        tmp_path / "data" / "train.csv", index=False
    )
    options = DataOptions(max_eval_samples=30)
    problem = load_problem(str(tmp_path / "model"), str(tmp_path / "data"), confirm="0.2", options=options)
    kept = [pairs.index(text) for text in scored_pairs(problem.token_ids, pairs)]
    assert problem.fp32_log_odds == pytest.approx(log_odds[kept], abs=1e-4)
    assert problem.fp32.metric == 1  # the data's names of labels are in the alphabet's order, the model's are not
    assert (len(kept), problem.sampled) == (30, "30 of 32, drawn by label")
    assert (problem.paired, problem.label_names) == (True, ("same", "other"))
    assert problem.holdout is not None and len(problem.holdout.labels) == 8
    # Passes that only get tokens: one with types beside them is the twin.
    plain = tiny_model(kind, vocab_size=len(VOCABULARY))
    plain.load_state_dict(problem.network.state_dict())
    ids, types = torch.tensor([problem.token_ids[0]]), types_of(problem.network, problem.token_ids[:1])
    with torch.no_grad():
        expected = plain(input_ids=ids, token_type_ids=torch.tensor(types)).logits
        assert torch.equal(problem.network(input_ids=ids).logits, expected)
        assert not torch.equal(plain(input_ids=ids).logits, expected)
    last = [layer for layer in problem.layers if layer.kind == "linear"][-1]
    moments, others = (
        second_moments(each, [last], problem.token_ids[:4])[last.name] for each in (problem.network, plain)
    )
    assert not torch.allclose(moments, others)
    assert len(unseen_sentences(problem, 10)) == 10
    eight = problem.confirm(uniform(problem.layers, 8))
    assert eight.scores.damage < 1e-3


def scored_pairs(token_ids: Sequence[Sequence[int]], pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs with these tokens."""
    encoded = tokenizer()([a for a, _ in pairs], [b for _, b in pairs])["input_ids"]
    by_tokens = {tuple(ids): pair for ids, pair in zip(encoded, pairs, strict=True)}
    return [by_tokens[tuple(ids)] for ids in token_ids]


def test_labels_that_no_order_fits_are_refused_with_what_was_tried(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "model")
    texts = [f"the {word}" for word in WORDS if word.isalpha()]
    path = tmp_path / "data.csv"
    pd.DataFrame({"text": texts, "label": ["no", "yes"] * (len(texts) // 2)}).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"no order's correlation .MCC. is clearly above chance .'no' as class"):
        load_problem(str(directory), str(path))
