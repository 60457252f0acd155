"""Load a model's tokenizer, and tokenise sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available

from objectives.errors import InputError, is_out_of_memory
from objectives.loading.hub import first_line, library_faults
from objectives.token_types import types_by_separator

Text = str | tuple[str, str]
"""A sentence, or a pair of sentences."""
TokenIds = tuple[tuple[int, ...], ...]
_MOST_SHOWN = 60  # characters of a sentence in a message


@dataclass(frozen=True)
class Tokens:
    """Tokens of ``n_sentences`` sentences or pairs: their ids, and their types, None if all are 0."""

    ids: TokenIds
    types: TokenIds | None = None


def load_tokenizer(directory: Path, source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model directory.

    Raises:
        InputError: it cannot be read, is damaged, or needs packages that are not installed.
    """
    models = sorted(path.name for path in directory.glob("*.model"))
    if models and not any((directory / name).exists() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        packages = {"sentencepiece": is_sentencepiece_available(), "protobuf": is_protobuf_available()}
        if missing := [name for name, installed in packages.items() if not installed]:
            raise InputError(
                f"model {source}: its tokenizer is a SentencePiece model ({', '.join(models)}), which needs the "
                f"packages {' and '.join(missing)}; install them with pip install -e '.[sentencepiece]', or save a "
                "tokenizer.json beside it"
            )
        # transformers takes a damaged one for a model of tiktoken, and an empty one for a tokenizer without words.
        if not any(_is_sentencepiece(directory / name) for name in models):
            raise InputError(
                f"model {source}: its SentencePiece model ({', '.join(models)}) is damaged; download or save the "
                "tokenizer again"
            )
    with library_faults(f"model {source}", "the tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    return tokenizer


def _is_sentencepiece(path: Path) -> bool:
    from sentencepiece import SentencePieceProcessor  # an optional package

    try:
        SentencePieceProcessor(model_file=str(path))
    except RuntimeError:
        return False
    return True


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_tokens: int, n_embeddings: int | None = None
) -> TokenIds:
    """Return each sentence's token ids, as :func:`encode`."""
    return encode(tokenizer, texts, max_tokens, n_embeddings).ids


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    max_tokens: int,
    n_embeddings: int | None = None,
    with_types: bool = False,
) -> Tokens:
    """Return each sentence's tokens, with special tokens, cut to ``max_tokens`` and without padding.

    Args:
        tokenizer: the model's tokenizer.
        texts: ``n_sentences`` texts, or pairs of texts.
        max_tokens: the longest input. Of a pair, the longer text is cut first.
        n_embeddings: the model's token embeddings; None for no check. Only ids that occur need one: vocabularies may
            have unused tokens above them.
        with_types: return token types, if they tell the texts of pairs apart.

    Raises:
        InputError: the tokenizer fails at a sentence, or gives a token without an embedding.
        InputError: token types do not follow from the separator between the texts.
        InputError: ``max_tokens`` leaves no room for a word of each text between the special tokens.
    """
    if not texts:
        return Tokens(())
    n_texts = 1 if isinstance(texts[0], str) else 2
    special = tokenizer.num_special_tokens_to_add(pair=n_texts == 2)
    if max_tokens < special + n_texts:
        raise InputError(
            f"an input needs {special + n_texts} tokens or more, {special} of which are special, and is cut to "
            f"{max_tokens}; raise --max-length"
        )
    try:
        encoded = _encode(tokenizer, texts, max_tokens, with_types)
    except Exception as error:  # tokenizers raises bare Exceptions
        if is_out_of_memory(error):
            raise
        raise InputError(_failure(tokenizer, texts, max_tokens, error)) from error
    for number, ids in enumerate(encoded.ids):
        if n_embeddings is not None and max(ids, default=0) >= n_embeddings:
            token = tokenizer.convert_ids_to_tokens(max(ids))
            raise InputError(
                f"sentence {number} ({_shown(texts[number])}): its token {token!r} has id {max(ids)}, and the "
                f"model has {n_embeddings} embeddings; use the tokenizer that the model was trained with"
            )
    if encoded.types is not None:
        _check_separators(tokenizer, encoded)
    return encoded


def _check_separators(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> None:
    """Check that token types follow from the separators, which the rest relies on."""
    assert tokens.types is not None
    for number, (ids, types) in enumerate(zip(tokens.ids, tokens.types, strict=True)):
        if types_by_separator(torch.tensor(ids), tokenizer.sep_token_id).tolist() != list(types):
            raise InputError(
                f"pair {number}: its token types do not change after the first {tokenizer.sep_token!r}; remove "
                f"{tokenizer.sep_token!r} from the text, or choose a model with BERT's token types"
            )


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_tokens: int, with_types: bool = False
) -> Tokens:
    pairs = isinstance(texts[0], tuple)
    encoded = tokenizer(
        *([list(part) for part in zip(*texts, strict=True)] if pairs else [list(texts)]),
        truncation=True,
        max_length=max_tokens,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=pairs and with_types,
    )
    ids = tuple(tuple(row) for row in encoded["input_ids"])
    types = tuple(tuple(row) for row in encoded.get("token_type_ids", ()))
    return Tokens(ids, types if any(map(any, types)) else None)


def _shown(text: Text) -> str:
    return repr((text if isinstance(text, str) else " ".join(text))[:_MOST_SHOWN])


def _failure(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_tokens: int, error: Exception) -> str:
    """Return a message with the first sentence at which the tokenizer fails."""
    place = "the sentences"
    for number, text in enumerate(texts):
        try:
            _encode(tokenizer, [text], max_tokens)
        except Exception as single:  # as above
            place, error = f"sentence {number} ({_shown(text)})", single
            break
    return (
        f"{place}: the tokenizer fails ({first_line(error)}); its vocabulary is damaged or incomplete, download or "
        "save the tokenizer again"
    )
