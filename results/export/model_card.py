"""Model cards: the README.md of a checkpoint, as the Hugging Face hub reads it. No path of this machine is in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from objectives.layers import BitMap, Layer
from objectives.metrics import METRIC_NAMES, MetricName
from objectives.packing.footprint import Footprint
from results.columns import escaped
from results.formatting import DAMAGE, megabytes, metric, nats, times
from results.outcome import Outcome, Trial
from results.statistics.bootstrap import Interval
from results.statistics.holdout import holdout_estimates
from results.statistics.intervals import score_intervals
from results.statistics.metric_draws import TaskMetric
from results.statistics.unseen import unseen_damages

CARD = "README.md"
FIGURES, LICENSE = "figures", "license"
"""The keys in a checkpoint's provenance of ``card_figures``, and of the base model's license."""

Format = Literal["packed", "torchao", "onnx"]

_MINIATURE = "miniature"  # the name of the model and the data that bitfront ships
_HUB_NAME = re.compile(r"[A-Za-z0-9_-][\w.-]*(/[\w.-]+)?")
_METRICS: dict[MetricName, str] = {
    "mcc": "matthews_correlation", "accuracy": "accuracy", "f1": "f1", "pearson": "pearsonr", "spearman": "spearmanr",
}  # fmt: skip
_LIBRARIES: dict[Format, str | None] = {"packed": "bitfront", "torchao": "transformers", "onnx": None}
_ROWS = {
    "searched": "validation, which maps were searched on",
    "unseen": "training, unseen by the search",
    "holdout": "holdout, which had no part in any choice",
}
_PROGRAMS: dict[Format, str] = {
    "packed": """\
from results.export.packed import load_checkpoint

checkpoint = load_checkpoint({name})
tokens = checkpoint.tokenizer(["the boy slept"], return_tensors="pt")
print(checkpoint.model(**tokens).logits)""",
    "torchao": """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained({name})
tokens = AutoTokenizer.from_pretrained({name})(["the boy slept"], return_tensors="pt")
print(model(**tokens).logits)""",
    "onnx": """\
import onnxruntime
from transformers import AutoTokenizer

tokens = AutoTokenizer.from_pretrained({name})(["the boy slept"], return_tensors="np")
print(onnxruntime.InferenceSession({name} + "/onnx/model.onnx").run(["logits"], dict(tokens)))""",
}
_ABOUT_PROGRAMS: dict[Format, str] = {
    "packed": "It needs bitfront. `load_checkpoint(..., packed=True)` keeps the weights packed in memory too, and "
    "decodes each layer at its call.",
    "torchao": "It needs torchao, which stores each code in one byte, whatever the layer's width.",
    "onnx": "It needs onnxruntime; optimum and transformers.js find the model too.",
}


def card_figures(outcome: Outcome, trial: Trial) -> dict[str, Any]:
    """Return a map's figures with their 95% intervals as plain JSON values, for the provenance of its checkpoint.

    ``searched`` are those on the sentences of the search, ``unseen`` and ``holdout`` those on others, if it was scored
    there.
    """
    figures: dict[str, Any] = {"metric": outcome.metric}
    task = TaskMetric(outcome.metric, outcome.head)
    if trial.scores is not None and trial.log_odds is not None:
        intervals = score_intervals(trial.log_odds, outcome.fp32_log_odds, outcome.labels, outcome.in_domain, task)
        figures["searched"] = {
            "sentences": len(outcome.labels),
            "metric": _measured(trial.scores.metric, intervals.metric),
            "fp32_metric": outcome.fp32.metric,
            "damage": _measured(trial.scores.damage, intervals.damage),
        }
    if outcome.unseen is not None and not outcome.unseen.outdated and trial.number in outcome.unseen.log_odds:
        unseen = unseen_damages(outcome.unseen, outcome.head)[trial.number]
        figures["unseen"] = {
            "sentences": len(outcome.unseen.fp32_log_odds),
            "damage": _measured(unseen.damage, unseen.interval),
        }
    estimate = holdout_estimates(outcome.holdout, outcome.margin, task).get(trial.number)
    if outcome.holdout is not None and estimate is not None:
        figures["holdout"] = {
            "sentences": len(outcome.holdout.labels),
            "metric": _measured(estimate.metric, estimate.metric_interval),
            "fp32_metric": estimate.metric - estimate.against_fp32.difference,
            "damage": _measured(estimate.damage, estimate.damage_interval),
        }
    return figures


def _measured(value: float, interval: Interval) -> list[float]:
    return [float(value), float(interval.low), float(interval.high)]


def write_card(
    directory: Path,
    name: str,
    format_: Format,
    file_bytes: int,
    footprint: Footprint,
    bit_map: BitMap,
    provenance: Mapping[str, Any],
) -> None:
    """Write a checkpoint's model card.

    Args:
        directory: of the checkpoint.
        name: what the model is called, and its directory where the card loads it.
        format_: of the checkpoint.
        file_bytes: the length of its weights file.
        footprint: the sizes of the model's maps.
        bit_map: the width of each layer.
        provenance: as in the manifest; what it lacks is left out.
    """
    figures = _figures(provenance)
    base = _hub_name(provenance, "model")
    name = name or "model"
    low, high = min(bit_map), max(bit_map)
    program = _PROGRAMS[format_].replace("{name}", json.dumps(name, ensure_ascii=False))
    text = _template().render(
        metadata=_metadata(name, format_, base, figures, provenance),
        title=escaped(name),
        base=f"`{base}`" if base else "A fine-tuned encoder",
        n_layers=len(bit_map),
        widths=f"{low}" if low == high else f"{low} to {high}",
        bits_per_weight=f"{32 / footprint.compression(bit_map, 'nominal'):.2f}",
        sizes=list(_sizes(format_, file_bytes, footprint, bit_map)),
        metric=METRIC_NAMES[figures["metric"]] if figures else "",
        damage=DAMAGE,
        qualities=[_quality(what, figures[what]) for what in _ROWS if what in figures],
        notes=list(_notes(figures, provenance)),
        program=program,
        about_program=_ABOUT_PROGRAMS[format_],
        layers=_widths_by_pattern(footprint.layers, bit_map),
    )
    (directory / CARD).write_text(text, encoding="utf-8")


@cache
def _template() -> Any:
    # Markdown: texts of others are escaped where they are put together, and code must stay as it is.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    text = files(__package__).joinpath("templates", "card.md.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


def _figures(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``card_figures`` did; of a distilled map, those after distillation."""
    figures: dict[str, Any] = dict(provenance.get(FIGURES, {}))
    distilled = _distilled(provenance)
    if figures and distilled:
        name = figures["metric"] if f"{figures['metric']}_after" in distilled else "mcc"  # so did older versions
        metric, damage = (
            [distilled[f"{score}_after{end}"] for end in ("", "_low", "_high")] for score in (name, "damage")
        )
        searched = figures["searched"] | {"metric": metric, "damage": damage}
        return {"metric": figures["metric"], "searched": searched}
    return figures


def _distilled(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures of a distilled map, also of older versions; empty if the map is as searched."""
    figures: Mapping[str, Any] = provenance.get("distilled", provenance.get("polished", {}))
    return figures


def _metadata(name: str, format_: Format, base: str, figures: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return the YAML that the hub reads."""
    data, results = _hub_name(provenance, "data"), []
    for what in ("searched", "holdout"):
        if row := figures.get(what):
            value, low, high = row["metric"]
            results.append(
                EvalResult(
                    task_type="text-classification",
                    dataset_type=data if data and what == "searched" else "local",
                    dataset_name=f"{_data_name(provenance)} ({_ROWS[what]})" if what == "searched" else _ROWS[what],
                    dataset_split="validation" if what == "searched" else None,
                    metric_type=_METRICS[figures["metric"]],
                    metric_name=METRIC_NAMES[figures["metric"]],
                    metric_value=value,
                    metric_args={"confidence_interval_95": [low, high]},
                )
            )
    values: dict[str, Any] = {
        **provenance.get(LICENSE, {}),
        "base_model": base or None,
        "base_model_relation": "quantized" if base else None,
        "pipeline_tag": "text-classification",
        "library_name": _LIBRARIES[format_],
        "tags": ["bitfront", "mixed-precision", format_],
        "datasets": [data] if data else None,
        "metrics": [_METRICS[figures["metric"]]] if results else None,
        "model_name": name if results else None,
        "eval_results": results or None,
    }
    return ModelCardData(**values).to_yaml()


def _hub_name(provenance: Mapping[str, Any], what: str) -> str:
    """Return the model's or the data's name on the hub; empty if it is a local file or directory, or unknown."""
    name, resolved = provenance.get(what), provenance.get("resolved")
    known = isinstance(name, str) and isinstance(resolved, Mapping) and what not in resolved
    return str(name) if known and name != _MINIATURE and _HUB_NAME.fullmatch(str(name)) else ""


def _data_name(provenance: Mapping[str, Any]) -> str:
    settings = provenance.get("data settings")
    task = settings.get("task") if isinstance(settings, Mapping) else None
    if provenance.get("data") == _MINIATURE:
        return "bitfront's miniature data"
    return _hub_name(provenance, "data") or (f"local data of task {task}" if task else "local data")


def _sizes(format_: Format, file_bytes: int, footprint: Footprint, bit_map: BitMap) -> Iterator[dict[str, str]]:
    fp32, packed = footprint.fp32_packed_bytes, footprint.packed_bytes(bit_map)
    yield {"what": "FP32", "size": megabytes(fp32), "compression": ""}
    if format_ != "packed":
        yield {"what": f"this {format_} file", "size": megabytes(file_bytes), "compression": times(fp32 / file_bytes)}
    yield {"what": "packed, every byte", "size": megabytes(packed), "compression": times(fp32 / packed)}
    codes, weights = footprint.nominal_bits(bit_map) // 8, footprint.fp32_nominal_bits // 8
    yield {"what": "codes alone", "size": megabytes(codes), "compression": f"{times(weights / codes)} (nominal)"}


def _quality(what: str, row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "what": _ROWS[what],
        "sentences": f"{row['sentences']:,}",
        "metric": _with_interval(row.get("metric"), metric),
        "fp32": metric(row["fp32_metric"]) if "fp32_metric" in row else "",
        "damage": _with_interval(row["damage"], nats),
    }


def _with_interval(measured: list[float] | None, text: Callable[[float], str]) -> str:
    if measured is None:
        return ""
    value, low, high = map(text, measured)
    return f"{value} ({low} to {high})"


def _notes(figures: Mapping[str, Any], provenance: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a reader of the figures should know."""
    yield f"The sentences of the search are {escaped(_data_name(provenance))}."
    but = ", unlike those of the holdout" if "holdout" in figures else ""
    yield f"The best of many maps are searched and picked by such figures, so they are a little too good{but}."
    if distilled := _distilled(provenance):
        what = "codes and scales" if distilled.get("trained") == "weights" else "scales"
        yield f"Its {what} were trained after the search (`bitfront distill`)."
    if provenance.get("onnx", {}).get("activations") == "int8":
        yield "The figures are those of FP32 activations; this file rounds activations to int8."


def _widths_by_pattern(layers: Sequence[Layer], bit_map: BitMap) -> list[tuple[str, str]]:
    """Return the widths of the layers of one name but for their block, embeddings first."""
    rows: dict[str, list[int]] = {}
    for layer, width in sorted(zip(layers, bit_map, strict=True), key=lambda pair: pair[0].kind):
        rows.setdefault(re.sub(r"\.\d+(?=\.)", ".*", layer.name), []).append(width)
    return [
        (name, f"{widths[0]} in all {len(widths)}" if len({*widths}) == 1 < len(widths) else " ".join(map(str, widths)))
        for name, widths in rows.items()
    ]
