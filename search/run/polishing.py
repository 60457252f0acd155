"""Polishing maps of a run after the search: the picks and the reference, or one that the user chooses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from objectives.errors import InputError
from objectives.metrics import MetricName
from objectives.problem import Evaluation, Problem, polishing_sentences
from objectives.quantization.quantized_model import QuantizedModel
from objectives.training.distillation import polish
from results.export.bit_map_files import bit_map_path, bit_map_provenance
from results.export.model_card import FIGURES, card_figures
from results.export.packed import read_manifest, write_checkpoint
from results.outcome import Outcome, Trial
from results.report.polished import (
    FOLDER,
    PolishedMap,
    figures_of,
    polished_line,
    polished_of,
    read_polished,
    write_polished,
)
from results.statistics.analysis import Selection
from results.statistics.intervals import score_intervals
from results.statistics.metric_draws import TaskMetric
from search.run.checkpoints import origin_of
from search.run.run_directory import RunDirectory

log = logging.getLogger("bitfront")


def maps_to_polish(selection: Selection) -> tuple[Trial, ...]:
    """Return the picks and the reference, each once, from the largest to the smallest."""
    return tuple(sorted(selection.picked.values(), key=lambda trial: trial.nominal_compression))


def polish_maps(
    problem: Problem,
    outcome: Outcome,
    trials: Sequence[Trial],
    run: RunDirectory,
    seed: int,
    epochs: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[PolishedMap, ...]:
    """Polish maps of a run into packed checkpoints under ``polished/``, and return their figures.

    The table of polished maps is written after each map. Maps polished before are skipped.

    Args:
        problem: the run's problem.
        outcome: the run's outcome.
        trials: the maps.
        run: the run's directory.
        seed: of everything random in polishing.
        epochs: passes over the training sentences.
        should_stop: asked regularly; once true, only the maps polished so far are returned.

    Raises:
        InputError: there are no training sentences, or the run's table of polished maps cannot be read.
    """
    done = {polished.number: polished for polished in read_polished(run.path)}
    sentences = polishing_sentences(problem)
    for trial in trials:
        checkpoint = f"{FOLDER}/{Path(bit_map_path(outcome, trial, 'txt')).stem}"
        folder = run.path / checkpoint
        if folder.exists():
            polished, recorded_epochs = _recorded(folder, problem.metric)
            if recorded_epochs != epochs:
                log.warning("%s was polished with --epochs %d; remove it to polish again", folder, recorded_epochs)
            if trial.number in done:
                continue
        else:
            size, count = trial.nominal_compression, len(sentences.token_ids)
            log.info("polishing %s of %.2fx on %d sentences", trial.label, size, count)
            began = time.monotonic()
            quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, trial.bit_map)
            result = polish(quantized, problem.network, sentences, epochs, seed, log.info, should_stop, problem.head)
            if result is None:
                break
            before, after = problem.confirm_quantized(quantized), problem.confirm_quantized(result.model)
            polished = PolishedMap(
                number=trial.number,
                label=trial.label,
                nominal_compression=trial.nominal_compression,
                packed_compression=trial.packed_compression,
                kept=result.kept,
                held_out_damage_before=result.damage_before,
                held_out_damage_after=result.damage_after,
                checkpoint=checkpoint,
                **_figures(problem, before, "before"),
                **_figures(problem, after, "after"),
            )
            provenance = bit_map_provenance(outcome, trial) | {
                "polished": figures_of(polished, problem.metric) | {"seed": seed, "epochs": epochs},
                FIGURES: card_figures(outcome, trial),
                **origin_of(problem),
            }
            write_checkpoint(problem.classifier, result.model, provenance, folder)
            log.info("%s after %.0f s", polished_line(polished, outcome.metric), time.monotonic() - began)
        done[trial.number] = polished
        write_polished(list(done.values()), run.path, problem.metric)
    return tuple(done[trial.number] for trial in trials if trial.number in done)


def _recorded(checkpoint: Path, metric: MetricName) -> tuple[PolishedMap, int]:
    """Return a polished checkpoint's figures and its number of epochs, from its manifest."""
    figures = read_manifest(checkpoint).get("polished")
    if isinstance(figures, dict) and "epochs" in figures and (polished := polished_of(figures, metric)):
        return polished, figures["epochs"]
    raise InputError(f"{checkpoint}: is damaged; remove it and polish again")


def _figures(problem: Problem, evaluation: Evaluation, when: str) -> dict[str, float]:
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
