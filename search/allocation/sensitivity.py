"""Sensitivities: what quantising each layer alone at each width does, all other layers in FP32."""

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
"""Where a layer's change is too large for the first order; from 4 bits on that is within a few percent."""

log = logging.getLogger("bitfront")

_SAVE_EVERY_S = 10.0
_HOPELESS = 20.0  # nats: more damage than any map that is worth a look


@dataclass(frozen=True)
class Sensitivities:
    """The effect of each layer alone at each width.

    Attributes:
        shifts: what it adds to each sentence's log-odds, in nats, ``(n_layers, n_widths, n_sentences)``.
        damages: ``(n_layers, n_widths)``, nats a sentence, made to fall with the width.
        measured: ``(n_layers, n_widths)``, whether it was evaluated rather than taken from the gradient.
    """

    shifts: npt.NDArray[np.float32]
    damages: Damages
    measured: npt.NDArray[np.bool_]

    @classmethod
    def from_shifts(
        cls, shifts: npt.NDArray[np.float32], measured: npt.NDArray[np.bool_], fp32_log_odds: LogOdds
    ) -> Sensitivities:
        """Take the damages from the shifts."""
        alone = divergences(fp32_log_odds + shifts, fp32_log_odds).mean(axis=-1)
        falling = np.maximum.accumulate(alone[:, ::-1], axis=1)[:, ::-1]
        return cls(shifts, falling, measured)


def measure(
    problem: Problem,
    cache: Path,
    source: Source = "measured",
    show: Callable[[int, int], None] = lambda done, wanted: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Sensitivities | None:
    """Return the sensitivities, from the gradient and, with ``measured``, from evaluations of the widths that need it.

    Evaluated from the top layer down, on remembered hidden states of the FP32 model, so that a layer costs only what
    lies above it. What is known is kept in ``cache`` by the problem's fingerprint and never made again, also when this
    is interrupted.

    Args:
        problem: the model and its sentences.
        cache: a directory.
        source: where they come from.
        show: told how many evaluations are done and how many there are.
        should_stop: asked before each; once true, what was measured is kept and None is returned.

    Raises:
        InputError: the file in the cache is damaged; it says to delete it.
    """
    bank = problem.evaluator.bank
    # What was held back to confirm on has no part in this.
    identity = {key: value for key, value in problem.fingerprint.items() if key != "confirmation"}
    path = cache / f"sensitivity-{short_digest(json.dumps(identity, sort_keys=True))}.npz"
    wanted = [(index, width) for index in reversed(range(len(problem.layers))) for width in MEASURED_WIDTHS]
    if source == "gradient":
        wanted = []
    show(0, len(wanted))
    if path.is_file():
        gradient, shifts, measured = _read(path, (len(problem.layers), len(WIDTHS), len(problem.labels)))
    else:
        made = first_order_shifts(problem.network, problem.layers, problem.token_ids, bank, should_stop)
        if made is None:
            return None
        gradient = _finite(made, problem.fp32_log_odds)
        shifts, measured = gradient.copy(), np.zeros(made.shape[:2], dtype=np.bool_)
        _write(path, gradient, shifts, measured)
    missing = [(index, width) for index, width in wanted if not measured[index, WIDTHS.index(width)]]
    if missing:
        fp32 = (FP32_WIDTH,) * len(problem.layers)
        problem.evaluator.log_odds(fp32, remember=True)
        saved = time.monotonic()
        try:
            for done, (index, width) in enumerate(missing, start=len(wanted) - len(missing)):
                if should_stop():
                    return None
                show(done, len(wanted))
                if measured[index, WIDTHS.index(width)]:
                    continue  # by another search, meanwhile
                log_odds = problem.evaluator.log_odds((*fp32[:index], width, *fp32[index + 1 :]))
                if not np.isfinite(log_odds).all():
                    log.warning("%s at %d bits alone has no finite scores", problem.layers[index].name, width)
                shift = _finite(log_odds - problem.fp32_log_odds, problem.fp32_log_odds)
                shifts[index, WIDTHS.index(width)] = shift
                measured[index, WIDTHS.index(width)] = True
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    _write(path, gradient, shifts, measured)
                    saved = time.monotonic()
        finally:
            problem.evaluator.forget()  # half a gigabyte that nobody needs all night
            give_back_freed()
            _write(path, gradient, shifts, measured)
    if source == "gradient":
        shifts, measured = gradient, np.zeros_like(measured)
    return Sensitivities.from_shifts(shifts, measured, problem.fp32_log_odds)


def _finite(shifts: npt.NDArray[np.float32], fp32_log_odds: LogOdds) -> npt.NDArray[np.float32]:
    """Return shifts ``(..., n_sentences)`` whose entries that are not finite turn the FP32 model's decision round."""
    hopeless = -fp32_log_odds - np.copysign(_HOPELESS, fp32_log_odds)
    return np.asarray(np.where(np.isfinite(shifts), shifts, hopeless), dtype=np.float32)


def _write(
    path: Path,
    gradient: npt.NDArray[np.float32],
    shifts: npt.NDArray[np.float32],
    measured: npt.NDArray[np.bool_],
) -> None:
    """Write what is known, after taking over what another search of the same problem has measured meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with process_lock(path.with_name(f".{path.name}.lock")):
        if path.is_file():
            _, theirs, known = _read(path, shifts.shape)
            new = known & ~measured
            shifts[new], measured[new] = theirs[new], True
        with replacing(path) as temporary:
            np.savez(temporary, gradient=gradient, shifts=shifts, measured=measured)


def _read(
    path: Path, shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
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
        raise InputError(f"{path}: is damaged; delete it, and the sensitivities are measured again")
    return gradient, shifts, measured
