"""A model of each architecture from the search to a packed checkpoint that is loaded again."""

import json
from pathlib import Path

import numpy as np
import pytest

from objectives.evaluation.evaluator import Evaluator
from objectives.problem import load_problem
from results.export.packed import load_checkpoint
from tests.objectives.padded import padded_log_odds
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.tiny_problem import make_tiny_problem

LEAN = ("roberta", "xlm-roberta", "distilbert", "electra")


@pytest.mark.slow  # tests/search/run/test_architectures.py does it without commands
@pytest.mark.parametrize("model_type", [*LEAN, "albert", "deberta-v2", "mpnet", "modernbert"])
def test_a_map_is_searched_exported_and_loaded(model_type: str, bitfront: Command, tmp_path: Path) -> None:
    made = make_tiny_problem(tmp_path, model_type=model_type)
    run, packed = tmp_path / "run", tmp_path / "packed"
    where = ("--model", made.model, "--data", made.data)
    settings = ("--trials", 10, "--quantizer", "affine", "--sensitivity", "gradient")
    result = bitfront("search", *where, "--run", run, *settings)
    assert result.status == 0, result.err
    forward = "lean " if model_type in LEAN else "transformers' "
    assert f"evaluating with the {forward}" in (run / "search.log").read_text()
    best = min(rows(run / "front.csv"), key=lambda row: float(row["damage"]))
    result = bitfront("export", "--run", run, "--trial", best["number"], "--format", "packed", "--out", packed)
    assert result.status == 0, result.err
    assert (packed / "packed.safetensors").stat().st_size == int(best["packed_bytes"])
    scored = json.loads(bitfront("evaluate", "--checkpoint", packed, "--json").out)
    for key in ("damage", "mcc", "agreement"):
        assert scored[key] == pytest.approx(float(best[key]), abs=0, rel=1e-12)
    problem = load_problem(str(made.model), str(made.data))
    np.testing.assert_allclose(problem.fp32_log_odds, padded_log_odds(problem.network, problem.token_ids), atol=1e-4)
    loaded = load_checkpoint(packed).classifier.model
    log_odds = Evaluator(loaded, problem.layers, problem.token_ids).fp32_log_odds()
    np.testing.assert_allclose(log_odds, padded_log_odds(loaded, problem.token_ids), atol=1e-4)
