"""A run's report as one JSON document, for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from objectives.metrics import METRIC_NAMES, metric_definition
from results.columns import to_records
from results.outcome import Outcome
from results.report.commands import pick_exports
from results.report.deployed import DeployedModel, deployed_records
from results.report.distilled import DistilledMap, distilled_columns
from results.report.map_columns import MapRow
from results.report.tables import (
    baseline_columns,
    baseline_rows,
    front_columns,
    front_rows,
    pick_columns,
    pick_rows,
    trial_columns,
)
from results.report.verdict import verdict_of
from results.statistics.analysis import Analysis

SCHEMA = "bitfront-report-1"


def report_document(
    analysis: Analysis,
    run: str,
    settings: Mapping[str, Any],
    deployed: Sequence[DeployedModel] = (),
    distilled: Sequence[DistilledMap] = (),
) -> dict[str, Any]:
    """Return the report as plain values; ``docs/file-formats.md`` says what each is.

    The tables have the names and values of the CSV files. Numbers may be NaN: see :func:`as_json`.

    Args:
        analysis: of the run.
        run: its directory, as commands name it.
        settings: every setting of the run, by name.
        deployed: its checkpoints as they were measured.
        distilled: its distilled maps.
    """
    outcome = analysis.outcome
    exports, verdict = pick_exports(analysis, run), verdict_of(analysis, distilled)
    picks = to_records(pick_columns(analysis), pick_rows(analysis))
    return {
        "schema": SCHEMA,
        "run": {
            "name": outcome.name,
            "directory": run,
            "model": outcome.model,
            "data": outcome.data,
            "sentences": len(outcome.labels),
            "unseen_sentences": 0 if outcome.unseen is None else len(outcome.unseen.fp32_log_odds),
            "holdout": outcome.holdout_source,
            "unfinished": outcome.unfinished,
            "command": outcome.command,
            "facts": dict(outcome.provenance),
        },
        "settings": dict(settings),
        "metric": {
            "name": outcome.metric,
            "text": METRIC_NAMES[outcome.metric],
            "definition": metric_definition(outcome.metric, outcome.head, outcome.label_names),
        },
        "layers": [
            {"name": layer.name, "kind": layer.kind, "rows": layer.rows, "columns": layer.columns}
            for layer in outcome.footprint.layers
        ],
        "verdict": [{"heading": heading, "text": text} for heading, text in ((verdict.claim, ""), *verdict.points)],
        "fp32": _fp32(analysis),
        "picks": [
            {**record, "request": export.request, "commands": export.commands}
            for record, export in zip(picks, exports, strict=True)
        ],
        "unanswered": [
            {"pick": line.request, "reason": line.missing} for line in analysis.headlines if line.trial is None
        ],
        "front": to_records(front_columns(analysis), front_rows(analysis)),
        "baselines": to_records(baseline_columns(analysis), baseline_rows(analysis)),
        "distilled": to_records(distilled_columns(outcome.metric), distilled),
        "deployed": deployed_records(deployed, outcome.metric),
        "trials": to_records(
            trial_columns(outcome, analysis.front_numbers), [MapRow(trial) for trial in outcome.trials]
        ),
    }


def _fp32(analysis: Analysis) -> dict[str, Any]:
    outcome: Outcome = analysis.outcome
    sizes = outcome.footprint
    interval = analysis.fp32_metric
    return {
        **outcome.fp32.record(),
        f"{outcome.metric}_low": interval.low,
        f"{outcome.metric}_high": interval.high,
        "nominal_bits": sizes.fp32_size("nominal"),
        "packed_bytes": sizes.fp32_size("packed"),
        **({} if sizes.onnx is None else {"onnx_bytes": sizes.fp32_size("onnx")}),
    }


def as_json(document: Any, indent: int | None = None) -> str:
    """Return plain values as JSON: NaN and infinities as null, numpy's numbers as numbers, all else in ASCII."""
    return json.dumps(_plain(document), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not isfinite(value) else value
