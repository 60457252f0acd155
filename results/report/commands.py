"""The commands that export maps of a run, each to be pasted as it is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from objectives.packing.footprint import Footprint
from results.export.bit_map_files import bit_map_path
from results.formatting import command
from results.outcome import Outcome, Trial
from results.report.tables import request_text, request_with_margin
from results.statistics.analysis import Selection


@dataclass(frozen=True)
class PickExport:
    """How to take one pick away.

    Attributes:
        request: as ``export --pick`` takes it.
        heading: the request as people read it.
        trial: the pick.
        files: its bit map in the run directory, by ``text`` and ``json``.
        commands: by ``text``, ``json``, and the formats of checkpoints that can hold the model.
    """

    request: str
    heading: str
    trial: Trial
    files: dict[str, str]
    commands: dict[str, str]


def checkpoint_formats(footprint: Footprint) -> tuple[str, ...]:
    """Return the formats of checkpoints that can hold a model's codes: a codebook fits into packed ones only."""
    return ("packed",) if footprint.scheme.kind == "codebook" else ("packed", "torchao", "onnx")


def pick_exports(selection: Selection, run: str) -> list[PickExport]:
    """Return how to export each pick; the commands name the margin, which may differ from the run's.

    Args:
        selection: of the run.
        run: its directory, as commands name it; checkpoints are written beside it.
    """
    outcome = selection.outcome
    return [
        _pick_export(outcome, headline.request, headline.trial, run)
        for headline in selection.headlines
        if headline.trial is not None
    ]


def _pick_export(outcome: Outcome, request: str, trial: Trial, run: str) -> PickExport:
    exact = request_with_margin(outcome, request)
    chosen = ("export", "--run", run, "--pick", exact, "--format")
    commands = {format_: command(*chosen, format_) for format_ in ("text", "json")}
    for format_ in checkpoint_formats(outcome.footprint):
        commands[format_] = command(*chosen, format_, "--out", f"{run}-{exact.replace('@', '-')}-{format_}")
    files = {"text": bit_map_path(outcome, trial, "txt"), "json": bit_map_path(outcome, trial, "json")}
    return PickExport(exact, request_text(outcome, request), trial, files, commands)


def trial_commands(outcome: Outcome, run: str) -> dict[str, list[str]]:
    """Return the command that exports a trial as a checkpoint, by format, as the parts around the trial's number."""
    number = next(str(number) for number in count(10**6) if str(number) not in run)
    return {
        format_: command(
            *("export", "--run", run, "--trial", number, "--format", format_),
            *("--out", f"{run}-trial-{number}-{format_}"),
        ).split(number)
        for format_ in checkpoint_formats(outcome.footprint)
    }
