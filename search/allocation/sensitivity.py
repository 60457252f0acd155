"""Sensitivities: the effect of one layer alone at one width, with all other layers in FP32."""

from __future__ import annotations

import json
import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from objectives.cache import mark_used, writable_cache
from objectives.errors import InputError
from objectives.files import process_lock, replacing
from objectives.heads import TWO_CLASSES, Head, Numbers
from objectives.layers import WIDTHS
from objectives.loading.fingerprint import Fingerprint, short_digest
from objectives.memory import give_back_freed
from objectives.problem import Problem
from objectives.quantization.bank import FP32_WIDTH
from objectives.quantization.first_order import first_order_shifts
from objectives.scores import LogOdds
from search.allocation.knapsack import Damages, Source
from search.allocation.phases import MEASURING

MEASURED_WIDTHS = (2, 3)
"""Where a layer's change is too large for the gradient's first order, which is within a few percent from 4 bits on."""

ReportProgress = Callable[[str, int, int, float | None], object]
"""Takes the name of a step, how much of it is done, of how much, and the seconds left (None if unknown)."""
_GRADIENT_PASSES = 12.0  # about what all gradients take, in evaluations
_FIRST_ORDER = "sensitivities by gradients, batches"

log = logging.getLogger("bitfront")

_SAVE_EVERY_S = 1.0  # what a killed process may lose: one evaluation of a large model, a few of a small one
_SAVE_SHARE = 0.05  # of the time may go into saving
_HOPELESS = 20.0  # nats; no map of interest has that much damage


@dataclass(frozen=True)
class Sensitivities:
    """The effect of each layer alone at each width.

    Attributes:
        shifts: change of each sentence's outputs, in nats, ``(n_layers, n_widths, n_sentences, *head.shape)``.
        damages: mean KL divergence from FP32, nats a sentence, ``(n_layers, n_widths)``; never rises with the width.
        measured: whether it was evaluated rather than taken from the gradient, ``(n_layers, n_widths)``.
    """

    shifts: npt.NDArray[np.float32]
    damages: Damages
    measured: npt.NDArray[np.bool_]

    @classmethod
    def from_shifts(
        cls,
        shifts: npt.NDArray[np.float32],
        measured: npt.NDArray[np.bool_],
        fp32_log_odds: LogOdds,
        head: Head = TWO_CLASSES,
    ) -> Sensitivities:
        """Compute the damages; one that is below a wider width's is raised to it."""
        alone = head.divergences(fp32_log_odds + shifts, fp32_log_odds).mean(axis=-1)
        falling = np.maximum.accumulate(alone[:, ::-1], axis=1)[:, ::-1]
        return cls(shifts, falling, measured)

    def of(self, sentences: slice, fp32_log_odds: LogOdds, head: Head = TWO_CLASSES) -> Sensitivities:
        """Return the sensitivities on some of the sentences; ``fp32_log_odds`` are those of all."""
        return self.from_shifts(self.shifts[:, :, sentences], self.measured, fp32_log_odds[sentences], head)


def measure(
    problem: Problem,
    cache: Path,
    source: Source = "measured",
    report_progress: ReportProgress = lambda step, done, total, left_s: None,
    should_stop: Callable[[], bool] = lambda: False,
    widths: Sequence[int] = WIDTHS,
) -> Sensitivities | None:
    """Return the sensitivities at some widths; None if ``should_stop`` ended the measurement.

    The gradient gives every width; if ``source`` is "measured", evaluations replace it at ``MEASURED_WIDTHS``. They
    start from remembered hidden states of the FP32 model, so that only the layers above the quantised one run. Results
    are cached by the problem's fingerprint as they come; an interrupted measurement continues where it stopped.

    Args:
        problem: the model and its sentences.
        cache: the directory of the cache.
        source: where the sensitivities come from.
        report_progress: called before each batch of the gradients and before each evaluation.
        should_stop: called just as often; once it returns true, what was measured is kept, and the log says how much.
        widths: the widths to measure, which rise; one column each in the result.

    Raises:
        InputError: the file in the cache is damaged; the message says to delete it.
    """
    bank = problem.evaluator.bank
    path = _path(cache, problem.fingerprint)
    effects = _effects(len(problem.layers), source, widths)
    if path.is_file():
        mark_used(path)
        gradient, shifts, measured = _read(path, (len(problem.layers), len(WIDTHS), *problem.fp32_log_odds.shape))
    else:
        writable_cache(cache)
        warmed_up: list[float] = []

        def report_batches(done: int, total: int) -> None:
            if done == 1:  # the first batch is far slower than the others
                warmed_up.append(time.monotonic())
            left_s = _left_s(warmed_up[0], done - 1, total - 1) if done > 1 else None
            report_progress(_FIRST_ORDER, done, total, left_s)

        first_order = first_order_shifts(
            problem.network, problem.layers, problem.token_ids, bank, should_stop, report_batches
        )
        if first_order is None:
            log.info("stopped before any sensitivity was measured; nothing to keep yet")
            return None
        gradient = _make_finite(first_order, problem.fp32_log_odds, problem.head)
        shifts, measured = gradient.copy(), np.zeros(first_order.shape[:2], dtype=np.bool_)
        _write(path, gradient, shifts, measured, should_stop)
    missing = [(index, width) for index, width in effects if not measured[index, WIDTHS.index(width)]]
    if missing:
        kept = len(effects) - len(missing)
        report_progress(MEASURING, kept, len(effects), None)
        fp32 = (FP32_WIDTH,) * len(problem.layers)
        problem.evaluator.log_odds(fp32, remember=True)
        # The first evaluations run only the layers at the top, the last ones the whole model.
        work = np.cumsum([0.0, *(problem.evaluator.share_above(index) for index, _ in missing)])
        began = saved = time.monotonic()
        save_s = 0.0
        try:
            for evaluated, (index, width) in enumerate(missing):
                left_s = _left_s(began, work[evaluated], work[-1])
                report_progress(MEASURING, kept + evaluated, len(effects), left_s)
                if should_stop():
                    return None
                if measured[index, WIDTHS.index(width)]:
                    continue  # another search has measured it meanwhile
                log_odds = problem.evaluator.log_odds((*fp32[:index], width, *fp32[index + 1 :]))
                if not np.isfinite(log_odds).all():
                    log.warning(
                        "%s at %d bits alone: outputs are not finite; counted as a reversed answer",
                        problem.layers[index].name,
                        width,
                    )
                shift = _make_finite(log_odds - problem.fp32_log_odds, problem.fp32_log_odds, problem.head)
                shifts[index, WIDTHS.index(width)] = shift
                measured[index, WIDTHS.index(width)] = True
                if time.monotonic() - saved >= max(_SAVE_EVERY_S, save_s / _SAVE_SHARE):
                    saving = time.monotonic()
                    _write(path, gradient, shifts, measured, should_stop)
                    saved = time.monotonic()
                    save_s = saved - saving
        finally:
            problem.evaluator.forget()  # half a gigabyte, unused from now on
            give_back_freed()
            _write(path, gradient, shifts, measured, should_stop)
            done = sum(bool(measured[index, WIDTHS.index(width)]) for index, width in effects)
            if done < len(effects):
                log.info("%d of %d sensitivities are measured and kept", done, len(effects))
    if source == "gradient":
        shifts, measured = gradient, np.zeros_like(measured)
    if tuple(widths) != WIDTHS:  # else no copy of hundreds of megabytes
        columns = [WIDTHS.index(width) for width in widths]
        shifts, measured = shifts[:, columns], measured[:, columns]
    return Sensitivities.from_shifts(shifts, measured, problem.fp32_log_odds, problem.head)


def passes_to_measure(
    problem: Problem, fingerprint: Fingerprint, cache: Path, source: Source, widths: Sequence[int]
) -> float:
    """Return about how many evaluations in FP32 :func:`measure` takes, by what the cache holds.

    Args:
        problem: the model and its sentences.
        fingerprint: of the problem as it will be measured.
        cache, source, widths: as for ``measure``.

    Raises:
        InputError: the file in the cache is damaged; the message says to delete it.
    """
    path, effects, passes = _path(cache, fingerprint), _effects(len(problem.layers), source, widths), _GRADIENT_PASSES
    if path.is_file():
        _, _, measured = _read(path, (len(problem.layers), len(WIDTHS), *problem.fp32_log_odds.shape))
        effects, passes = [(at, width) for at, width in effects if not measured[at, WIDTHS.index(width)]], 0.0
    return passes + sum(problem.evaluator.share_above(index) for index, _ in effects)


def _path(cache: Path, fingerprint: Fingerprint) -> Path:
    # Sensitivities do not depend on the holdout.
    identity = {key: value for key, value in fingerprint.items() if key != "confirmation"}
    return cache / f"sensitivity-{short_digest(json.dumps(identity, sort_keys=True))}.npz"


def _effects(layers: int, source: Source, widths: Sequence[int]) -> list[tuple[int, int]]:
    """Return the layers and widths to evaluate, from the top layer down."""
    evaluated = [width for width in MEASURED_WIDTHS if width in widths] if source == "measured" else []
    return [(index, width) for index in reversed(range(layers)) for width in evaluated]


def _left_s(began: float, done: float, total: float) -> float | None:
    """Return the seconds left at the pace since ``began``; None before anything is done."""
    return (time.monotonic() - began) * (total - done) / done if done else None


def _make_finite(shifts: npt.NDArray[np.float32], fp32_log_odds: LogOdds, head: Head) -> npt.NDArray[np.float32]:
    """Return shifts ``(..., n_sentences, *head.shape)``; entries that are not finite become hopeless ones.

    These flip an output's decision; a number's is moved by ``_HOPELESS`` times FP32's deviation.
    """
    scale = np.sqrt(np.array(head.variances)).reshape(head.shape) if isinstance(head, Numbers) else 1.0
    hopeless = -fp32_log_odds - np.copysign(_HOPELESS * scale, fp32_log_odds)
    return np.asarray(np.where(np.isfinite(shifts), shifts, hopeless), dtype=np.float32)


def _write(
    path: Path,
    gradient: npt.NDArray[np.float32],
    shifts: npt.NDArray[np.float32],
    measured: npt.NDArray[np.bool_],
    should_stop: Callable[[], bool],
) -> None:
    """Write the cache, merged with what another search of the same problem has measured meanwhile."""
    with process_lock(path.with_name(f".{path.name}.lock"), should_stop=should_stop):
        if path.is_file():
            _, theirs, measured_there = _read(path, shifts.shape)
            new = measured_there & ~measured
            shifts[new], measured[new] = theirs[new], True
        with replacing(path) as temporary:
            np.savez(temporary, gradient=gradient, shifts=shifts, measured=measured)


def _read(
    path: Path, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            gradient, shifts, measured = stored["gradient"], stored["shifts"], stored["measured"]
        sound = (
            gradient.shape == shifts.shape == shape
            and measured.shape == shape[:2]
            and gradient.dtype == shifts.dtype == np.float32
            and measured.dtype == np.bool_
            and bool(np.isfinite(gradient).all() and np.isfinite(shifts).all())
        )
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        sound = False
    if not sound:
        raise InputError(f"{path}: is damaged; delete it to measure the sensitivities again")
    return gradient, shifts, measured
