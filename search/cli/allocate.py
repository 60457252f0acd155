"""The command that answers with one map at once: sensitivities and the exact knapsack, without a search."""

# Commands import torch, transformers and optuna only when they run: the imports take seconds, and --help needs none.

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from objectives.cache import cache_directory
from objectives.errors import InputError
from objectives.loading import AUTO
from search.allocation.knapsack import Source
from search.cli.options import ProfileName, console, takes_settings
from search.run.profile import DATA_SETTINGS, Profile, changed_data_settings, given_as, resolve_profile

if TYPE_CHECKING:
    from objectives.layers import BitMap
    from objectives.problem import Evaluation, Problem

log = logging.getLogger("bitfront")

FORMATS = ("text", "json", "packed", "torchao", "onnx")
_NEEDED_LATER = ("model", "data", "quantizer", "group_size")  # to score a bit map file


@takes_settings("model", "data", *DATA_SETTINGS, "metric", "quantizer", "group_size", "device", "size", "widths")
def allocate(
    compression: Annotated[
        float, typer.Option(min=1.0, max=1e6, help="At least this many times smaller than FP32, as --size counts.")
    ],
    out: Annotated[Path, typer.Option(help="What to write: a new directory, or a file for text and json.")],
    format_: Annotated[
        str, typer.Option("--format", help="packed, torchao or onnx for a checkpoint; text or json for the bit map.")
    ] = "packed",
    sensitivity: Annotated[
        str, typer.Option(help="Damage of each layer alone: gradient, or measured: slower, and better at 2 and 3 bits.")
    ] = "gradient",
    profile: ProfileName = None,
    **flags: Any,
) -> None:
    """Give one good bit map now: the exact knapsack on the layers' sensitivities, scored once and written.

    It takes minutes and keeps no study. `search` looks for better maps, at every size.
    """
    if format_ not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)}, not {format_!r}")
    if sensitivity not in get_args(Source):
        raise InputError(f"--sensitivity must be gradient or measured, not {sensitivity!r}")
    if out.exists():
        raise InputError(f"{out}: exists already; give --out a new path")
    # Scored as a search scores its final maps; a holdout set and the settings of a sampler play no part.
    fixed = {"min_compression": compression, "sensitivity": sensitivity, "precision": "fp32", "confirm": "none"}
    settings = resolve_profile(profile or "miniature", flags | fixed | {"workers": 1, "sampler": "guided"})
    cache = cache_directory()  # raises at once if there is no place for it
    with console.waiting("starting"):
        from search.allocation.baselines import knapsack_map
        from search.allocation.sensitivity import measure
        from search.cli.scoring import score_lines, size_lines
        from search.cli.terminal import log_to_console, progress_display
        from search.run.checkpoints import check_format
        from search.run.progress import Phase
        from search.run.signals import interrupts
        from search.run.worker import constraint_of, load_searched_problem

    log_to_console(console)
    seconds: dict[str, float] = {}
    with interrupts():
        with _timed("model", seconds):
            problem = load_searched_problem(settings, log.info, check_sizes=lambda sizes: check_format(format_, sizes))
        with _timed("sensitivities", seconds), progress_display(console) as display:
            sensitivities = measure(
                problem,
                cache,
                cast(Source, sensitivity),
                lambda *phase: display.phase(Phase(*phase)),
                widths=settings.widths,
            )
        assert sensitivities is not None
        with _timed("knapsack", seconds):
            bit_map = knapsack_map(sensitivities.damages, constraint_of(settings, problem.footprint))
        with _timed("evaluation", seconds):
            evaluation = problem.confirm(bit_map)
        with _timed("writing", seconds):
            written = _write(problem, settings, bit_map, evaluation, out, format_)
    typer.echo(f"knapsack for {settings.model}, {len(problem.labels)} validation sentences of {settings.data}")
    typer.echo(f"quantiser    {problem.fingerprint['quantizer']}")
    for line in [*score_lines(problem, evaluation), *size_lines(problem.footprint.figures(bit_map))]:
        typer.echo(line)
    steps = ", ".join(f"{name} {_seconds(spent)}" for name, spent in seconds.items())
    typer.echo(f"time         {_seconds(sum(seconds.values()))}: {steps}")
    typer.echo(f"written: {out}{written}")


def _write(
    problem: Problem, settings: Profile, bit_map: BitMap, evaluation: Evaluation, out: Path, format_: str
) -> str:
    """Write the map or its checkpoint, and return what to say after its path."""
    from objectives.bit_maps import to_json, to_text
    from objectives.files import write_text
    from results.formatting import command
    from search.run.checkpoints import export_checkpoint
    from search.run.logs import provenance as facts_of

    provenance = {
        "model": problem.model,
        "data": problem.data,
        "sentences": len(problem.labels),
        "label": f"knapsack {problem.footprint.compression(bit_map, settings.size):.2f}x",
        "origin": "knapsack",
        "sensitivity": settings.sensitivity,
        "size_axis": settings.size,
        "min_compression": settings.min_compression,
        "widths": list(settings.widths),
        **problem.footprint.figures(bit_map),
        "scores": evaluation.scores.record(),
        "fp32_scores": problem.fp32.record(),
        "facts": {name: fact for name, fact in facts_of(settings, problem) if name != "sampler"},
    }
    if format_ not in ("text", "json"):
        return f": {export_checkpoint(problem, bit_map, provenance, out, format_)}"
    layers = problem.layers
    write_text(out, to_text(layers, bit_map) if format_ == "text" else to_json(layers, bit_map, provenance))
    needed = {name: getattr(settings, name) for name in _NEEDED_LATER} | changed_data_settings(settings.to_dict())
    needed |= {} if settings.metric == AUTO else {"metric": settings.metric}
    words = [word for name, value in needed.items() for word in given_as(name, value)]
    return f"\nnext: {command('evaluate', '--bitmap', out, *words)}"


def _seconds(spent: float) -> str:
    return f"{spent:.1f} s"


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long a step took."""
    began = time.monotonic()
    yield
    seconds[step] = time.monotonic() - began
