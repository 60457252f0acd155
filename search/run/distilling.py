"""Distilling maps of a run after the search: the picks and the reference, or one that the user chooses."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from objectives.errors import InputError
from objectives.evaluation.precision import faster_precision
from objectives.metrics import MetricName
from objectives.problem import Evaluation, Problem, distillation_sentences
from objectives.quantization.quantized_model import QuantizedModel
from objectives.training.distillation import Training, TrainingSentences, distil
from objectives.training.student import Trained
from results.export.bit_map_files import bit_map_path, bit_map_provenance
from results.export.model_card import FIGURES, card_figures
from results.export.packed import read_manifest, write_checkpoint
from results.outcome import Outcome, Trial
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
from results.statistics.bootstrap import Resamples
from results.statistics.intervals import score_intervals
from results.statistics.metric_draws import TaskMetric
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
    judge = _Judge(problem, kept_unseen)
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
        **judge.figures(quantized, result.model),
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


@dataclass(frozen=True)
class _Judge:
    """Scores models on the validation sentences and on unseen ones."""

    problem: Problem
    token_ids: Sequence[Sequence[int]]

    def figures(self, before: QuantizedModel, after: QuantizedModel) -> dict[str, float]:
        """Return the figures of a model as searched and as distilled, by the names of ``DistilledMap``."""
        problem = self.problem
        both = [problem.confirm_quantized(model) for model in (before, after)]
        figures = self._scores(both[0], "before") | self._scores(both[1], "after")
        resamples = Resamples.draw(problem.labels, problem.in_domain)
        first, second = (
            resamples.mean(problem.head.divergences(one.log_odds, problem.fp32_log_odds)[None]) for one in both
        )
        [change] = (second - first).intervals()
        figures |= {
            "damage_change": float((second - first).point[0]),
            "damage_change_low": change.low,
            "damage_change_high": change.high,
        }
        if self.token_ids:
            figures |= {f"unseen_{when}": self._unseen(model) for when, model in (("before", before), ("after", after))}
        return figures

    def _unseen(self, model: QuantizedModel) -> float:
        evaluators = (
            self.problem.evaluator_on(self.token_ids, network)
            for network in (model.decoded(self.problem.network), self.problem.network)
        )
        outputs, fp32 = (evaluator.fp32_log_odds() for evaluator in evaluators)
        return float(np.mean(self.problem.head.divergences(outputs, fp32)))

    def _scores(self, evaluation: Evaluation, when: str) -> dict[str, float]:
        problem = self.problem
        intervals = score_intervals(
            evaluation.log_odds,
            problem.fp32_log_odds,
            problem.labels,
            problem.in_domain,
            TaskMetric(problem.metric, problem.head),
        )
        damage, metric = intervals.damage, intervals.metric
        return {
            f"damage_{when}": evaluation.scores.damage,
            f"damage_{when}_low": damage.low,
            f"damage_{when}_high": damage.high,
            f"metric_{when}": evaluation.scores.metric,
            f"metric_{when}_low": metric.low,
            f"metric_{when}_high": metric.high,
        }
