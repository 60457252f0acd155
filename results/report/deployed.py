"""The table of a run's checkpoints as deployed: what each takes, and whether it says what the search said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isnan
from pathlib import Path

import pandas as pd

from objectives.errors import InputError
from objectives.metrics import METRIC_NAMES, MetricName
from results.columns import Column, write_csv
from results.formatting import DAMAGE, megabytes, metric, nats
from results.report.tables import request_text
from results.statistics.analysis import Selection

FP32 = -1
"""The number of the FP32 model, which is no trial."""
FP32_ONNX, FP32_TORCH = "FP32 ONNX", "FP32 torch"
"""The FP32 model as what each checkpoint is measured beside."""


@dataclass(frozen=True)
class DeployedModel:
    """One checkpoint, or the FP32 model, loaded in one way. NaN stands for what is not known.

    Attributes:
        number: its trial's number; ``FP32`` for the FP32 model.
        label: what plots and tables call it.
        polished: whether polishing changed it.
        format: of the checkpoint, and how it was loaded.
        disk_bytes: of its weights file.
        resident_bytes: what loading added to a process that had the libraries loaded.
        sentence_ms: the median time of one sentence.
        sentences_per_s: in batches of 32.
        fp32_sentence_ms: as ``sentence_ms``, of the FP32 model in torch, in the same turns.
        threads: of each model.
        metric: the task's, on the run's sentences.
        damage: mean KL divergence from FP32, nats a sentence, on the run's sentences.
        largest_difference: of its outputs from those that the search recorded of its map.
        measured_at: the time, as ISO 8601.
    """

    number: int
    label: str
    polished: bool
    format: str
    disk_bytes: int
    resident_bytes: float
    sentence_ms: float
    sentences_per_s: float
    fp32_sentence_ms: float
    threads: int
    metric: float
    damage: float
    largest_difference: float
    measured_at: str

    @property
    def key(self) -> tuple[int, bool, str]:
        """What it is, without its figures."""
        return self.number, self.polished, self.format


_TYPES = {field.name: str(field.type) for field in fields(DeployedModel)}  # pandas knows the types by these names


def deployed_path(run: Path) -> Path:
    """Return the path of a run's table of checkpoints as deployed."""
    return run / "deployed.csv"


def _names(metric: MetricName) -> list[str]:
    return [metric if name == "metric" else name for name in _TYPES]


def deployed_columns(selection: Selection) -> list[Column[DeployedModel]]:
    """Return the columns of the page's table."""
    outcome = selection.outcome

    def pick(row: DeployedModel) -> str:
        lines = [line.request for line in selection.headlines if line.trial and line.trial.number == row.number]
        return ", ".join(request_text(outcome, request) for request in lines)

    def known(value: float) -> float | None:
        return None if isnan(value) else value

    return [
        Column("", "map", lambda row: f"{row.label}{', polished' if row.polished else ''}"),
        Column("", "pick", pick),
        Column("", "format", lambda row: row.format),
        Column("", "size on disk", lambda row: row.disk_bytes, megabytes),
        Column("", "memory", lambda row: known(row.resident_bytes), _mebibytes),
        Column("", "one sentence", lambda row: row.sentence_ms, _milliseconds),
        Column("", "FP32 in torch, same turns", lambda row: row.fp32_sentence_ms, _milliseconds),
        Column("", "sentences a second", lambda row: row.sentences_per_s, "{:,.0f}".format),
        Column("", METRIC_NAMES[outcome.metric], lambda row: known(row.metric), metric),
        Column("", DAMAGE, lambda row: known(row.damage), nats),
        Column("", "largest difference", lambda row: known(row.largest_difference), "{:.2g}".format),
    ]


def _mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


def _milliseconds(time_ms: float) -> str:
    return f"{time_ms:.3g} ms"


def add_deployed(models: Sequence[DeployedModel], run: Path, name: MetricName) -> None:
    """Add measured models to a run's table; a model that is there already gets its new figures.

    The scores of one that was measured this time without being scored stay.

    Raises:
        InputError: the table cannot be read.
    """
    table = {model.key: model for model in read_deployed(run, name)}
    for model in models:
        before = table.get(model.key)
        if before is not None and isnan(model.metric):
            scores = {score: getattr(before, score) for score in ("metric", "damage", "largest_difference")}
            model = replace(model, **scores)
        table[model.key] = model
    rows = sorted(table.values(), key=lambda model: (model.number != FP32, model.number, model.polished, model.format))
    write_csv(pd.DataFrame(deployed_records(rows, name)), deployed_path(run))


def read_deployed(run: Path, name: MetricName) -> tuple[DeployedModel, ...]:
    """Return a run's checkpoints as deployed, FP32 first, then by trial; empty if none was measured.

    Raises:
        InputError: the table cannot be read.
    """
    path = deployed_path(run)
    if not path.is_file():
        return ()
    try:
        table = pd.read_csv(path, dtype=dict(zip(_names(name), _TYPES.values(), strict=True)))
        if list(table.columns) != _names(name):
            raise ValueError("unexpected columns")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and measure the checkpoints again") from None
    records = table.set_axis([*_TYPES], axis=1).to_dict("records")
    return tuple(DeployedModel(**{str(key): value for key, value in row.items()}) for row in records)


def deployed_records(models: Sequence[DeployedModel], name: MetricName) -> list[dict[str, object]]:
    """Return the table as plain values, with the columns of ``deployed.csv``."""
    return [dict(zip(_names(name), asdict(model).values(), strict=True)) for model in models]
