"""A BERT of two layers and sixteen hidden units, as an ordinary model directory: milliseconds to make and to run."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertTokenizer, PreTrainedModel

from objectives.loading.hub import quiet_libraries

WORDS = ("the", "a", "cat", "dog", "bird", "see", "like", "sleep", "run", "##s", "not", "and", "who", ".", "?")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HIDDEN, LAYERS, MAX_TOKENS = 16, 2, 24


def make_tiny_bert(
    directory: Path,
    *,
    seed: int = 0,
    labels: int = 2,
    head: bool = True,
    words: tuple[str, ...] = WORDS,
    older_files: bool = False,
) -> Path:
    """Write a random BERT and its WordPiece tokenizer to a new directory, and return it.

    Args:
        directory: made here, with its parents.
        seed: two models of one seed are equal.
        labels: the classes of the head.
        head: with a classification head, or as a masked language model has none.
        words: the vocabulary after the special tokens.
        older_files: as models were saved in 2020: ``pytorch_model.bin``, ``vocab.txt``, and neither ``tokenizer.json``
            nor label names.
    """
    directory.mkdir(parents=True)
    vocabulary = [*SPECIAL, *words]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=2 * HIDDEN,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.2,  # BERT's own 0.02 is so small that every sentence gets nearly the same logits
    )
    config.num_labels = labels
    with torch.random.fork_rng(), quiet_libraries():
        torch.manual_seed(seed)
        model: PreTrainedModel = (BertForSequenceClassification if head else BertForMaskedLM)(config)
        if older_files:
            config.save_pretrained(directory)
            torch.save(model.state_dict(), directory / "pytorch_model.bin")
            (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
            (directory / "special_tokens_map.json").write_text(
                '{"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", '
                '"mask_token": "[MASK]"}',
                encoding="utf-8",
            )
            (directory / "tokenizer_config.json").write_text(
                f'{{"do_lower_case": true, "model_max_length": {MAX_TOKENS}}}', encoding="utf-8"
            )
        else:
            model.save_pretrained(directory)
            tokenizer = BertTokenizer(
                vocab={token: index for index, token in enumerate(vocabulary)}, model_max_length=MAX_TOKENS
            )
            tokenizer.save_pretrained(directory)
    return directory
