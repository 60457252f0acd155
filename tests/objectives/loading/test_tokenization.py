"""Tokenizers: the ids of sentences, what fails at which sentence, and SentencePiece models without a tokenizer.json."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from transformers import AlbertConfig, BertTokenizer, CamembertConfig, DebertaV2Config, XLMRobertaConfig

from objectives.errors import InputError
from objectives.loading import tokenization
from objectives.loading.models import load_classifier
from objectives.loading.tokenization import load_tokenizer, tokenize
from tests.objectives.tiny_bert import SPECIAL, WORDS, make_tiny_bert


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={token: index for index, token in enumerate((*SPECIAL, *WORDS))}, model_max_length=6)


def test_encoding_gives_each_sentence_its_own_ids(tokenizer: BertTokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    encoded = tokenize(tokenizer, ["The cats see.", "dog", ""], max_tokens=20)
    words = [["[CLS]", "the", "cat", "##s", "see", ".", "[SEP]"], ["[CLS]", "dog", "[SEP]"], ["[CLS]", "[SEP]"]]
    assert encoded == tuple(tuple(vocabulary[word] for word in sentence) for sentence in words)


def test_encoding_cuts_the_words_and_keeps_the_special_tokens(tokenizer: BertTokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    (encoded,) = tokenize(tokenizer, ["the cat and the dog and the bird"], max_tokens=4)
    assert encoded == tuple(vocabulary[word] for word in ("[CLS]", "the", "cat", "[SEP]"))


def test_encoding_goes_by_max_tokens_alone(tokenizer: BertTokenizer) -> None:
    assert tokenizer.model_max_length == 6
    (encoded,) = tokenize(tokenizer, ["the cat and the dog and the bird"], max_tokens=100)
    assert len(encoded) == 10


def test_encoding_nothing_gives_nothing_and_no_room_is_refused(tokenizer: BertTokenizer) -> None:
    assert tokenize(tokenizer, [], max_tokens=20) == ()
    assert len(tokenize(tokenizer, ["the cat"], max_tokens=3)[0]) == 3
    with pytest.raises(ValueError, match="max_tokens must be above 2"):
        tokenize(tokenizer, ["the cat"], max_tokens=2)


def test_only_tokens_that_occur_need_an_embedding(tokenizer: BertTokenizer) -> None:
    highest = len(SPECIAL) + len(WORDS) - 1  # of "?"
    texts = ["the cat .", "the dog ?"]
    assert len(tokenize(tokenizer, texts[:1], 20, n_embeddings=highest)) == 1
    with pytest.raises(
        InputError, match=rf"sentence 1 \('the dog \?'\): its token '\?' has id {highest}, and the model"
    ):
        tokenize(tokenizer, texts, 20, n_embeddings=highest)
    assert len(tokenize(tokenizer, texts, 20, n_embeddings=highest + 1)) == 2


def test_a_blank_last_line_and_an_unused_token_do_no_harm(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "model", older_files=True)
    expected = load_classifier(str(directory)).tokenize(["the cat"])
    with (directory / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("\nunused\n")
    classifier = load_classifier(str(directory))
    assert len(classifier.tokenizer) > classifier.n_embeddings
    assert classifier.tokenize(["the cat"]) == expected
    with pytest.raises(InputError, match=rf"model {directory}: sentence 1 .* token 'unused'"):
        classifier.tokenize(["the cat", "unused"])


def test_a_vocabulary_without_unknown_token_fails_at_the_sentence_that_needs_it(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "model", older_files=True)
    vocabulary = (directory / "vocab.txt").read_text(encoding="utf-8")
    (directory / "vocab.txt").write_text(vocabulary.replace("[UNK]", "[OTHER]"), encoding="utf-8")
    classifier = load_classifier(str(directory))
    assert len(classifier.tokenize(["the cat"])) == 1
    with pytest.raises(InputError, match=r"sentence 1 \('the zebra'\): the tokenizer fails .*Missing \[UNK\]"):
        classifier.tokenize(["the cat", "the zebra", "another"])


@pytest.mark.parametrize("installed", ["sentencepiece", "protobuf", "neither"])
def test_what_a_sentencepiece_model_needs_is_named(
    installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spm.model").write_bytes(b"")
    for package in ("sentencepiece", "protobuf"):
        monkeypatch.setattr(tokenization, f"is_{package}_available", lambda package=package: package == installed)
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path, "here")
    needed = {"sentencepiece": "protobuf", "protobuf": "sentencepiece", "neither": "sentencepiece and protobuf"}
    assert f"SentencePiece model (spm.model), which needs the packages {needed[installed]};" in str(caught.value)
    assert "pip install -e '.[sentencepiece]'" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x0a\xff a torn download" * 9], ids=["empty", "torn"])
def test_a_damaged_sentencepiece_model_is_called_damaged(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    XLMRobertaConfig(vocab_size=60).save_pretrained(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(content)
    with pytest.raises(
        InputError, match=r"model here: its SentencePiece model \(sentencepiece\.bpe\.model\) is damaged"
    ):
        load_tokenizer(tmp_path, "here")


BERT_STYLE = {"bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"], "pad_piece": "[PAD]"}
FAMILY: list[tuple[Any, str, dict[str, Any]]] = [
    (DebertaV2Config, "spm.model", {"unk_piece": "[UNK]", **BERT_STYLE}),
    (CamembertConfig, "sentencepiece.bpe.model", {}),
    (AlbertConfig, "spiece.model", {"unk_piece": "<unk>", **BERT_STYLE, "pad_piece": "<pad>"}),
    (XLMRobertaConfig, "sentencepiece.bpe.model", {}),
]


@pytest.mark.parametrize(("config", "name", "settings"), FAMILY, ids=lambda value: getattr(value, "model_type", ""))
def test_a_sentencepiece_model_alone_cuts_sentences_as_sentencepiece_does(
    config: Any, name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    pad = {"pad_id": 0, "unk_id": 1} if settings else {}
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sees a dog .", "a bird likes the cats .", "who sleeps and runs ?"] * 20),
        model_writer=content,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
        **pad,
    )
    (tmp_path / name).write_bytes(content.getvalue())
    config(vocab_size=60).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path, "here")
    processor = sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())
    text = "the cats see a bird ?"
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    assert pieces[1:-1] == processor.encode(text, out_type=str)
    assert tokenizer.convert_ids_to_tokens(tokenizer.pad_token_id) in ("[PAD]", "<pad>")
