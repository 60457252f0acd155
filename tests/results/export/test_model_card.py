"""Model cards, read by the hub's own classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import metadata_load

from objectives.layers import uniform
from objectives.loading.hub import license_of
from objectives.scores import score
from results.export.bit_map_files import bit_map_provenance
from results.export.model_card import CARD, FIGURES, LICENSE, Format, card_figures, write_card
from results.outcome import HoldoutScores, Outcome
from results.statistics.holdout import holdout_estimates
from results.statistics.intervals import score_intervals
from results.statistics.metric_draws import MCC
from results.statistics.unseen import unseen_damages
from tests.results.synthetic import made_up_outcome, with_unseen

HOME = "/home/somebody/secret"


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    made = made_up_outcome(trials=3)
    made = with_unseen(made, made.trials[-1:])
    random = np.random.default_rng(0)
    fp32 = random.normal(0.6, 2.0, 100).astype(np.float32)
    shifted = fp32 + random.normal(scale=0.5, size=100).astype(np.float32)
    labels = (fp32 + random.normal(size=100) > 0).astype(np.int8)
    number = made.trials[-1].number
    holdout = HoldoutScores("0.3", labels, None, fp32, {number: shifted}, len(made.trials), withdrawn=False)
    return replace(made, holdout=holdout, model="owner/bert-cola", data=f"{HOME}/cola")


def provenance_of(outcome: Outcome) -> dict[str, Any]:
    trial = outcome.trials[-1]
    found = {"resolved": {"data": f"{HOME}/cola"}, LICENSE: {"license": "apache-2.0"}}
    return bit_map_provenance(outcome, trial) | {FIGURES: card_figures(outcome, trial)} | found


def card_of(
    outcome: Outcome, provenance: dict[str, Any], directory: Path, format_: Format = "packed", name: str = "small"
) -> tuple[ModelCardData, str]:
    """Write a card, and return its data and its text as the hub reads them."""
    bit_map = outcome.trials[-1].bit_map
    length = outcome.footprint.packed_bytes(bit_map)
    write_card(directory, name, format_, length, outcome.footprint, bit_map, provenance)
    card = ModelCard.load(directory / CARD)
    assert isinstance(card.data, ModelCardData)
    assert HOME not in card.content
    known: Any = card.data
    assert metadata_load(directory / CARD) == known.to_dict()
    return card.data, card.text


def test_a_card_tells_the_hub_what_the_model_is(outcome: Outcome, tmp_path: Path) -> None:
    data, _ = card_of(outcome, provenance_of(outcome), tmp_path)
    assert data.base_model == "owner/bert-cola"
    assert data.get("base_model_relation") == "quantized"
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "bitfront", "text-classification")
    assert data.datasets is None  # they are local
    assert data.metrics == ["matthews_correlation"]
    assert data.model_name == "small"
    assert data.eval_results is not None
    trial = outcome.trials[-1]
    assert trial.scores is not None and trial.log_odds is not None
    searched, holdout = data.eval_results
    interval = score_intervals(trial.log_odds, outcome.fp32_log_odds, outcome.labels, None).metric
    assert searched.metric_value == trial.scores.metric
    assert searched.metric_args == {"confidence_interval_95": [interval.low, interval.high]}
    assert (searched.task_type, searched.dataset_type, searched.dataset_split) == (
        "text-classification", "local", "validation",
    )  # fmt: skip
    assert "holdout" in holdout.dataset_name


def test_a_card_tells_people_figures_sizes_and_widths(outcome: Outcome, tmp_path: Path) -> None:
    provenance = provenance_of(outcome)
    _, text = card_of(outcome, provenance, tmp_path)
    figures, trial = provenance[FIGURES], outcome.trials[-1]
    unseen = unseen_damages(outcome.unseen, outcome.head)[trial.number]
    assert figures["unseen"] == {"sentences": 300, "damage": [unseen.damage, unseen.interval.low, unseen.interval.high]}
    for row, damage in (
        ("| validation, ", figures["searched"]["damage"]),
        ("| training, ", figures["unseen"]["damage"]),
    ):
        [line] = [line for line in text.splitlines() if line.startswith(row)]
        value, low, high = (f"{number:.3g}" for number in damage)
        assert line.endswith(f"| {value} ({low} to {high}) |")
    assert "| holdout, which had no part in any choice | 100 |" in text
    size = outcome.footprint.packed_bytes(trial.bit_map)
    assert f"| packed, every byte | {size / 1e6:.3g} MB | {trial.packed_compression:.2f}x |" in text
    queries = [
        str(width)
        for layer, width in zip(outcome.footprint.layers, trial.bit_map, strict=True)
        if layer.name.endswith(".query")
    ]
    assert f"| `bert.encoder.layer.*.attention.self.query` | {' '.join(queries)} |" in text
    assert 'load_checkpoint("small")' in text


def test_the_holdout_in_a_card_is_that_of_the_report(outcome: Outcome) -> None:
    trial = outcome.trials[-1]
    figures = card_figures(outcome, trial)["holdout"]
    [estimate] = holdout_estimates(outcome.holdout, outcome.margin, MCC).values()
    assert figures["metric"] == [estimate.metric, estimate.metric_interval.low, estimate.metric_interval.high]
    assert outcome.holdout is not None
    fp32 = score(outcome.holdout.fp32_log_odds, outcome.holdout.labels, outcome.holdout.fp32_log_odds).metric
    assert figures["fp32_metric"] == pytest.approx(fp32)
    assert "holdout" not in card_figures(outcome, outcome.trials[0])


@pytest.mark.parametrize("format_", ["packed", "torchao", "onnx"])
def test_a_map_without_a_run_has_no_figures(format_: Format, outcome: Outcome, tmp_path: Path) -> None:
    data, text = card_of(outcome, {"bitmap": "mine.txt", "model": f"{HOME}/bert"}, tmp_path, format_)
    assert data.eval_results is None and data.metrics is None and data.base_model is None and data.license is None
    assert "Quality" not in text
    program = text.partition("```python\n")[2].partition("```")[0]
    compile(program, CARD, "exec")
    assert len([line for line in program.splitlines() if line]) <= 5


@pytest.mark.parametrize(
    ("provenance", "base"),
    [
        ({"model": "models/bert", "resolved": {"model": f"{HOME}/models/bert"}}, None),
        ({"model": "models/bert"}, None),  # of an older version, which does not say whether it is a path
        ({"model": "miniature", "resolved": {}}, None),
        ({"model": "../bert", "resolved": {}}, None),
        ({"model": "bert-base-uncased", "resolved": {}}, "bert-base-uncased"),
    ],
)
def test_only_a_model_of_the_hub_is_named(
    provenance: dict[str, Any], base: str | None, outcome: Outcome, tmp_path: Path
) -> None:
    assert card_of(outcome, provenance, tmp_path)[0].base_model == base


@pytest.mark.parametrize(("key", "trained"), [("distilled", "weights"), ("polished", None)])  # older versions polished
def test_a_distilled_map_has_its_own_figures(key: str, trained: str | None, outcome: Outcome, tmp_path: Path) -> None:
    after = {"mcc_after": 0.5, "mcc_after_low": 0.4, "mcc_after_high": 0.6}
    after |= {"damage_after": 0.01, "damage_after_low": 0.005, "damage_after_high": 0.02}
    data, text = card_of(outcome, provenance_of(outcome) | {key: after | {"trained": trained}}, tmp_path)
    assert data.eval_results is not None
    assert [result.metric_value for result in data.eval_results] == [0.5]
    assert "0.500 (0.400 to 0.600)" in text and "0.01 (0.005 to 0.02)" in text
    assert f"Its {'codes and scales' if trained else 'scales'} were trained after the search" in text
    assert "training, unseen" not in text


@pytest.mark.parametrize("name", ['a "quoted" | name', "- a: b #c", "ünï`code`", "{{ name }}"])
def test_names_are_quoted(name: str, outcome: Outcome, tmp_path: Path) -> None:
    data, text = card_of(outcome, provenance_of(outcome), tmp_path, name=name)
    assert data.model_name == name
    compile(text.partition("```python\n")[2].partition("```")[0], CARD, "exec")


def test_equal_widths_are_told_once(outcome: Outcome, tmp_path: Path) -> None:
    bit_map = uniform(outcome.footprint.layers, 4)
    write_card(tmp_path, "small", "packed", 1, outcome.footprint, bit_map, {})
    text = (tmp_path / CARD).read_text(encoding="utf-8")
    assert "| `bert.encoder.layer.*.output.dense` | 4 in all 12 |" in text
    assert "| `bert.pooler.dense` | 4 |" in text
    assert "76 layers quantised to 4 bits, 4.00 bits a weight" in text


@pytest.mark.parametrize(
    ("card", "license_"),
    [
        ("---\nlicense: mit\n---\n# A model", {"license": "mit"}),
        ("---\nlicense: other\nlicense_name: mine-1\n---\n", {"license": "other", "license_name": "mine-1"}),
        ("---\nlicense: [mit, apache-2.0]\n---\n", {}),
        ("---\nlicense: 'mit\\n\\nx'\n---\n", {}),
        ("---\nlicense: {\n---\n", {}),
        ("# nothing", {}),
        ("", {}),
        (None, {}),
    ],
)
def test_the_license_is_the_base_models(card: str | None, license_: dict[str, str], tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / CARD).write_text(card, encoding="utf-8")
    assert license_of(str(tmp_path)) == license_
