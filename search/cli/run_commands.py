"""Commands on a run: search, status, report, export."""

# Commands import torch, transformers and optuna only when they run: the imports take seconds, and --help needs none.

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from objectives.cache import cache_directory
from objectives.errors import InputError, printable
from objectives.layers import BitMap
from results.export.onnx import Activations
from search.cli.distill import Pick, TrialNumber
from search.cli.options import BitMapFile, ProfileName, Run, console, help_text, takes_settings
from search.run.profile import (
    PLACES,
    SETTINGS,
    changed_data_settings,
    given_as,
    only_limit,
    places_from_here,
    resolve_profile,
)

FP32_PICK = "fp32"
"""What `export --pick` calls the FP32 model."""

_CHECKPOINTS = ("packed", "torchao", "onnx")
_MAP_NEEDS = ("model", "data", "quantizer", "group_size")  # to be scored as it was searched


@takes_settings(*SETTINGS)
def search(
    run: Annotated[Path, typer.Option("--run", help="Directory for the run's files; an existing run continues.")],
    profile: ProfileName = None,
    storage: Annotated[
        str, typer.Option(envvar="BITFRONT_STORAGE", help="Shared database: postgresql+psycopg://USER@HOST/DATABASE.")
    ] = "",
    notify: Annotated[
        str, typer.Option(help="Shell command to run at the end; it gets BITFRONT_RUN and BITFRONT_STATE.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the search would do in which time, by quick measurements; end.")
    ] = False,
    polish: Annotated[bool, typer.Option("--polish", hidden=True)] = False,  # the older name of --distill scales
    **flags: Any,
) -> None:
    """Search for the best bit maps of every size; give the same --run again to continue.

    Each setting comes from its option, else from the continued run, else from the profile, else from its default.
    """
    from search.run.run_directory import RunDirectory

    flags |= only_limit(flags["trials"], flags["hours"])
    flags["distill"] = flags["distill"] or ("scales" if polish else None)
    directory = RunDirectory(run)
    if profile is None and directory.exists():
        # A continued run keeps its settings, except those given as flags.
        flags = directory.read_settings()["profile"] | {key: value for key, value in flags.items() if value is not None}
    settings = resolve_profile(profile or "miniature", flags)
    if settings.quantizer == "calibrated" or settings.sensitivity != "none" or settings.workers > 1:
        cache_directory()  # raises at once if there is no place for it
    directory.check_settings(settings)
    given = {name: getattr(settings, name) for name in PLACES}

    with console.waiting("starting"):  # after all that is quick to check: a mistake is reported at once
        from results.formatting import command
        from search.cli.notify import notifying
        from search.cli.terminal import log_to_console, progress_display, summary
        from search.run.checkpoints import located
        from search.run.loop import run_search
        from search.run.progress import BY_SIGNAL
        from search.run.signals import interrupts

    log_to_console(console)
    if directory.exists():  # it may be continued from another directory
        recorded = directory.read_settings()
        changed = {name: place for name, place in given.items() if place != recorded["profile"][name]}
        found = located(recorded, changed)
        settings = replace(settings, **{name: getattr(found, name) for name in PLACES})

    if dry_run:
        from search.plan import plan, plan_lines

        with interrupts():
            for line in plan_lines(settings, plan(settings, directory)):
                typer.echo(line)
        return

    def stopped() -> bool:
        return bool(directory.read_settings()["start"].get("by") == BY_SIGNAL)

    with notifying(notify, run, stopped), interrupts(), progress_display(console) as display:
        analysis = run_search(settings, directory, display, storage, given)
    typer.echo(summary(analysis, run))
    if stopped() or not any(headline.trial for headline in analysis.headlines):  # there may be nothing to export
        typer.echo(f"continue: {command('search', '--run', run)}")


def status(run: Run) -> None:
    """Show how far a search is, or how it ended; works from any terminal."""
    from search.cli.status import status_lines
    from search.run.run_directory import RunDirectory

    for line in status_lines(RunDirectory(run)):
        typer.echo(line)


def report(
    run: Annotated[Path | None, typer.Option("--run", help="Directory of the run.")] = None,
    margin: Annotated[
        float | None, typer.Option(help=help_text(SETTINGS["margin"]["description"], "the run's"))
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Compare several runs on one plot.")] = False,
    runs: Annotated[list[Path] | None, typer.Argument(help="With --compare: directories of the runs.")] = None,
    out: Annotated[Path, typer.Option(help="With --compare: directory to write.")] = Path("comparison"),
    format_: Annotated[
        str, typer.Option("--format", help="What to print: html, the verdict and where the page is; or md, json.")
    ] = "html",
) -> None:
    """Write the tables, plots, report and bit maps of a run again, or compare several runs.

    All files are written in any format; md and json print the report instead of its summary.
    """
    if format_ not in ("html", "md", "json"):
        raise InputError(f"--format must be html, md or json, not {format_!r}")
    if compare and format_ != "html":
        raise InputError("--compare writes a page only; leave --format out")
    if compare:
        from search.cli.comparing import compare_runs

        for warning in compare_runs([*([run] if run else []), *(runs or [])], margin, out):
            console.message(f"note: {warning}", "yellow")
        typer.echo(f"comparison: {out / 'comparison.html'}")
        return
    if run is None or runs:
        raise InputError("give one run, as --run runs/x, or several to compare, as --compare runs/x runs/y")
    from results.report.deployed import read_deployed
    from results.report.distilled import read_distilled
    from results.report.document import as_json, report_document
    from results.report.report import write_report
    from results.statistics.analysis import analyse
    from search.cli.terminal import summary
    from search.run.reporting import read_outcome, running_line
    from search.run.run_directory import RunDirectory

    directory = RunDirectory(run)
    analysis = analyse(read_outcome(directory, margin))
    trials = len(analysis.outcome.trials)
    write_report(analysis, run, running_line(directory, trials) if directory.is_locked() else "")
    if format_ == "md":
        typer.echo((run / "report.md").read_text(encoding="utf-8"), nl=False)
    elif format_ == "json":
        settings = directory.read_settings()["profile"] | {"margin": analysis.outcome.margin}
        deployed, distilled = read_deployed(run, analysis.outcome.metric), read_distilled(run)
        typer.echo(as_json(report_document(analysis, str(run), settings, deployed, distilled), indent=1))
    else:
        typer.echo(summary(analysis, run))


@takes_settings(*PLACES, default="the run's")
def export(
    run: Run,
    pick: Pick = None,
    trial: TrialNumber = None,
    bitmap: BitMapFile = None,
    distilled: Annotated[
        bool, typer.Option("--distilled", "--polished", help="Take the checkpoint that `distill` made.")
    ] = False,
    format_: Annotated[
        str, typer.Option("--format", help="text or json for the bit map; packed, torchao or onnx for a checkpoint.")
    ] = "text",
    activations: Annotated[
        str,
        typer.Option(help="With --format onnx: fp32, which is exact, or int8, which is several times faster."),
    ] = "fp32",
    out: Annotated[
        Path | None,
        typer.Option(help=help_text("File to write; for a checkpoint, a new directory.", "standard output")),
    ] = None,
    **places: Any,
) -> None:
    """Export one bit map of a run, as a file or as a checkpoint.

    A checkpoint needs the run's model and data; name them if they have moved since the search.
    """
    from objectives.bit_maps import read_bit_map, to_json, to_text
    from objectives.files import write_text
    from objectives.loading.tasks import DataOptions
    from objectives.metrics import metric_of
    from results.export.bit_map_files import bit_map_provenance
    from results.formatting import command
    from results.statistics.picks import pick as pick_map
    from results.statistics.picks import trial_by_number
    from search.cli.terminal import log_to_console
    from search.run.reporting import read_outcome
    from search.run.run_directory import RunDirectory

    if format_ not in ("text", "json", *_CHECKPOINTS):
        raise InputError(f"--format must be text, json, packed, torchao or onnx, not {format_!r}")
    if activations not in get_args(Activations):
        raise InputError(f"--activations must be fp32 or int8, not {activations!r}")
    if format_ != "onnx" and (activations != "fp32" or pick == FP32_PICK):
        raise InputError("--activations int8 and --pick fp32 need --format onnx")
    is_checkpoint = format_ in _CHECKPOINTS
    if is_checkpoint and out is None:
        raise InputError(f"a {format_} checkpoint needs a directory to be written to; give --out DIR")
    if sum(choice is not None for choice in (pick, trial, bitmap)) != 1:
        raise InputError("give one map to export: --pick best@8x, --trial N or --bitmap FILE")
    if distilled and (bitmap is not None or pick == FP32_PICK or not is_checkpoint):
        raise InputError(
            "--distilled needs --pick or --trial, and --format packed, torchao or onnx; distillation does not change a "
            "bit map"
        )
    if is_checkpoint and out is not None and out.exists():
        raise InputError(f"{out}: exists already; give --out a new directory")
    directory = RunDirectory(run)
    settings = directory.read_settings()
    outcome = read_outcome(directory)
    layers = outcome.footprint.layers
    if is_checkpoint:
        from search.run.checkpoints import check_format

        check_format(format_, outcome.footprint, codes=pick != FP32_PICK)  # before anything is loaded
    bit_map: BitMap | None
    if bitmap is not None:
        bit_map = read_bit_map(bitmap, layers)
        provenance: dict[str, Any] = {"bitmap": printable(bitmap.name), **outcome.footprint.figures(bit_map)}
    elif pick == FP32_PICK:
        bit_map, provenance = None, {}
    else:
        chosen = pick_map(outcome, pick) if pick is not None else trial_by_number(outcome, trial or 0)
        if distilled:
            from search.run.checkpoints import export_distilled

            assert out is not None
            message = export_distilled(run, outcome, chosen, out, format_, cast(Activations, activations))
            typer.echo(f"written: {out}: {message}")
            return
        bit_map, provenance = chosen.bit_map, bit_map_provenance(outcome, chosen)
        if is_checkpoint:
            from results.export.model_card import FIGURES, card_figures

            provenance |= {FIGURES: card_figures(outcome, chosen)}
    if is_checkpoint:
        from search.run.checkpoints import export_checkpoint, problem_of_run

        assert out is not None
        log_to_console(console)
        problem = problem_of_run(settings, outcome.fp32_log_odds, places)
        message = export_checkpoint(problem, bit_map, provenance, out, format_, cast(Activations, activations))
        typer.echo(f"written: {out}: {message}")
        if bitmap is None and format_ != "torchao":
            typer.echo(f"with {command('--run', run).removeprefix('bitfront ')} too, its figures go into the report")
        return
    assert bit_map is not None
    text = to_text(layers, bit_map) if format_ == "text" else to_json(layers, bit_map, provenance)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)
        said = {name: place for name, place in places.items() if place is not None}
        own = {name: settings["profile"][name] for name in ("model", "data")}
        profile = settings["profile"] | places_from_here(own, settings["resolved"]) | said
        searched = [word for name in _MAP_NEEDS for word in given_as(name, profile[name])]
        searched += [word for name in changed_data_settings(profile) for word in given_as(name, profile[name])]
        if outcome.metric != metric_of(outcome.head, of_task=DataOptions(profile["task"]).metric):
            searched += given_as("metric", outcome.metric)
        typer.echo(f"written: {out}\nnext: {command('evaluate', '--bitmap', out, *searched)}")
