"""Models of each architecture and each head, from files through a search to checkpoints that are loaded again."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from objectives.evaluation.evaluator import Evaluator
from objectives.heads import head_of
from objectives.loading.hub import quiet_libraries
from objectives.loading.tasks import DataOptions
from objectives.problem import Problem, load_problem
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import LogOdds
from objectives.token_types import types_of
from results.export.packed import WEIGHTS, load_checkpoint, write_checkpoint
from results.export.torchao import write_torchao
from search.allocation.baselines import knapsack_maps
from search.allocation.constraint import SizeConstraint
from search.allocation.sensitivity import measure
from search.run.worker import make_sampler
from search.study.reading import outcome
from search.study.study import open_study
from tests.objectives.architectures import tiny_model
from tests.objectives.padded import padded_logits
from tests.objectives.tiny_bert import WORDS, make_tiny_bert
from tests.search.any_head import HEADS, made_up_labels
from tests.search.studies import run

LEAN = ("bert", "roberta", "xlm-roberta", "distilbert", "electra")
PAIRS = ("sentence1", "sentence2")


def load_tiny(directory: Path, model_type: str, head: str, pairs: int = 30) -> Problem:
    """Write a tiny model and pairs with labels of its head, and load both."""
    model_directory, data = make_tiny_bert(directory / "model"), directory / "pairs.csv"
    model = tiny_model(model_type, pad_token_id=0, **HEADS[head])
    rng = np.random.default_rng(0)
    words = [word for word in WORDS if word.isalpha()]
    texts = [[" ".join(rng.choice(words, size=rng.integers(2, 7))) for _ in PAIRS] for _ in range(pairs)]
    inputs = AutoTokenizer.from_pretrained(model_directory)(texts, padding=True, return_tensors="pt")
    if "token_type_ids" not in model.forward.__annotations__:
        del inputs["token_type_ids"]
    with torch.inference_mode():
        logits = model(**inputs).logits
        middle = logits.median(dim=0).values  # a random head may prefer one answer throughout
        head_names = [name for name, _ in model.named_parameters() if not name.startswith(model.base_model_prefix)]
        model.get_parameter(head_names[-1]).sub_(middle)  # the last is the bias of the logits
    with quiet_libraries():
        model.save_pretrained(model_directory)
    labels = made_up_labels(head_of(model), head_of(model).outputs(logits - middle).numpy()).reshape(pairs, -1)
    names = tuple(f"label{column}" for column in range(labels.shape[1]))
    with data.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow([*PAIRS, *names])
        csv.writer(file).writerows([*text, *row] for text, row in zip(texts, labels.tolist(), strict=True))
    return load_problem(str(model_directory), str(data), options=DataOptions(text_column=PAIRS, label_column=names))


def outputs_by_hand(model: Any, tokens: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> LogOdds:
    """Return the outputs of `transformers`' own forward pass, padded."""
    outputs: LogOdds = head_of(model).outputs(torch.from_numpy(padded_logits(model, tokens, types))).numpy()
    return outputs


@pytest.mark.parametrize(
    ("model_type", "head"),
    [
        *(("bert", head) for head in HEADS),
        ("roberta", "three labels"),
        ("xlm-roberta", "three classes"),
        ("distilbert", "three labels"),
        ("electra", "three classes"),
        ("albert", "three classes"),
        ("deberta-v2", "a number"),
        ("mpnet", "yes or no"),
        ("modernbert", "two classes"),
    ],
)
def test_a_map_is_searched_exported_and_loaded(model_type: str, head: str, tmp_path: Path) -> None:
    problem = load_tiny(tmp_path, model_type, head)
    network, layers, tokens = problem.network, problem.layers, problem.token_ids
    types = types_of(network, tokens)
    assert ("lean" in problem.evaluator.description) == (model_type in LEAN)
    assert head_of(network) == head_of(tiny_model(model_type, **HEADS[head]))
    np.testing.assert_allclose(problem.fp32_log_odds, outputs_by_hand(network, tokens, types), atol=1e-4)

    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    sensitivities = measure(problem, tmp_path, "gradient")
    assert sensitivities is not None
    sampler = make_sampler("guided", problem, constraint, sensitivities, seed=0)
    knapsack = knapsack_maps(sensitivities.damages, constraint)[:1]
    study = open_study(optuna.storages.InMemoryStorage(), problem, "damage", constraint, sampler, knapsack)
    run(study, problem, 3)
    trial = outcome(study, "tiny").trials[-1]
    assert trial.origin == "sampler" and trial.log_odds is not None

    quantized = QuantizedModel.of(network, problem.evaluator.bank, trial.bit_map)
    write_checkpoint(problem.classifier, quantized, {}, tmp_path / "packed")
    assert (tmp_path / "packed" / WEIGHTS).stat().st_size == problem.footprint.packed_bytes(trial.bit_map)
    loaded = load_checkpoint(tmp_path / "packed").model
    assert head_of(loaded) == head_of(network)
    searched = Evaluator(loaded, layers, tokens, token_types=types).fp32_log_odds()
    np.testing.assert_array_equal(searched, trial.log_odds)
    np.testing.assert_allclose(outputs_by_hand(loaded, tokens, types), trial.log_odds, atol=1e-4)


@pytest.mark.skipif(not find_spec("torchao"), reason="torchao is not installed; it is an extra")
@pytest.mark.parametrize("head", HEADS)
def test_torchao_gives_the_outputs_of_any_head(head: str, tmp_path: Path) -> None:
    problem = load_tiny(tmp_path, "bert", head)
    bit_map = tuple(2 + index % 7 for index in range(len(problem.layers)))
    quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, bit_map)
    write_torchao(problem.classifier, quantized, {}, tmp_path / "ao")
    with quiet_libraries():
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ao").eval()
    assert head_of(loaded) == head_of(problem.network)
    outputs = outputs_by_hand(loaded, problem.token_ids, types_of(problem.network, problem.token_ids))
    np.testing.assert_allclose(outputs, problem.evaluate(bit_map).log_odds, atol=1e-4)
