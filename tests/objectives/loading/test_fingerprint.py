import numpy as np
import torch

from objectives.loading.fingerprint import fingerprint
from tests.objectives.random_models import random_bert

TOKENS = [[1, 2, 3], [4, 5]]
LABELS = np.array([0, 1], dtype=np.int8)


def test_it_tells_models_and_sentences_apart() -> None:
    model = random_bert()
    first = fingerprint(model, TOKENS, LABELS, "q")
    assert first == fingerprint(model, TOKENS, LABELS, "q")
    other_labels = fingerprint(model, TOKENS, 1 - LABELS, "q")
    assert other_labels["model"] == first["model"]
    assert other_labels["sentences"] != first["sentences"]
    assert fingerprint(model, [[1, 2], [3, 4, 5]], LABELS, "q")["sentences"] != first["sentences"]
    assert fingerprint(model, TOKENS, LABELS, "r")["quantizer"] != first["quantizer"]
    with torch.no_grad():
        model.classifier.bias[0] += 1e-6
    assert fingerprint(model, TOKENS, LABELS, "q")["model"] != first["model"]


def test_the_activation_counts_and_the_path_does_not() -> None:
    models = random_bert(), random_bert(hidden_act="relu"), random_bert(name_or_path="elsewhere")
    plain, other_activation, other_path = (fingerprint(model, TOKENS, LABELS, "q")["model"] for model in models)
    assert plain != other_activation
    assert plain == other_path
