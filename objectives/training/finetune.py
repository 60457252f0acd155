"""Fine-tune an encoder on labelled sentences."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

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
from objectives.heads import Array, Head, HeadKind
from objectives.loading.hub import quiet_libraries
from objectives.loading.models import Classifier, load_base
from objectives.loading.tasks import ALL_DEFAULT, DataOptions
from objectives.loading.tokenization import Text
from objectives.metrics import METRIC_NAMES, MetricName, chance_level, metric_of, metric_value
from objectives.model_labels import LabelArray, fitting_labels
from objectives.tensor_files import safetensor_errors_as_os_errors
from objectives.training.targets import Targets, Unit, load_targets


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned model's directory, and its metric on the validation sentences, higher is better.

    ``value`` is at most 1. ``elapsed_s`` is the time for loading, training and scoring.
    """

    out: Path
    head: Head
    metric: MetricName
    value: float
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
    options: DataOptions = ALL_DEFAULT,
    predict: HeadKind | None = None,
    metric: MetricName | Literal["auto"] = "auto",
    report_progress: Callable[[str], None] = lambda _: None,
) -> FinetuneResult:
    """Fine-tune an encoder on labelled sentences, and save it as an ordinary ``transformers`` directory.

    It learns to predict one of several classes, yes/no labels or numbers, with the losses of ``transformers``: cross
    entropy, binary cross entropy of each label, and the squared error of standardised numbers.

    A GPU is used if there is one. On a CPU the same arguments give the same model.

    Args:
        base: a model directory or hub name; its head may be missing, or of something else.
        data: a directory or hub name with a train and a validation split, as for ``load_sentences``.
        out: the directory to make; it appears when it is complete.
        epochs: passes over the train sentences, which may be a fraction.
        learning_rate: the peak, reached after a tenth of the steps; it then falls linearly to 0.
        batch_size: sentences a step.
        seed: seed of the new head, the order of the sentences and the dropout.
        options: the task, and names of splits and columns.
        predict: what labels are; None to go by the task and the labels, as ``read_labels`` says.
        metric: of the validation sentences; ``auto`` for the usual one of what is predicted.
        report_progress: called with a line on what is predicted, one on the head, and notes.

    Raises:
        InputError: ``out`` exists or cannot be made, or a number is out of its range.
        InputError: ``base`` cannot be loaded, or ``data``; see ``load_targets``.
        InputError: the metric does not fit the labels.
        InputError: the training diverged.
    """
    started = time.perf_counter()
    _check_arguments(out, epochs, learning_rate, batch_size, seed)
    targets = load_targets(data, options, predict, report_progress)
    metric = metric_of(targets.head, metric)
    set_seed(seed)
    base_model = load_base(base, targets.names, targets.head.kind, report_progress)
    classifier = replace(base_model, max_length=options.max_length)
    try:
        with replacing_directory(out) as directory:
            predicted, labels = _train(classifier, targets, epochs, learning_rate, batch_size, seed)
            with quiet_libraries(), safetensor_errors_as_os_errors():
                classifier.model.save_pretrained(directory)
                classifier.tokenizer.save_pretrained(directory)
    except OSError as error:
        raise InputError(f"out {out}: cannot be written ({error}); choose another directory") from error
    value = metric_value(metric, targets.head, predicted, labels)
    if value <= chance_level(metric, targets.head, labels):
        report_progress(
            f"note: the model's {METRIC_NAMES[metric]} is no better than chance, and a search refuses it; train for "
            "more epochs, with more sentences or at another learning rate"
        )
    return FinetuneResult(out, targets.head, metric, value, time.perf_counter() - started)


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
    classifier: Classifier, targets: Targets, epochs: float, learning_rate: float, batch_size: int, seed: int
) -> tuple[Array, Array]:
    """Train the classifier's model in place, with a bar on a terminal.

    Return its predictions of the validation sentences and their labels, ``(n_sentences, *head.label_shape)``.
    """
    head, labels = targets.head, targets.train.labels
    unit = Unit.of(labels) if head.kind == "numbers" else None
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
            train_dataset=_examples(classifier, targets.train.texts, unit.standardised(labels) if unit else labels),
            data_collator=DataCollatorWithPadding(classifier.tokenizer),
            processing_class=classifier.tokenizer,
        )
        # Both default callbacks print a summary to standard output.
        trainer.remove_callback(ProgressCallback if show_bar else PrinterCallback)
        if show_bar:
            trainer.add_callback(_Bar())
        trainer.train()
        if unit:
            unit.put_into(classifier.model)
        examples = _examples(classifier, targets.validation.texts, targets.validation.labels)
        prediction = trainer.predict(examples)  # type: ignore[arg-type] # any sequence serves
    logits = np.asarray(prediction.predictions)
    if not np.isfinite(logits).all():
        raise InputError(f"finetune: the training diverged at learning rate {learning_rate}; choose a lower one")
    # These labels came back with the logits: grouping by length reorders the validation sentences too.
    labels = fitting_labels(np.asarray(prediction.label_ids), head, "validation sentences")
    return head.predictions(head.outputs(torch.from_numpy(logits)).numpy()), labels


class _Bar(ProgressCallback):
    def on_log(self, *_: object, **__: object) -> None:
        pass


def _examples(classifier: Classifier, texts: Sequence[Text], labels: LabelArray) -> list[dict[str, object]]:
    """Return tokenised texts with their labels, unpadded, in the trainer's format."""
    tokens = classifier.encode(texts)
    # The losses of classes need whole numbers, all others the type of the logits.
    targets = labels.tolist() if labels.ndim == 1 else labels.astype(float).tolist()
    columns: dict[str, Iterable[object]] = {"input_ids": map(list, tokens.ids), "label": targets}
    if tokens.types is not None:
        columns["token_type_ids"] = map(list, tokens.types)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
