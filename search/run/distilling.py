"""Distilling maps of a run after the search: the picks and the reference, or one that the user chooses."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.evaluation.precision import faster_precision
from objectives.metrics import MetricName
from objectives.problem import Holdout, Problem
from objectives.quantization.quantized_model import QuantizedModel
from objectives.scores import Labels, LogOdds, score
from objectives.training.distillation import Training, TrainingSentences, distil
from objectives.training.student import Trained
from objectives.training_sentences import distillation_sentences
from results.export.bit_map_files import bit_map_path, bit_map_provenance
from results.export.model_card import FIGURES, card_figures
from results.export.packed import read_manifest, write_checkpoint
from results.outcome import Outcome, Trial, Unseen
from results.report.distilled import (
    FOLDER,
    DistilledMap,
    distilled_line,
    distilled_of,
    figures_of,
    read_distilled,
    write_distilled,
)
from results.statistics.analysis import Selection
from results.statistics.bootstrap import Interval, Resamples
from results.statistics.intervals import score_intervals
from results.statistics.metric_draws import TaskMetric
from results.statistics.unseen import unseen_damages
from search.run.checkpoints import origin_of
from search.run.progress import DISTILLING, ReportPhase, paced
from search.run.run_directory import RunDirectory

log = logging.getLogger("bitfront")

EPOCHS: Mapping[Trained, int] = {"scales": 1, "weights": 10}
"""How many passes over the training sentences, unless the user says otherwise."""
_FAR = 1.15  # ratio of sizes between which a night distils another map


@dataclass(frozen=True)
class Distillation:
    """What a user asks for.

    Attributes:
        trained: ``scales``, or ``weights``: codes too.
        epochs: passes over the training sentences.
        seed: of everything random.
        text: a file of further unlabelled sentences, or None.
    """

    trained: Trained = "scales"
    epochs: int = 1
    seed: int = 0
    text: Path | None = None


def maps_to_distil(selection: Selection, between: bool = False) -> tuple[Trial, ...]:
    """Return the maps that are worth distilling, each once, those that most is to be gained from first.

    The picks from the smallest up, since the smallest have most damage; the reference; with ``between``, the smallest
    map of the front, and one of the front between two picks whose sizes are far apart.
    """
    picks = {number: trial for number, trial in selection.picked.items() if trial != selection.reference}
    chosen = sorted(picks.values(), key=_compression, reverse=True)
    chosen += [trial for trial in selection.picked.values() if trial == selection.reference]
    if between and selection.front:
        smallest = max(selection.front, key=_compression)
        known = sorted({trial.number: trial for trial in (smallest, *picks.values())}.values(), key=_compression)
        chosen.append(smallest)
        for larger, smaller in reversed(list(pairwise(known))):
            if _compression(smaller) / _compression(larger) > _FAR:
                middle = np.sqrt(_compression(smaller) * _compression(larger))
                chosen.append(min(selection.front, key=lambda trial: abs(np.log(_compression(trial) / middle))))
    return tuple({trial.number: trial for trial in chosen}.values())


def _compression(trial: Trial) -> float:
    return trial.nominal_compression


def distil_maps(
    problem: Problem,
    outcome: Outcome,
    trials: Sequence[Trial],
    run: RunDirectory,
    wanted: Distillation,
    unseen: int,
    report_phase: ReportPhase = lambda name, done, total, left_s: None,
    should_stop: Callable[[], bool] = lambda: False,
    time_left_s: Callable[[], float] = lambda: np.inf,
) -> tuple[DistilledMap, ...]:
    """Distil maps of a run into packed checkpoints under ``distilled/``, and return their figures.

    The table of distilled maps is written after each map. Maps distilled before are skipped; one whose training was
    stopped or killed is continued.

    Args:
        problem: the run's problem.
        outcome: the run's outcome.
        trials: the maps.
        run: the run's directory.
        wanted: how to distil.
        unseen: the run's limit of unseen sentences, which are not trained on.
        report_phase: called with the phase, the batches of the map in hand so far, their total, and the time left.
        should_stop: asked before each batch; once true, the best model so far is written and no further map begun.
        time_left_s: no map is begun that needs more, if it takes as long as the longest so far.

    Raises:
        InputError: there are no training sentences, the run's table of distilled maps cannot be read, or the quantiser
            has no evenly spaced levels to train weights on.
    """
    if wanted.trained == "weights" and outcome.footprint.scheme.kind == "codebook":
        raise InputError(
            "--train weights needs evenly spaced levels, and this run has codebooks; give --train scales, or search "
            "with --quantizer calibrated"
        )
    done = {distilled.checkpoint: distilled for distilled in read_distilled(run.path)}
    sentences, kept_unseen = distillation_sentences(problem, unseen, wanted.text)
    is_open = outcome.holdout is not None and not outcome.holdout.withdrawn  # the search has ended and scored it
    judge = _Judge(problem, kept_unseen, problem.holdout if is_open else None)
    results, longest_s = [], 0.0
    for trial in trials:
        checkpoint = f"{FOLDER}/{Path(bit_map_path(outcome, trial, 'txt')).stem}-{wanted.trained}"
        state = run.path / f"{checkpoint}.training.safetensors"
        if (run.path / checkpoint).exists() and not state.exists():
            distilled = _recorded(run.path / checkpoint, problem.metric)
            if distilled.epochs != wanted.epochs:
                log.warning(
                    "%s was distilled with --epochs %d; remove it to distil again",
                    run.path / checkpoint,
                    distilled.epochs,
                )
        elif should_stop():
            break
        elif time_left_s() < longest_s:
            log.info("%s of %.2fx is not distilled: the time left is too short", trial.label, _compression(trial))
            continue
        else:
            began = time.monotonic()
            distilled = _distil_map(
                problem,
                outcome,
                trial,
                run.path,
                checkpoint,
                state,
                sentences,
                wanted,
                judge,
                paced(report_phase, DISTILLING),
                should_stop,
            )
            longest_s = max(longest_s, time.monotonic() - began)
        done[checkpoint] = distilled
        results.append(distilled)
        write_distilled([one for one in done.values() if one.checkpoint.startswith(FOLDER)], run.path, problem.metric)
    return tuple(results)


def _distil_map(
    problem: Problem,
    outcome: Outcome,
    trial: Trial,
    run: Path,
    checkpoint: str,
    state: Path,
    sentences: TrainingSentences,
    wanted: Distillation,
    judge: _Judge,
    report_progress: Callable[[int, int], object],
    should_stop: Callable[[], bool],
) -> DistilledMap:
    size, count = trial.nominal_compression, len(sentences.token_ids)
    log.info("distilling %s of %.2fx: %s, on %d sentences", trial.label, size, wanted.trained, count)
    began = time.monotonic()
    quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, trial.bit_map)
    precision = faster_precision(problem.network)
    result = distil(
        quantized,
        problem.network,
        sentences,
        Training(wanted.trained, wanted.epochs, wanted.seed, precision),
        head=problem.head,
        state=state,
        report_progress=report_progress,
        should_stop=should_stop,
    )
    distilled = DistilledMap(
        number=trial.number,
        label=trial.label,
        nominal_compression=trial.nominal_compression,
        packed_compression=trial.packed_compression,
        kept=result.kept,
        held_out_damage_before=result.damage_before,
        held_out_damage_after=result.damage_after,
        checkpoint=checkpoint,
        trained=wanted.trained,
        epochs=wanted.epochs,
        **judge.figures(quantized, result.model, result.finished),
    )
    own = {"seed": wanted.seed, "precision": precision, "finished": result.finished}
    provenance = bit_map_provenance(outcome, trial) | {
        "distilled": figures_of(distilled, problem.metric) | own,
        FIGURES: card_figures(outcome, trial),
        **origin_of(problem),
    }
    if (run / checkpoint).exists():  # of a training that was stopped
        shutil.rmtree(run / checkpoint)
    write_checkpoint(problem.classifier, result.model, provenance, run / checkpoint)
    if result.finished:
        state.unlink(missing_ok=True)
    else:
        log.warning("stopped; the best model so far is kept, and the same command continues")
    log.info("%s after %.0f s", distilled_line(distilled, outcome.metric), time.monotonic() - began)
    return distilled


def _recorded(checkpoint: Path, metric: MetricName) -> DistilledMap:
    """Return a distilled checkpoint's figures, from its manifest."""
    figures = read_manifest(checkpoint).get("distilled")
    if isinstance(figures, dict) and (distilled := distilled_of(figures, metric)):
        return distilled
    raise InputError(f"{checkpoint}: is damaged; remove it and distil again")


_WHEN = ("before", "after")


class _Labelled(NamedTuple):
    """Labels, domains and the FP32 model's outputs of some sentences."""

    labels: Labels
    in_domain: npt.NDArray[np.bool_] | None
    fp32: LogOdds


@dataclass(frozen=True)
class _Judge:
    """Scores models on the validation sentences, on unseen ones, and on the holdout set if that is not None."""

    problem: Problem
    token_ids: Sequence[Sequence[int]]
    holdout: Holdout | None

    def figures(self, before: QuantizedModel, after: QuantizedModel, is_final: bool) -> dict[str, float]:
        """Return the figures of a model as searched and as distilled, by the names of ``DistilledMap``.

        Only a final model is scored on the holdout set: it sees each map once.
        """
        problem = self.problem
        validation = _Labelled(problem.labels, problem.in_domain, problem.fp32_log_odds)
        outputs = [problem.confirm_quantized(model).log_odds for model in (before, after)]
        figures = self._scores(validation, outputs)
        resamples = Resamples.draw(problem.labels, problem.in_domain)
        first, second = (resamples.mean(problem.head.divergences(one, problem.fp32_log_odds)[None]) for one in outputs)
        [change] = (second - first).intervals()
        figures |= {
            "damage_change": float((second - first).point[0]),
            "damage_change_low": change.low,
            "damage_change_high": change.high,
        }
        if self.token_ids and (scored := self._outputs(self.token_ids, before, after)):
            fp32, *outputs = scored
            damages = unseen_damages(Unseen(fp32, dict(enumerate(outputs)), 0), problem.head)
            for when, one in zip(_WHEN, damages.values(), strict=True):
                figures |= _with_ends(f"unseen_{when}", one.damage, one.interval)
        held = self.holdout
        if held is not None and is_final and (scored := self._outputs(held.token_ids, before, after)):
            fp32, *outputs = scored
            own = self._scores(_Labelled(held.labels, held.in_domain, fp32), outputs)
            figures |= {f"holdout_{name}": value for name, value in own.items()}
        return figures

    def _outputs(self, token_ids: Sequence[Sequence[int]], *models: QuantizedModel) -> list[LogOdds]:
        """Return the outputs on other sentences of the FP32 model and of models; none if one is not finite."""
        network = self.problem.network
        networks = (network, *(model.decoded(network) for model in models))
        outputs = [self.problem.evaluator_on(token_ids, one).fp32_log_odds() for one in networks]
        if all(np.isfinite(one).all() for one in outputs):
            return outputs
        log.warning("outputs on %d sentences are not finite, so that the table has no figures there", len(token_ids))
        return []

    def _scores(self, sentences: _Labelled, outputs: Sequence[LogOdds]) -> dict[str, float]:
        """Return damage and metric before and after, with their intervals."""
        head, metric = self.problem.head, self.problem.metric
        labels, in_domain, fp32 = sentences
        figures: dict[str, float] = {}
        for when, one in zip(_WHEN, outputs, strict=True):
            scores = score(one, labels, fp32, head, metric)
            intervals = score_intervals(one, fp32, labels, in_domain, TaskMetric(metric, head))
            figures |= _with_ends(f"damage_{when}", scores.damage, intervals.damage)
            figures |= _with_ends(f"metric_{when}", scores.metric, intervals.metric)
        return figures


def _with_ends(name: str, value: float, interval: Interval) -> dict[str, float]:
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}
