"""The miniature: a small BERT with bert-base-uncased's 76 layers, trained on the spot and then cached."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from objectives.files import replacing_directory, write_text
from objectives.hub import quiet_libraries
from objectives.miniature.grammar import Sentence, Sentences, generate
from objectives.miniature.muon import Muon
from objectives.models import LABEL_NAMES
from objectives.scores import Labels, mcc
from objectives.tensor_files import plain_errors

_PAD, _UNK, _CLS, _SEP, _MASK = range(5)
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_INVENTORY = "files.json"
_IGNORED = -100  # cross_entropy's mark for what has no label


@dataclass(frozen=True)
class Miniature:
    """Where the miniature lies: what any local model directory and CoLA directory are to the rest of the product.

    Attributes:
        model: a ``transformers`` directory.
        data: a directory in the public CoLA layout.
        held_out: another one, of the two dev files only: sentences that training and its checks have not seen.
    """

    model: Path
    data: Path
    held_out: Path


@dataclass(frozen=True)
class Recipe:
    """What determines the miniature besides its sentences; ``version`` counts changes of the procedure itself."""

    version: int = 1
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


def materialise(cache_dir: Path, *, seed: int = 0, show_progress: bool = True) -> Miniature:
    """Return the miniature, trained first where ``cache_dir`` does not have it: about a minute on two cores.

    Args:
        cache_dir: where it is kept, in ``miniature-<fingerprint>``; made when it is missing.
        seed: of the sentences and of the training.
        show_progress: draw a bar on stderr while it is trained.

    Raises:
        RuntimeError: no attempt learned the grammar; the message has the MCC of each.
        OSError: ``cache_dir`` cannot be written.
    """
    recipe = Recipe()
    sentences = generate(seed)
    directory = cache_dir / f"miniature-{_fingerprint(sentences, recipe, seed)}"
    if not _is_whole(directory):
        shutil.rmtree(directory, ignore_errors=True)
        try:
            with replacing_directory(directory) as temporary:
                _write_cola(temporary / "data", sentences.train, sentences.in_domain, sentences.out_of_domain)
                _write_cola(temporary / "held-out", (), sentences.held_out_in_domain, sentences.held_out_out_of_domain)
                model, tokenizer = train(sentences, recipe, seed=seed, show_progress=show_progress)
                with quiet_libraries(), plain_errors():
                    model.save_pretrained(temporary / "model")
                    tokenizer.save_pretrained(temporary / "model")
                write_text(temporary / _INVENTORY, json.dumps(_sizes(temporary)))
        except OSError:
            # Another process was faster: its directory is complete, as it was renamed in one step, and as good as ours.
            if not _is_whole(directory):
                raise
    return Miniature(directory / "model", directory / "data", directory / "held-out")


def train(
    sentences: Sentences, recipe: Recipe, *, seed: int, show_progress: bool
) -> tuple[BertForSequenceClassification, BertTokenizer]:
    """Train a model from scratch, from another start where one fails; torch's global random state stays as it was.

    Raises:
        RuntimeError: no attempt reached ``recipe.least_mcc`` on the validation sentences.
    """
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL_TOKENS, *sentences.words))}
    reached: list[float] = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    shown = show_progress and console.is_terminal  # a pipe would only get an empty line
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        for attempt in range(recipe.attempts):
            task = progress.add_task("training the miniature, once", total=recipe.steps)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed * recipe.attempts + attempt)
                model = _model(len(vocabulary), recipe)
                _fit(model, vocabulary, sentences.train, recipe, seed, lambda: progress.advance(task))  # noqa: B023
            labels = np.array([sentence.label for sentence in sentences.validation], dtype=np.int8)
            reached.append(mcc(_predictions(model, vocabulary, sentences.validation), labels))
            if reached[-1] >= recipe.least_mcc:
                return model, BertTokenizer(vocab=vocabulary, model_max_length=recipe.positions)
            progress.remove_task(task)
    raise RuntimeError(
        f"the miniature must reach a validation MCC of {recipe.least_mcc}, its {len(reached)} attempts reached "
        f"{', '.join(f'{value:.2f}' for value in reached)}; please report this with the versions of torch and "
        f"transformers, and use a local model directory meanwhile (--model DIR)"
    )


def _fingerprint(sentences: Sentences, recipe: Recipe, seed: int) -> str:
    digest = hashlib.sha256(json.dumps([asdict(recipe), seed]).encode())
    for split in (sentences.train, sentences.validation, sentences.held_out):
        digest.update(_cola(split).encode())
    return digest.hexdigest()[:16]


# --------------------------------------------------------------------------------------------------------------------
# Files.


def _is_whole(directory: Path) -> bool:
    """Return whether all that was written is there: what cleans up caches takes files and leaves directories."""
    try:
        inventory = json.loads((directory / _INVENTORY).read_text(encoding="utf-8"))
        return bool(inventory.items() <= _sizes(directory).items())
    except (OSError, ValueError, AttributeError):
        return False


def _sizes(directory: Path) -> dict[str, int]:
    """Return the sizes in bytes of a directory's files, by their paths in it."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


def _cola(sentences: Sequence[Sentence]) -> str:
    """Return the lines of a CoLA file: source, label, the linguist's mark, sentence."""
    return "".join(f"{s.source}\t{s.label}\t{'' if s.label else '*'}\t{s.text}\n" for s in sentences)


def _write_cola(
    directory: Path, train: Sequence[Sentence], in_domain: Sequence[Sentence], out_of_domain: Sequence[Sentence]
) -> None:
    raw = directory / "raw"
    raw.mkdir(parents=True)
    for name, split in (("in_domain_train", train), ("in_domain_dev", in_domain), ("out_of_domain_dev", out_of_domain)):
        if split:
            (raw / f"{name}.tsv").write_text(_cola(split), encoding="utf-8", newline="\n")


# --------------------------------------------------------------------------------------------------------------------
# Training.


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
    advance: Callable[[], None],
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
    batches = _batches([len(row) for row in ids], recipe.pairs_per_batch, random.Random(seed))  # noqa: S311
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
        advance()
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
