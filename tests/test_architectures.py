"""docs/architectures.md says the truth of each architecture."""

from __future__ import annotations

import numpy as np
import pytest

from objectives.evaluation.architectures import architecture_of
from objectives.loading.layer_discovery import find_layers
from objectives.quantization.bank import WeightBank
from objectives.quantization.first_order import first_order_shifts
from objectives.quantization.recording import recording
from tests.objectives.architectures import share_searched, single_shifts, tiny_model
from tests.objectives.random_models import random_sentences
from tests.shared import ROOT

ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in (ROOT / "docs/architectures.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
    and "model_type" not in line
    and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5
}
QUICK = ("bert", "mpnet", "squeezebert", "convbert")


def check(model_type: str) -> None:
    """Compare a row of the table with a tiny model of its type, and with the shapes of the usual one."""
    forward, guided, passes, searched = ROWS[model_type]
    model, sentences = tiny_model(model_type), random_sentences(0, n=3)
    layers = find_layers(model)
    assert forward == ("our own" if architecture_of(model) is not None else "transformers")
    with recording(model, layers, sentences, "") as recorder:
        assert passes == ("one by one" if recorder.one_by_one else "in batches")
    assert guided == "yes"
    bank = WeightBank(model, layers)
    shifts = first_order_shifts(model, layers, sentences, bank)
    assert shifts is not None
    np.testing.assert_allclose(shifts, single_shifts(model, layers, sentences, bank), rtol=1e-3, atol=1e-5)
    assert searched == f"{share_searched(model_type):.0%}"


def test_the_table_lists_the_architectures_that_are_asked_for() -> None:
    assert ROWS.keys() >= {*QUICK, "roberta", "distilbert", "electra", "albert", "deberta", "deberta-v2", "modernbert"}


@pytest.mark.parametrize("model_type", QUICK)
def test_the_table_of_architectures_is_true(model_type: str) -> None:
    check(model_type)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in ROWS if name not in QUICK])
def test_the_rest_of_the_table_of_architectures_is_true(model_type: str) -> None:
    check(model_type)
