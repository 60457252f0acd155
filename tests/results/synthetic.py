"""Seeded synthetic outcomes: a small BERT by the documented names, whose damage grows as layers get fewer bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from objectives.bit_maps import documented_bit_map
from objectives.heads import TWO_CLASSES, Array, Classes, Head, Numbers
from objectives.layers import BitMap, Layer, uniform
from objectives.metrics import MetricName
from objectives.packing.footprint import Footprint, SizeAxis, footprint
from objectives.scores import Scores, score
from results.outcome import HoldoutScores, Origin, Outcome, Quality, Trial, Unseen
from results.report.distilled import DistilledMap
from tests.objectives.onnx_sizes import made_up_onnx_sizes


def bert_layers(hidden: int = 32, blocks: int = 12, vocabulary: int = 640) -> tuple[Layer, ...]:
    """Return a BERT's layers, named as in bert-base-uncased; 12 blocks give the documented 76 layers."""
    layers = [
        Layer("bert.embeddings.word_embeddings", "embedding", vocabulary, hidden),
        Layer("bert.embeddings.position_embeddings", "embedding", 64, hidden),
        Layer("bert.embeddings.token_type_embeddings", "embedding", 2, hidden),
    ]
    parts = [
        ("attention.self.query", hidden, hidden),
        ("attention.self.key", hidden, hidden),
        ("attention.self.value", hidden, hidden),
        ("attention.output.dense", hidden, hidden),
        ("intermediate.dense", 4 * hidden, hidden),
        ("output.dense", hidden, 4 * hidden),
    ]
    for block in range(blocks):
        layers += [Layer(f"bert.encoder.layer.{block}.{name}", "linear", rows, cols) for name, rows, cols in parts]
    return (*layers, Layer("bert.pooler.dense", "linear", hidden, hidden))


def bert_footprint(layers: Sequence[Layer]) -> Footprint:
    """Return the footprint of a model with these layers, their biases and a classifier head."""
    shapes: dict[str, tuple[int, ...]] = {f"{layer.name}.bias": (layer.rows,) for layer in layers}
    return footprint(layers, shapes | {"classifier.weight": (2, layers[-1].rows), "classifier.bias": (2,)})


def made_up_trial(
    outcome: Outcome, number: int, bit_map: BitMap, origin: Origin = "sampler", label: str = "", seed: int = 0
) -> Trial:
    """Return a complete trial of ``outcome``: FP32's log-odds with noise, more of it for fewer bits."""
    random = np.random.default_rng([seed, number])
    sensitivity = np.random.default_rng(seed).lognormal(sigma=1.0, size=len(bit_map))
    noise = 6.0 * np.sqrt(np.sum(sensitivity / sensitivity.sum() * 4.0 ** (-np.array(bit_map, dtype=np.float64) + 1)))
    log_odds = outcome.fp32_log_odds + random.normal(scale=noise, size=outcome.fp32_log_odds.shape).astype(np.float32)
    compression = outcome.footprint.exact_compression(bit_map, outcome.size_axis)
    return Trial(
        number=number,
        origin=origin,
        label=label or f"trial {number}",
        bit_map=bit_map,
        nominal_compression=outcome.footprint.compression(bit_map, "nominal"),
        packed_compression=outcome.footprint.compression(bit_map, "packed"),
        onnx_compression=outcome.footprint.compression(bit_map, "onnx") if outcome.footprint.onnx else None,
        feasible=compression >= outcome.min_compression,
        scores=score(log_odds, outcome.labels, outcome.fp32_log_odds, outcome.head, outcome.metric),
        log_odds=log_odds,
        elapsed_s=1.5,
        finished_s=2.0 * (number + 1),
    )


def failed(trial: Trial, failure: str = "3 of 10 outputs are not finite") -> Trial:
    """Return the trial as it is when its evaluation failed."""
    return replace(trial, scores=None, log_odds=None, failure=failure)


def scored(trial: Trial, **scores: float) -> Trial:
    """Return the trial with some of its scores replaced."""
    assert trial.scores is not None
    return replace(trial, scores=Scores(**{**vars(trial.scores), **scores}))


def empty_outcome(
    *,
    seed: int = 0,
    sentences: int = 200,
    layers: Sequence[Layer] | None = None,
    size_axis: SizeAxis = "nominal",
    quality: Quality = "damage",
    min_compression: float = 5.5,
    head: Head = TWO_CLASSES,
    metric: MetricName = "mcc",
) -> Outcome:
    """Return an outcome without trials, with seeded labels and an FP32 model that is usually right."""
    labels, fp32_log_odds = predicted(head, sentences, seed)
    if head.kind == "numbers":
        head = Numbers.of(fp32_log_odds)
    sizes = bert_footprint(tuple(layers) if layers is not None else bert_layers())
    if size_axis == "onnx":
        sizes = replace(sizes, onnx=made_up_onnx_sizes(sizes.layers))
    return Outcome(
        name="made-up",
        model="models/made-up",
        data="data/made-up",
        footprint=sizes,
        quality=quality,
        size_axis=size_axis,
        min_compression=min_compression,
        labels=labels,
        in_domain=None,
        fp32_log_odds=fp32_log_odds,
        fp32=score(fp32_log_odds, labels, fp32_log_odds, head, metric),
        reference_note="this outcome has none",
        trials=(),
        provenance=(("seed", str(seed)), ("quantiser", "affine, per channel")),
        head=head,
        metric=metric,
    )


def predicted(head: Head, sentences: int, seed: int) -> tuple[Array, Array]:
    """Return seeded labels, and outputs of an FP32 model that is usually right."""
    random = np.random.default_rng(seed)
    if head == TWO_CLASSES:
        labels = (random.random(sentences) < 0.7).astype(np.int8)
        return labels, (3.0 * (labels - 0.5) + 0.6 + random.normal(scale=1.8, size=sentences)).astype(np.float32)
    if head.kind == "numbers":
        clear: Array = random.uniform(0, 5, (sentences, *head.shape)).round(1)
        labels = clear.astype(head.label_type)
    elif isinstance(head, Classes):
        labels = random.integers(0, head.n_classes, sentences).astype(head.label_type)
        clear = 3.0 * (np.eye(head.n_classes)[labels][:, 1:] - (labels == 0)[:, None])
    else:
        labels = (random.random((sentences, *head.shape)) < 0.4).astype(head.label_type)
        clear = 3.0 * (labels - 0.5)
    return labels, (clear + random.normal(size=clear.shape)).astype(np.float32)


def with_trials(outcome: Outcome, trials: Iterable[Trial]) -> Outcome:
    """Return the outcome with these trials, and without its note on the reference if they include one."""
    kept = tuple(trials)
    note = "" if any(trial.origin == "reference" for trial in kept) else outcome.reference_note
    return replace(outcome, trials=kept, reference_note=note)


def with_unseen(outcome: Outcome, trials: Iterable[Trial], sentences: int = 300, luck: float = 1.0) -> Outcome:
    """Return the outcome with these trials scored on unseen sentences.

    Shifts there are as large as on the search's sentences; those of the sampler's maps are ``luck`` times as large.
    """
    random = np.random.default_rng(3)
    shape = (sentences, *outcome.head.shape)
    fp32 = random.normal(0.6, 2.0, shape).astype(np.float32)
    scored = {}
    for trial in trials:
        assert trial.log_odds is not None
        size = np.std(trial.log_odds - outcome.fp32_log_odds) * (luck if trial.origin == "sampler" else 1.0)
        scored[trial.number] = fp32 + random.normal(scale=size, size=shape).astype(np.float32)
    return replace(outcome, unseen=Unseen(fp32, scored, len(outcome.trials)))


def with_holdout(outcome: Outcome, *, noise: float = 1.0, withdrawn: bool = False) -> Outcome:
    """Return the outcome after its holdout was scored: a copy of its sentences, with ``noise`` times the shifts."""
    log_odds = {
        trial.number: outcome.fp32_log_odds + np.float32(noise) * (trial.log_odds - outcome.fp32_log_odds)
        for trial in outcome.trials
        if trial.log_odds is not None
    }
    sentences = (outcome.labels, outcome.in_domain, outcome.fp32_log_odds)
    scores = HoldoutScores("0.3", *sentences, log_odds, len(outcome.trials) - withdrawn, withdrawn)
    return replace(outcome, holdout_source="0.3", holdout=scores)


def made_up_distilled(trial: Trial, share: float = 0.3, trained: str = "weights") -> DistilledMap:
    """Return a trial's map after a distillation that left this share of its damage on all sentences, and cost 0.01."""
    assert trial.scores is not None
    before = {"damage": trial.scores.damage, "metric": trial.scores.metric}
    figures: dict[str, Any] = {}
    for name in ("damage", "metric", "unseen", "holdout_damage", "holdout_metric"):
        kind = "metric" if name.endswith("metric") else "damage"
        after = before[kind] - 0.01 if kind == "metric" else share * before[kind]
        for when, value in (("before", before[kind]), ("after", after)):
            figures |= {f"{name}_{when}": value, f"{name}_{when}_low": 0.8 * value, f"{name}_{when}_high": 1.2 * value}
    return DistilledMap(
        number=trial.number,
        label=trial.label,
        nominal_compression=trial.nominal_compression,
        packed_compression=trial.packed_compression,
        kept=share < 1,
        held_out_damage_before=before["damage"],
        held_out_damage_after=share * before["damage"],
        checkpoint=f"distilled/{trial.number}-{trained}",
        trained=trained,
        **figures,
    )


def eventful_outcome(margin: float, trials: int = 60) -> Outcome:
    """Return a run with a holdout, unseen sentences, knapsack maps, and a search that went on after its checks."""
    outcome = replace(made_up_outcome(trials=trials, sentences=800), margin=margin)
    maps = [replace(trial, origin="plain") if trial.origin == "uniform" else trial for trial in outcome.trials]
    outcome = with_unseen(with_trials(outcome, maps), [trial for trial in maps if trial.feasible or not trial.number])
    assert outcome.unseen is not None
    return replace(with_holdout(outcome), unseen=replace(outcome.unseen, trials=40, outdated=True))


def made_up_outcome(
    *,
    trials: int = 60,
    seed: int = 0,
    sentences: int = 200,
    size_axis: SizeAxis = "nominal",
    quality: Quality = "damage",
    min_compression: float = 5.5,
    head: Head = TWO_CLASSES,
    metric: MetricName = "mcc",
) -> Outcome:
    """Return an outcome of the 76 layers: the documented map, uniform maps of 2 to 8 bits, then ``trials`` random maps.

    Half of the random maps follow the sensitivities closely, so that the front is not of baselines alone.
    """
    outcome = empty_outcome(
        seed=seed,
        sentences=sentences,
        size_axis=size_axis,
        quality=quality,
        min_compression=min_compression,
        head=head,
        metric=metric,
    )
    layers = outcome.footprint.layers
    random = np.random.default_rng([seed, 1])
    sensitivity = np.random.default_rng(seed).lognormal(sigma=1.0, size=len(layers))
    made = [made_up_trial(outcome, 0, documented_bit_map(layers), "reference", "documented", seed)]
    made += [
        made_up_trial(outcome, width - 1, uniform(layers, width), "uniform", f"uniform {width}", seed)
        for width in range(2, 9)
    ]
    for number in range(8, 8 + trials):
        level = random.uniform(2, 7)
        # Half a bit more for each doubling of a layer's sensitivity, and some noise.
        widths = level + 0.5 * np.log2(sensitivity) + random.normal(scale=random.choice([0.2, 2.0]), size=len(layers))
        made.append(
            made_up_trial(outcome, number, tuple(int(width) for width in np.clip(np.rint(widths), 2, 8)), seed=seed)
        )
    return with_trials(outcome, made)
