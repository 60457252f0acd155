"""Load a model's tokenizer, and tokenise sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available

from objectives.errors import InputError, is_out_of_memory
from objectives.loading.hub import first_line, library_faults

TokenIds = tuple[tuple[int, ...], ...]
_MOST_SHOWN = 60  # characters of a sentence in a message


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
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, n_embeddings: int | None = None
) -> TokenIds:
    """Return each sentence's token ids, with special tokens, cut to ``max_tokens`` and without padding.

    Args:
        tokenizer: the model's tokenizer.
        texts: ``n_sentences`` texts.
        max_tokens: the model's longest input.
        n_embeddings: the model's token embeddings; None for no check. Only ids that occur need one: vocabularies may
            have unused tokens above them.

    Raises:
        InputError: the tokenizer fails at a sentence, or gives a token without an embedding.
        ValueError: ``max_tokens`` leaves no room for a word between the special tokens.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_tokens <= special:
        raise ValueError(f"max_tokens must be above {special}, the tokenizer's special tokens, got {max_tokens}")
    if not texts:
        return ()
    try:
        encoded = _encode(tokenizer, texts, max_tokens)
    except Exception as error:  # tokenizers raises bare Exceptions
        if is_out_of_memory(error):
            raise
        raise InputError(_failure(tokenizer, texts, max_tokens, error)) from error
    for number, ids in enumerate(encoded):
        if n_embeddings is not None and max(ids, default=0) >= n_embeddings:
            token = tokenizer.convert_ids_to_tokens(max(ids))
            raise InputError(
                f"sentence {number} ({texts[number][:_MOST_SHOWN]!r}): its token {token!r} has id {max(ids)}, and the "
                f"model has {n_embeddings} embeddings; use the tokenizer that the model was trained with"
            )
    return encoded


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> TokenIds:
    ids = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_tokens,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    return tuple(tuple(row) for row in ids)


def _failure(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, error: Exception) -> str:
    """Return a message with the first sentence at which the tokenizer fails."""
    place = "the sentences"
    for number, text in enumerate(texts):
        try:
            _encode(tokenizer, [text], max_tokens)
        except Exception as single:  # as above
            place, error = f"sentence {number} ({text[:_MOST_SHOWN]!r})", single
            break
    return (
        f"{place}: the tokenizer fails ({first_line(error)}); its vocabulary is damaged or incomplete, download or "
        "save the tokenizer again"
    )
