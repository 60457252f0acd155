"""Sensitivities: the effect of one layer alone at one width, with all other layers in FP32."""

from __future__ import annotations

import json
import logging
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from objectives.cache import mark_used
from objectives.errors import InputError
from objectives.files import process_lock, replacing
from objectives.layers import WIDTHS
from objectives.loading.fingerprint import short_digest
from objectives.memory import give_back_freed
from objectives.problem import Problem
from objectives.quantization.bank import FP32_WIDTH
from objectives.quantization.first_order import first_order_shifts
from objectives.scores import LogOdds, divergences
from search.allocation.knapsack import Damages, Source

MEASURED_WIDTHS = (2, 3)
"""Where a layer's change is too large for the gradient's first order, which is within a few percent from 4 bits on."""

log = logging.getLogger("bitfront")

_SAVE_EVERY_S = 10.0
_HOPELESS = 20.0  # nats; no map of interest has that much damage


@dataclass(frozen=True)
class Sensitivities:
    """The effect of each layer alone at each width.

    Attributes:
        shifts: change of each sentence's log-odds, in nats, ``(n_layers, n_widths, n_sentences)``.
        damages: mean KL divergence from FP32, nats a sentence, ``(n_layers, n_widths)``; never rises with the width.
        measured: whether it was evaluated rather than taken from the gradient, ``(n_layers, n_widths)``.
    """

    shifts: npt.NDArray[np.float32]
    damages: Damages
    measured: npt.NDArray[np.bool_]

    @classmethod
    def from_shifts(
        cls, shifts: npt.NDArray[np.float32], measured: npt.NDArray[np.bool_], fp32_log_odds: LogOdds
    ) -> Sensitivities:
        """Compute the damages; one that is below a wider width's is raised to it."""
        alone = divergences(fp32_log_odds + shifts, fp32_log_odds).mean(axis=-1)
        falling = np.maximum.accumulate(alone[:, ::-1], axis=1)[:, ::-1]
        return cls(shifts, falling, measured)


def measure(
    problem: Problem,
    cache: Path,
    source: Source = "measured",
    report_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Sensitivities | None:
    """Return the sensitivities; None if ``should_stop`` ended the measurement.

    The gradient gives every width; if ``source`` is "measured", evaluations replace it at ``MEASURED_WIDTHS``. They
    start from remembered hidden states of the FP32 model, so that only the layers above the quantised one run. Results
    are cached by the problem's fingerprint; an interrupted measurement continues where it stopped.

    Args:
        problem: the model and its sentences.
        cache: the directory of the cache.
        source: where the sensitivities come from.
        report_progress: called with the number of evaluations done and their total.
        should_stop: called before each evaluation; once it returns true, what was measured is kept.

    Raises:
        InputError: the file in the cache is damaged; the message says to delete it.
    """
    bank = problem.evaluator.bank
    # Sensitivities do not depend on the holdout.
    identity = {key: value for key, value in problem.fingerprint.items() if key != "confirmation"}
    path = cache / f"sensitivity-{short_digest(json.dumps(identity, sort_keys=True))}.npz"
    effects = [(index, width) for index in reversed(range(len(problem.layers))) for width in MEASURED_WIDTHS]
    if source == "gradient":
        effects = []
    report_progress(0, len(effects))
    if path.is_file():
        mark_used(path)
        gradient, shifts, measured = _read(path, (len(problem.layers), len(WIDTHS), len(problem.labels)))
    else:
        first_order = first_order_shifts(problem.network, problem.layers, problem.token_ids, bank, should_stop)
        if first_order is None:
            return None
        gradient = _make_finite(first_order, problem.fp32_log_odds)
        shifts, measured = gradient.copy(), np.zeros(first_order.shape[:2], dtype=np.bool_)
        _write(path, gradient, shifts, measured)
    missing = [(index, width) for index, width in effects if not measured[index, WIDTHS.index(width)]]
    if missing:
        fp32 = (FP32_WIDTH,) * len(problem.layers)
        problem.evaluator.log_odds(fp32, remember=True)
        saved = time.monotonic()
        try:
            for done, (index, width) in enumerate(missing, start=len(effects) - len(missing)):
                if should_stop():
                    return None
                report_progress(done, len(effects))
                if measured[index, WIDTHS.index(width)]:
                    continue  # another search has measured it meanwhile
                log_odds = problem.evaluator.log_odds((*fp32[:index], width, *fp32[index + 1 :]))
                if not np.isfinite(log_odds).all():
                    log.warning(
                        "%s at %d bits alone: log-odds are not finite; counted as a flipped decision",
                        problem.layers[index].name,
                        width,
                    )
                shift = _make_finite(log_odds - problem.fp32_log_odds, problem.fp32_log_odds)
                shifts[index, WIDTHS.index(width)] = shift
                measured[index, WIDTHS.index(width)] = True
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    _write(path, gradient, shifts, measured)
                    saved = time.monotonic()
        finally:
            problem.evaluator.forget()  # half a gigabyte, unused from now on
            give_back_freed()
            _write(path, gradient, shifts, measured)
    if source == "gradient":
        shifts, measured = gradient, np.zeros_like(measured)
    return Sensitivities.from_shifts(shifts, measured, problem.fp32_log_odds)


def _make_finite(shifts: npt.NDArray[np.float32], fp32_log_odds: LogOdds) -> npt.NDArray[np.float32]:
    """Return shifts ``(..., n_sentences)``; entries that are not finite become shifts that flip the decision."""
    hopeless = -fp32_log_odds - np.copysign(_HOPELESS, fp32_log_odds)
    return np.asarray(np.where(np.isfinite(shifts), shifts, hopeless), dtype=np.float32)


def _write(
    path: Path,
    gradient: npt.NDArray[np.float32],
    shifts: npt.NDArray[np.float32],
    measured: npt.NDArray[np.bool_],
) -> None:
    """Write the cache, merged with what another search of the same problem has measured meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with process_lock(path.with_name(f".{path.name}.lock")):
        if path.is_file():
            _, theirs, measured_there = _read(path, shifts.shape)
            new = measured_there & ~measured
            shifts[new], measured[new] = theirs[new], True
        with replacing(path) as temporary:
            np.savez(temporary, gradient=gradient, shifts=shifts, measured=measured)


def _read(
    path: Path, shape: tuple[int, int, int]
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
