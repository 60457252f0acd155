"""Sensitivities: the damage of each layer alone at each width, all other layers in FP32."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from objectives.bank import FP32_WIDTH
from objectives.errors import InputError
from objectives.files import write_text
from objectives.layers import WIDTHS, Layer
from objectives.problem import Problem
from objectives.scores import divergences
from search.allocation import Damages

MEASURED_WIDTHS = (2, 3, 4)
"""Where damage is large enough to matter; from 5 bits on it follows the quantisation error of the layer."""

_SAVE_EVERY_S = 10.0
_COLUMNS = ("layer", "width", "damage", "source")

Measured = dict[tuple[str, int], float]
"""Damage in nats a sentence by layer name and width."""


@dataclass(frozen=True)
class Sensitivities:
    """Damage of each layer alone at each width.

    Attributes:
        damages: ``(n_layers, n_widths)``, nats a sentence, falling with the width.
        measured: ``(n_layers, n_widths)``, whether it was measured rather than completed.
    """

    damages: Damages
    measured: npt.NDArray[np.bool_]


def measure(
    problem: Problem,
    cache: Path,
    widths: Sequence[int] = MEASURED_WIDTHS,
    show: Callable[[int, int], None] | None = None,
    keep_going: Callable[[], bool] = lambda: True,
) -> Sensitivities | None:
    """Measure each layer alone at some widths and complete the others.

    From the top layer down, on remembered hidden states of the FP32 model, so that a layer costs only what lies above
    it. What is measured is kept in ``cache`` by the problem's fingerprint and never measured again, also when this is
    interrupted.

    Args:
        problem: the model and its sentences.
        cache: a directory.
        widths: to be measured, at least one.
        show: told how many are done and how many there are.
        keep_going: asked before each; where it says no, what was measured is kept and None is returned.
    """
    path = cache / f"sensitivity-{_digest(problem.fingerprint)}.csv"
    known = read_measured(path, problem.layers) if path.is_file() else {}
    wanted = [(index, width) for index in reversed(range(len(problem.layers))) for width in sorted(widths)]
    missing = [(index, width) for index, width in wanted if (problem.layers[index].name, width) not in known]
    evaluator = problem.evaluator
    if missing:
        fp32 = (FP32_WIDTH,) * len(problem.layers)
        evaluator.log_odds(fp32, remember=True)
        saved = time.monotonic()
        try:
            for done, (index, width) in enumerate(missing):
                if not keep_going():
                    return None
                if show is not None:
                    show(len(wanted) - len(missing) + done, len(wanted))
                log_odds = evaluator.log_odds((*fp32[:index], width, *fp32[index + 1 :]))
                known[problem.layers[index].name, width] = float(np.mean(divergences(log_odds, problem.fp32_log_odds)))
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    write_measured(path, known)
                    saved = time.monotonic()
        finally:
            write_measured(path, known)
    return complete(problem.layers, known, widths, weight_errors(problem))


def complete(
    layers: Sequence[Layer], measured: Measured, widths: Sequence[int], errors: npt.NDArray[np.float64]
) -> Sensitivities:
    """Fill the widths that were not measured and make damages fall with the width.

    While damage is small it is quadratic in the weights' change (the first-order term vanishes in expectation), so it
    follows the squared quantisation error from the nearest measured width.

    Args:
        layers: the searchable layers.
        measured: at least every layer at every one of ``widths``.
        widths: those to build on.
        errors: squared quantisation error of each layer at each width, ``(n_layers, n_widths)``.
    """
    damages = np.empty((len(layers), len(WIDTHS)))
    known = np.zeros(damages.shape, dtype=bool)
    for row, layer in enumerate(layers):
        for column, width in enumerate(WIDTHS):
            nearest = min(widths, key=lambda other: (abs(other - width), other))
            known[row, column] = nearest == width
            base = errors[row, WIDTHS.index(nearest)]
            ratio = errors[row, column] / base if base > 0 else 0.0
            damages[row, column] = measured[layer.name, nearest] * (1.0 if nearest == width else ratio)
    falling = np.maximum.accumulate(damages[:, ::-1], axis=1)[:, ::-1]
    return Sensitivities(falling, known)


def weight_errors(problem: Problem) -> npt.NDArray[np.float64]:
    """Return the squared error of each layer's quantised weights at each width, ``(n_layers, n_widths)``."""
    bank = problem.evaluator.bank
    return np.array([[bank.squared_error(layer, width) for width in WIDTHS] for layer in problem.layers])


def to_csv(layers: Sequence[Layer], sensitivities: Sensitivities) -> str:
    """Return the whole table as CSV text, a row for each layer and width."""
    return _csv(
        (
            layer.name,
            width,
            repr(float(sensitivities.damages[row, column])),
            "measured" if sensitivities.measured[row, column] else "completed",
        )
        for row, layer in enumerate(layers)
        for column, width in enumerate(WIDTHS)
    )


def write_measured(path: Path, measured: Measured) -> None:
    """Write what has been measured."""
    write_text(path, _csv((name, width, repr(damage), "measured") for (name, width), damage in measured.items()))


def read_measured(path: Path, layers: Sequence[Layer]) -> Measured:
    """Read what has been measured.

    Raises:
        InputError: the file is damaged; it says to delete it.
    """
    names = {layer.name for layer in layers}
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
        measured = {(name, int(width)): float(damage) for name, width, damage, _ in rows}
        sound = tuple(header) == _COLUMNS and all(
            name in names and width in WIDTHS and math.isfinite(damage) and damage >= 0
            for (name, width), damage in measured.items()
        )
    except (OSError, UnicodeDecodeError, csv.Error, ValueError):
        sound = False
    if not sound:
        raise InputError(f"{path}: is damaged; delete it, and the sensitivities are measured again")
    return measured


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def _digest(fingerprint: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]
