"""Training of the miniature: a small BERT with bert-base-uncased's 76 layers, on sentences of a grammar."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from objectives.heads import TWO_CLASSES
from objectives.loading.models import LABEL_NAMES
from objectives.metrics import metric_value
from objectives.scores import Labels
from tests.assets.miniature.grammar import Sentence, Sentences, generate
from tests.assets.miniature.muon import Muon

SHIPPED = 10_000
"""How many of the training sentences are written: a little more than CoLA has. The model is trained on all of them."""

_PAD, _UNK, _CLS, _SEP, _MASK = range(5)
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_IGNORED = -100  # cross_entropy's mark for what has no label


@dataclass(frozen=True)
class Recipe:
    """What determines the miniature besides its sentences."""

    hidden_size: int = 64
    layers: int = 12
    heads: int = 4
    intermediate_size: int = 128
    positions: int = 32
    initial_std: float = 0.08
    steps: int = 750
    warm_up_steps: int = 150
    pairs_per_batch: int = 64
    learning_rate: float = 4e-3
    matrix_learning_rate: float = 3e-3
    weight_decay: float = 0.01
    fault_layers: tuple[int, ...] = (3, 6, 9, 12)
    hidden_words: float = 0.004
    least_mcc: float = 0.7
    attempts: int = 3


def build(directory: Path, *, seed: int = 0) -> None:
    """Generate the sentences, train the model and write both, over what ``directory`` has of them.

    Args:
        directory: gets ``model``, a ``transformers`` directory; ``data``, in the public CoLA layout; and ``held_out``,
            only the two dev files: sentences that training and its checks have not seen.
        seed: of the sentences and of the training.

    Raises:
        RuntimeError: no attempt learned the grammar.
    """
    sentences = generate(seed)
    model, tokenizer = train(sentences, Recipe(), seed=seed)
    model.save_pretrained(directory / "model")
    tokenizer.save_pretrained(directory / "model")
    write_sentences(sentences, directory)


def write_sentences(sentences: Sentences, directory: Path) -> None:
    """Write the sentences that are shipped into ``data`` and ``held_out``, in the public CoLA layout."""
    for path, split in {
        "data/raw/in_domain_train.tsv": sentences.train[:SHIPPED],
        "data/raw/in_domain_dev.tsv": sentences.in_domain,
        "data/raw/out_of_domain_dev.tsv": sentences.out_of_domain,
        "held_out/raw/in_domain_dev.tsv": sentences.held_out_in_domain,
        "held_out/raw/out_of_domain_dev.tsv": sentences.held_out_out_of_domain,
    }.items():
        # Source, label, the linguist's mark, sentence.
        lines = [f"{s.source}\t{s.label}\t{'' if s.label else '*'}\t{s.text}\n" for s in split]
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text("".join(lines), encoding="utf-8", newline="\n")


def train(sentences: Sentences, recipe: Recipe, *, seed: int) -> tuple[BertForSequenceClassification, BertTokenizer]:
    """Train a model from scratch, from another start if one fails; torch's global random state stays as it was.

    Raises:
        RuntimeError: no attempt reached ``recipe.least_mcc`` on the validation sentences.
    """
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL_TOKENS, *sentences.words))}
    labels = np.array([sentence.label for sentence in sentences.validation], dtype=np.int8)
    reached: list[float] = []
    for attempt in range(recipe.attempts):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * recipe.attempts + attempt)
            model = _model(len(vocabulary), recipe)
            _fit(model, vocabulary, sentences.train, recipe, seed)
        reached.append(metric_value("mcc", TWO_CLASSES, _predictions(model, vocabulary, sentences.validation), labels))
        if reached[-1] >= recipe.least_mcc:
            return model, BertTokenizer(vocab=vocabulary, model_max_length=recipe.positions)
    raise RuntimeError(
        f"the miniature must reach a validation MCC of {recipe.least_mcc}, its {len(reached)} attempts reached "
        f"{', '.join(f'{value:.2f}' for value in reached)}"
    )


def _model(vocabulary_size: int, recipe: Recipe) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate_size,
        max_position_embeddings=recipe.positions,
        initializer_range=recipe.initial_std,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=_PAD,
        id2label=dict(LABEL_NAMES),
        label2id={name: label for label, name in LABEL_NAMES.items()},
    )
    return BertForSequenceClassification(config)


def _fit(
    model: BertForSequenceClassification,
    vocabulary: dict[str, int],
    sentences: Sequence[Sentence],
    recipe: Recipe,
    seed: int,
) -> None:
    """Train ``model`` on minimal pairs with their faulty words marked.

    Twelve post-norm layers do not find these rules from the labels alone, where single words tell nothing. Three
    things make it quick and reliable: both sentences of a pair are in one batch, so that a gradient is about their
    difference; linear heads on some layers, dropped afterwards, learn which words are at fault; and Muon.
    """
    ids = _encode(sentences, vocabulary)
    labels = torch.tensor([sentence.label for sentence in sentences])
    faults = [
        torch.tensor([_IGNORED, *fault])
        for good, bad in zip(sentences[::2], sentences[1::2], strict=True)
        for fault in _faults(good.text.split(), bad.text.split())
    ]
    heads = nn.ModuleDict({str(layer): nn.Linear(recipe.hidden_size, 2) for layer in recipe.fault_layers})
    matrices = [parameter for parameter in model.bert.encoder.parameters() if parameter.dim() == 2]
    others = {id(parameter): parameter for parameter in (*model.parameters(), *heads.parameters())}
    for matrix in matrices:
        del others[id(matrix)]
    adamw = torch.optim.AdamW(others.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    muon = Muon(matrices, momentum=0.95, weight_decay=recipe.weight_decay)
    batches = _batches([len(row) for row in ids], recipe.pairs_per_batch, random.Random(seed))
    model.train()
    for step in range(recipe.steps):
        chosen = next(batches)
        tokens = pad_sequence([ids[index] for index in chosen], batch_first=True, padding_value=_PAD)
        marks = pad_sequence([faults[index] for index in chosen], batch_first=True, padding_value=_IGNORED)
        out = model(
            input_ids=_with_hidden_words(tokens, recipe.hidden_words),
            attention_mask=(tokens != _PAD).long(),
            output_hidden_states=True,
        )
        loss = functional.cross_entropy(out.logits, labels[chosen])
        for layer in recipe.fault_layers:
            loss = loss + functional.cross_entropy(heads[str(layer)](out.hidden_states[layer]).mT, marks)
        loss.backward()
        nn.utils.clip_grad_norm_([*others.values(), *matrices], 1.0)
        left = (recipe.steps - step) / (recipe.steps - recipe.warm_up_steps)
        rate = min((step + 1) / recipe.warm_up_steps, left)
        for group in adamw.param_groups:
            group["lr"] = rate * recipe.learning_rate
        adamw.step()
        adamw.zero_grad()
        muon.step(rate * recipe.matrix_learning_rate)
    model.eval()


def _encode(sentences: Sequence[Sentence], vocabulary: dict[str, int]) -> list[torch.Tensor]:
    # What the tokenizer gives, in a tenth of its time: the words are the tokens.
    return [torch.tensor([_CLS, *(vocabulary[word] for word in s.text.split()), _SEP]) for s in sentences]


def _faults(good: Sequence[str], bad: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return for each word of a pair, and the end mark, whether it is at fault: what differs between the two.

    Where a word is missing from the bad sentence, the one after the gap is at fault.
    """
    shorter = min(len(good), len(bad))
    start = next((i for i in range(shorter) if good[i] != bad[i]), shorter)
    same_end = next((i for i in range(shorter - start) if good[-1 - i] != bad[-1 - i]), shorter - start)
    end = max(len(bad) - same_end, start + 1)
    return [0] * (len(good) + 1), [int(start <= i < end) for i in range(len(bad) + 1)]


def _batches(lengths: Sequence[int], pairs_per_batch: int, rng: random.Random) -> Iterator[list[int]]:
    """Yield the sentences' indices without end, pairs together and with others of about their length."""
    pairs = list(range(len(lengths) // 2))
    pool = 20 * pairs_per_batch
    while True:
        rng.shuffle(pairs)
        batches = []
        for first in range(0, len(pairs), pool):
            alike = sorted(pairs[first : first + pool], key=lambda pair: lengths[2 * pair])
            batches += [alike[i : i + pairs_per_batch] for i in range(0, len(alike), pairs_per_batch)]
        rng.shuffle(batches)
        for batch in batches:
            yield [index for pair in batch for index in (2 * pair, 2 * pair + 1)]


def _with_hidden_words(tokens: torch.Tensor, share: float) -> torch.Tensor:
    """Replace a small share of the words by [UNK] or [MASK], so that these rows of the vocabulary occur as well."""
    chance = torch.rand(tokens.shape)
    is_word = tokens > _MASK
    tokens = torch.where(is_word & (chance < share / 2), _UNK, tokens)
    return torch.where(is_word & (chance > 1 - share / 2), _MASK, tokens)


@torch.no_grad()
def _predictions(
    model: BertForSequenceClassification, vocabulary: dict[str, int], sentences: Sequence[Sentence]
) -> Labels:
    tokens = pad_sequence(_encode(sentences, vocabulary), batch_first=True, padding_value=_PAD)
    logits = model(input_ids=tokens, attention_mask=(tokens != _PAD).long()).logits
    predicted: Labels = logits.argmax(dim=1).numpy().astype(np.int8)
    return predicted
