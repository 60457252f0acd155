"""A run from Python: its tables as data frames, its bit maps, and quantised models.

::

    from search.api import open_run

    run = open_run("runs/x")
    run.front[["label", "nominal_compression", "damage"]]
    run.bit_map("best@8x")                       # or a trial's number
    classifier = run.checkpoint("best@8x")       # in memory; or give a directory
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import pandas as pd

from objectives.errors import InputError
from objectives.loading.models import Classifier
from objectives.problem import Problem
from objectives.quantization.quantized_model import QuantizedModel
from results.export.bit_map_files import bit_map_provenance
from results.export.model_card import FIGURES, card_figures
from results.outcome import Outcome, Trial
from results.report.tables import front_table, picks_table, trials_table
from results.statistics.analysis import Analysis, analyse
from results.statistics.picks import pick, trial_by_number
from search.run.checkpoints import check_format, export_checkpoint, problem_of_run
from search.run.reporting import read_outcome
from search.run.run_directory import RunDirectory

FORMATS = ("packed", "torchao", "onnx")


@dataclass(frozen=True)
class Run:
    """A run as it was when it was opened; open it again to see what a running search has found since.

    Attributes:
        path: its directory.
        outcome: all that its study holds.
    """

    path: Path
    outcome: Outcome

    @cached_property
    def analysis(self) -> Analysis:
        """The front and the picks with their statistics; computed at the first use, which takes seconds."""
        return analyse(self.outcome)

    @cached_property
    def front(self) -> pd.DataFrame:
        """The front, from the largest map to the smallest, as ``front.csv``."""
        return front_table(self.analysis)

    @cached_property
    def picks(self) -> pd.DataFrame:
        """The picks of the report, as ``picks.csv``."""
        return picks_table(self.analysis)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Every trial by number, as ``trials.csv``; ``bits`` has one digit a layer."""
        return trials_table(self.outcome)

    def bit_map(self, choice: str | int) -> dict[str, int]:
        """Return the width of each layer in bits, by the layer's name, in the model's order.

        Args:
            choice: a pick such as ``best@8x``, ``smallest@0.02`` or ``knee``, or a trial's number.

        Raises:
            InputError: no map answers the request, or no trial has that number.
        """
        names = (layer.name for layer in self.outcome.footprint.layers)
        return dict(zip(names, self._trial(choice).bit_map, strict=True))

    @overload
    def checkpoint(self, choice: str | int) -> Classifier: ...

    @overload
    def checkpoint(self, choice: str | int, directory: str | os.PathLike[str], format_: str = "packed") -> Path: ...

    def checkpoint(
        self, choice: str | int, directory: str | os.PathLike[str] | None = None, format_: str = "packed"
    ) -> Classifier | Path:
        """Return a map's quantised classifier, or write it as a checkpoint and return its directory.

        The run's model and data must be where they were. They are loaded at the first call and kept.

        Args:
            choice: as for :meth:`bit_map`.
            directory: a new directory to write; None for the classifier with decoded weights, FP32, in memory.
            format_: ``packed``, ``torchao`` or ``onnx``.

        Raises:
            InputError: no map answers, the model or data have changed or moved, or the format does not fit.
            InputError: the directory exists.
        """
        trial = self._trial(choice)
        if format_ not in FORMATS:
            raise InputError(f"format_ must be packed, torchao or onnx, not {format_!r}")
        if directory is None:
            problem = self._problem
            quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, trial.bit_map)
            decoded: Any = quantized.decoded(problem.network)  # a copy of the model, so of its class
            return replace(problem.classifier, model=decoded)
        place = Path(directory)
        if place.exists():
            raise InputError(f"{place}: exists already; give a new directory")
        check_format(format_, self.outcome.footprint)
        provenance = bit_map_provenance(self.outcome, trial) | {FIGURES: card_figures(self.outcome, trial)}
        export_checkpoint(self._problem, trial.bit_map, provenance, place, format_)
        return place

    def _trial(self, choice: str | int) -> Trial:
        if isinstance(choice, str):
            return pick(self.outcome, choice)
        return trial_by_number(self.outcome, int(choice))

    @cached_property
    def _settings(self) -> Mapping[str, Any]:
        return RunDirectory(self.path).read_settings()

    @cached_property
    def _problem(self) -> Problem:
        return problem_of_run(self._settings, self.outcome.fp32_log_odds)


def open_run(path: str | os.PathLike[str], margin: float | None = None) -> Run:
    """Open a run for reading; its search may still be running.

    Args:
        path: the run directory.
        margin: the loss of the metric that you accept; None for the run's.

    Raises:
        InputError: there is no run, it cannot be read, or the margin is out of range.
    """
    directory = Path(path).expanduser()
    return Run(directory, read_outcome(RunDirectory(directory), margin))
