"""Fine-tune an encoder on CoLA."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from objectives.errors import InputError, all_faults
from objectives.files import replacing_directory
from objectives.heads import TWO_CLASSES
from objectives.loading.hub import quiet_libraries
from objectives.loading.models import Classifier, load_base
from objectives.loading.sentences import Sentences, load_sentences
from objectives.metrics import metric_value
from objectives.tensor_files import safetensor_errors_as_os_errors


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned model's directory, and its MCC on the validation sentences, -1..1, higher is better.

    ``elapsed_s`` is the time for loading, training and scoring.
    """

    out: Path
    mcc: float
    elapsed_s: float


def finetune(
    base: str,
    data: str,
    out: Path,
    *,
    epochs: float = 3,
    learning_rate: float = 2e-5,
    batch_size: int = 32,
    seed: int = 42,
) -> FinetuneResult:
    """Fine-tune an encoder on CoLA's train sentences and save it as an ordinary ``transformers`` directory.

    A GPU is used if there is one. On a CPU the same arguments give the same model.

    Args:
        base: a model directory or hub name; its classification head may be missing.
        data: a CoLA directory or hub name, as for ``load_sentences``.
        out: the directory to make; it appears when it is complete.
        epochs: passes over the train sentences, which may be a fraction.
        learning_rate: the peak, reached after a tenth of the steps; it then falls linearly to 0.
        batch_size: sentences a step.
        seed: seed of the new head, the order of the sentences and the dropout.

    Raises:
        InputError: ``out`` exists or cannot be made, or a number is out of its range.
        InputError: ``base`` or ``data`` cannot be loaded.
        InputError: the training diverged.
    """
    started = time.perf_counter()
    _check_arguments(out, epochs, learning_rate, batch_size, seed)
    train, validation = load_sentences(data, "train"), load_sentences(data, "validation")
    set_seed(seed)
    classifier = load_base(base)
    try:
        with replacing_directory(out) as directory:
            validation_mcc = _train(classifier, train, validation, epochs, learning_rate, batch_size, seed)
            with quiet_libraries(), safetensor_errors_as_os_errors():
                classifier.model.save_pretrained(directory)
                classifier.tokenizer.save_pretrained(directory)
    except OSError as error:
        raise InputError(f"out {out}: cannot be written ({error}); choose another directory") from error
    return FinetuneResult(out, validation_mcc, time.perf_counter() - started)


def _check_arguments(out: Path, epochs: float, learning_rate: float, batch_size: int, seed: int) -> None:
    faults = []
    if out.exists():
        faults.append(f"out {out} already exists; choose another directory")
    if not (math.isfinite(epochs) and epochs > 0):
        faults.append(f"epochs must be above 0, got {epochs}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        faults.append(f"learning rate must be above 0, got {learning_rate}")
    if batch_size < 1:
        faults.append(f"batch size must be 1 or more, got {batch_size}")
    if not 0 <= seed < 2**32:
        faults.append(f"seed must be 0 to {2**32 - 1}, got {seed}")  # numpy's range
    if faults:
        raise all_faults("finetune", faults)


def _train(
    classifier: Classifier,
    train: Sentences,
    validation: Sentences,
    epochs: float,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> float:
    """Train the classifier's model in place, with a bar on a terminal. Return its validation MCC."""
    show_bar = sys.stderr.isatty()
    with tempfile.TemporaryDirectory() as scratch, quiet_libraries():
        trainer = Trainer(
            model=classifier.model,
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=epochs,
                learning_rate=learning_rate,
                per_device_train_batch_size=batch_size,
                per_device_eval_batch_size=64,
                # The recipe of Devlin et al. 2019, appendix A.3, with its fixed number of epochs. The epoch with the
                # best validation MCC is not picked: with a standard error of 0.03 that would be chance, and the search
                # scores maps on the same sentences.
                warmup_steps=0.1,
                weight_decay=0.01,
                eval_strategy="no",
                save_strategy="no",
                logging_strategy="no",
                train_sampling_strategy="group_by_length",
                dataloader_pin_memory=torch.cuda.is_available(),
                seed=seed,
                report_to="none",
                disable_tqdm=not show_bar,
            ),
            train_dataset=_examples(classifier, train),
            data_collator=DataCollatorWithPadding(classifier.tokenizer),
            processing_class=classifier.tokenizer,
        )
        # Both default callbacks print a summary to standard output.
        trainer.remove_callback(ProgressCallback if show_bar else PrinterCallback)
        if show_bar:
            trainer.add_callback(_Bar())
        trainer.train()
        prediction = trainer.predict(_examples(classifier, validation))  # type: ignore[arg-type] # any sequence serves
    logits, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    if not np.isfinite(logits).all():
        raise InputError(f"finetune: the training diverged at learning rate {learning_rate}; choose a lower one")
    # These labels came back with the logits: grouping by length reorders the validation sentences too.
    return metric_value("mcc", TWO_CLASSES, logits.argmax(axis=1), labels)


class _Bar(ProgressCallback):
    def on_log(self, *_: object, **__: object) -> None:
        pass


def _examples(classifier: Classifier, sentences: Sentences) -> list[dict[str, list[int] | int]]:
    """Return tokenised sentences with their labels, unpadded, in the trainer's format."""
    ids = classifier.tokenize(sentences.texts)
    return [{"input_ids": list(row), "label": label} for row, label in zip(ids, sentences.labels.tolist(), strict=True)]
