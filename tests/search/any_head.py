"""Problems of every head: a random BERT, and labels that are its own predictions, some of them wrong."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from objectives.evaluation.evaluator import Evaluator
from objectives.heads import Array, Head, Numbers, head_of
from objectives.loading.layer_discovery import find_layers, footprint_of
from objectives.loading.models import Classifier
from objectives.metrics import metric_of
from objectives.model_labels import fitting_labels
from objectives.problem import Problem
from objectives.scores import score
from tests.objectives.random_models import random_bert, random_sentences

HEADS: dict[str, dict[str, Any]] = {
    "two classes": {"num_labels": 2},
    "three classes": {"num_labels": 3},
    "yes or no": {"num_labels": 1, "problem_type": "multi_label_classification"},
    "three labels": {"num_labels": 3, "problem_type": "multi_label_classification"},
    "a number": {"num_labels": 1},
    "two numbers": {"num_labels": 2, "problem_type": "regression"},
}


def problem_of_head(config: dict[str, Any], sentences: int = 60) -> Problem:
    """Return a problem whose model has this head; it is right on most of the sentences."""
    model = random_bert(3, **config)
    layers, token_ids = find_layers(model), random_sentences(4, sentences)
    evaluator = Evaluator(model, layers, token_ids)
    outputs = evaluator.fp32_log_odds()
    head = Numbers.of(outputs) if head_of(model).kind == "numbers" else head_of(model)
    labels = fitting_labels(made_up_labels(head, outputs), head, "made-up")
    metric = metric_of(head)
    return Problem(
        model="random",
        data="made-up",
        layers=layers,
        footprint=footprint_of(model, evaluator.bank.scheme),
        labels=labels,
        in_domain=None,
        fp32_log_odds=outputs,
        fp32=score(outputs, labels, outputs, head, metric),
        fingerprint={"model": str(config), "sentences": str(sentences), "quantizer": "affine"},
        classifier=Classifier(model, cast(Any, None), "random"),
        token_ids=token_ids,
        evaluator=evaluator,
        search_evaluator=evaluator,
        head=head,
        metric=metric,
    )


def made_up_labels(head: Head, outputs: Array) -> Array:
    """Return labels that are the model's own predictions from these outputs, some of them wrong."""
    rng = np.random.default_rng(5)
    if isinstance(head, Numbers):
        return outputs + rng.normal(0, outputs.std(axis=0), outputs.shape) / 2
    centred = outputs - np.median(outputs, axis=0)  # a random head may prefer one answer throughout
    answers = head.predictions(centred)
    others = rng.permutation(answers)
    return np.where(rng.random(answers.shape) < 1 / 6, others, answers)
