"""A random tiny BERT and made-up sentences that it mostly judges right: a whole problem in a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from objectives.layers import WIDTHS, BitMap, Layer
from objectives.loading.hub import quiet_libraries
from search.study.study import claim, write_widths
from tests.objectives.architectures import tiny_model
from tests.objectives.tiny_bert import WORDS, make_tiny_bert


@dataclass(frozen=True)
class TinyProblem:
    """A model directory and a directory in the public CoLA layout."""

    model: Path
    data: Path


def make_tiny_problem(
    directory: Path, seed: int = 0, sentences: int = 80, model_type: str | None = None
) -> TinyProblem:
    """Write a tiny model and sentences labelled by its own predictions, one in eight flipped.

    The model is a BERT, or with its tokenizer a model of another type.
    """
    model_directory = make_tiny_bert(directory / "model", seed=seed)
    if model_type is not None:
        with quiet_libraries():
            tiny_model(model_type, pad_token_id=0).save_pretrained(model_directory)
    rng = np.random.default_rng(seed)
    words = [word for word in WORDS if word.isalpha()]
    texts = [" ".join(rng.choice(words, size=rng.integers(2, 9))) for _ in range(sentences)]
    with quiet_libraries(), torch.inference_mode():
        model = AutoModelForSequenceClassification.from_pretrained(model_directory).eval()
        tokenizer = AutoTokenizer.from_pretrained(model_directory)
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    log_odds = (logits[:, 1] - logits[:, 0]).numpy()
    # A random head may prefer one class throughout; the median splits the sentences evenly.
    with torch.no_grad():
        head = [name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")]
        model.get_parameter(head[-1])[1] -= float(np.median(log_odds))  # the last is the bias of the logits
    with quiet_libraries():
        model.save_pretrained(model_directory)
    labels = (log_odds > np.median(log_odds)) ^ (rng.random(sentences) < 1 / 8)
    rows = [f"tiny\t{int(label)}\t{'' if label else '*'}\t{text}\n" for label, text in zip(labels, texts, strict=True)]
    raw = directory / "data" / "raw"
    raw.mkdir(parents=True)
    half = sentences // 2
    (raw / "in_domain_train.tsv").write_text("".join(rows), encoding="utf-8")
    (raw / "in_domain_dev.tsv").write_text("".join(rows[:half]), encoding="utf-8")
    (raw / "out_of_domain_dev.tsv").write_text("".join(rows[half:]), encoding="utf-8")
    return TinyProblem(model=model_directory, data=directory / "data")


def ask(study: optuna.Study, layers: Sequence[Layer], widths: Sequence[int] = WIDTHS) -> tuple[optuna.Trial, BitMap]:
    """Begin a trial and return it with its map, if nobody else asks at the same time."""
    trial, _ = claim(study, layers)
    return trial, write_widths(trial, layers, widths)
