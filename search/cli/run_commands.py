"""Commands on a run: search, status, report, export, polish."""

# Commands import what they need when they run: torch, transformers and optuna take seconds, and --help needs none.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from objectives.errors import InputError
from search.cli.options import ProfileName, ReadBitMap, Run, console, takes_settings
from search.run.profile import SETTINGS, only_limit, resolve_profile


@takes_settings(*SETTINGS)
def search(
    run: Run,
    profile: ProfileName = None,
    storage: Annotated[
        str, typer.Option(envvar="BITFRONT_STORAGE", help="postgresql+psycopg://... of a study that machines share.")
    ] = "",
    notify: Annotated[str, typer.Option(help="A command to run when the search ends, however it ends.")] = "",
    **flags: Any,
) -> None:
    """Search for the front; start the same run again to continue it.

    A setting comes from its option, else from the run that is continued, else from the profile, else it is the default.
    """
    from search.run.run_directory import RunDirectory

    flags |= only_limit(flags["trials"], flags["hours"])
    directory = RunDirectory(run)
    if profile is None and directory.exists():
        # Continuing: what the run was started with, where the flags do not say otherwise.
        flags = directory.read_settings()["profile"] | {key: value for key, value in flags.items() if value is not None}
    settings = resolve_profile(profile or "miniature", flags)

    with console.status("starting"):  # now that nothing is wrong with what was asked
        from search.cli.notify import notifying
        from search.cli.terminal import answer, log_to_console, progress_display
        from search.run.loop import run_search
        from search.run.progress import BY_SIGNAL
        from search.run.signals import interrupts

    log_to_console(console)

    def stopped() -> bool:
        return bool(directory.read_settings()["start"].get("by") == BY_SIGNAL)

    with notifying(notify, run, stopped), interrupts(), progress_display(console) as display:
        analysis = run_search(settings, directory, display, storage)
    typer.echo(answer(analysis, run))


def status(run: Run) -> None:
    """Say how far a search is, from any terminal, or where it ended."""
    from search.cli.status import status_lines
    from search.run.run_directory import RunDirectory

    for line in status_lines(RunDirectory(run)):
        typer.echo(line)


def report(
    run: Annotated[Path | None, typer.Option("--run", help="The run's directory.")] = None,
    margin: Annotated[
        float | None, typer.Option(help=SETTINGS["margin"]["description"], show_default="the run's")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Put the runs named after it on one plot.")] = False,
    runs: Annotated[list[Path] | None, typer.Argument(help="With --compare: the runs' directories.")] = None,
    out: Annotated[Path, typer.Option(help="With --compare: the directory to write.")] = Path("comparison"),
) -> None:
    """Write the tables, plots, report and bit maps of a run anew, or compare several runs."""
    if compare:
        from search.cli.comparing import compare_runs

        for warning in compare_runs([*([run] if run else []), *(runs or [])], margin, out):
            console.print(f"note: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        typer.echo(f"comparison: {out / 'comparison.html'}")
        return
    if run is None or runs:
        raise InputError("say which run: --run runs/x; or several to compare: --compare runs/x runs/y")
    from results.report.report import write_report
    from results.statistics.analysis import analyse
    from search.cli.terminal import answer
    from search.run.reporting import outcome_of_run
    from search.run.run_directory import RunDirectory
    from search.study.reading import load_study

    directory = RunDirectory(run)
    directory.read_settings()
    analysis = analyse(outcome_of_run(load_study(directory.place()), directory, margin))
    write_report(analysis, run)
    typer.echo(answer(analysis, run))


def export(
    run: Run,
    pick: Annotated[str | None, typer.Option(help="best@8x, smallest@margin, smallest@0.02, or knee.")] = None,
    trial: Annotated[int | None, typer.Option(help="A trial by its number.")] = None,
    bitmap: ReadBitMap = None,
    polished: Annotated[bool, typer.Option("--polished", help="As `polish` left it, not as it was searched.")] = False,
    format_: Annotated[
        str, typer.Option("--format", help="text, json, packed: a checkpoint of that size, or torchao: one for it.")
    ] = "text",
    out: Annotated[
        Path | None, typer.Option(help="The file to write, standard output without it; the directory of a checkpoint.")
    ] = None,
) -> None:
    """Export one bit map of a run, as a file or as a checkpoint."""
    from objectives.bit_maps import read_bit_map, to_json, to_text
    from objectives.files import write_text
    from results.export.bit_map_files import bit_map_provenance
    from results.statistics.picks import pick as pick_map
    from results.statistics.picks import trial_by_number
    from search.cli.terminal import log_to_console
    from search.run.reporting import outcome_of_run
    from search.run.run_directory import RunDirectory
    from search.study.reading import load_study

    if format_ not in ("text", "json", "packed", "torchao"):
        raise InputError(f"--format must be text, json, packed or torchao, not {format_!r}")
    is_checkpoint = format_ in ("packed", "torchao")
    if is_checkpoint and out is None:
        raise InputError(f"say where the {format_} checkpoint goes: --out DIR")
    if sum(choice is not None for choice in (pick, trial, bitmap)) != 1:
        raise InputError("say which map to export: one of --pick best@8x, --trial N, --bitmap FILE")
    if polished and (bitmap is not None or not is_checkpoint):
        raise InputError(
            "--polished is for --pick or --trial with --format packed or torchao; polishing leaves the bit map as it is"
        )
    directory = RunDirectory(run)
    settings = directory.read_settings()
    found = outcome_of_run(load_study(directory.place()), directory)
    layers = found.footprint.layers
    if bitmap is not None:
        bit_map = read_bit_map(bitmap, layers)
        provenance: dict[str, Any] = {"bitmap": bitmap.name, **found.footprint.figures(bit_map)}
    else:
        chosen = pick_map(found, pick) if pick is not None else trial_by_number(found, trial or 0)
        if polished:
            from search.run.checkpoints import export_polished

            assert out is not None
            typer.echo(f"written: {out}, {export_polished(run, chosen, out, format_)}")
            return
        bit_map, provenance = chosen.bit_map, bit_map_provenance(found, chosen)
    if is_checkpoint:
        from search.run.checkpoints import export_checkpoint

        assert out is not None
        log_to_console(console)
        typer.echo(f"written: {out}, {export_checkpoint(settings, bit_map, provenance, out, format_)}")
        return
    text = to_text(layers, bit_map) if format_ == "text" else to_json(layers, bit_map, provenance)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)
        typer.echo(f"written: {out}")


def polish(
    run: Run,
    pick: Annotated[
        str | None, typer.Option(help="As for export; without it the report's picks and the reference.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="A trial by its number.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training sentences.")] = 1,
) -> None:
    """Tune what costs no bits, by distillation from the FP32 model; each map becomes a packed checkpoint as small."""
    from results.report.polished import polished_line
    from results.report.report import write_report
    from results.statistics.analysis import analyse, select
    from results.statistics.picks import pick as pick_map
    from results.statistics.picks import trial_by_number
    from search.cli.terminal import log_to_console
    from search.run.checkpoints import problem_of_run
    from search.run.polishing import maps_to_polish, polish_maps
    from search.run.reporting import outcome_of_run
    from search.run.run_directory import RunDirectory
    from search.study.reading import load_study

    if pick is not None and trial is not None:
        raise InputError("say which map to polish by one of --pick best@8x and --trial N, or by neither")
    directory = RunDirectory(run)
    settings = directory.read_settings()
    found = outcome_of_run(load_study(directory.place()), directory)
    if pick is not None:
        trials = [pick_map(found, pick)]
    elif trial is not None:
        trials = [trial_by_number(found, trial)]
        if trials[0].scores is None:
            raise InputError(f"trial {trial} has no scores; name another")
    else:
        trials = list(maps_to_polish(select(found)))
    log_to_console(console)
    with directory.locked():
        problem, seed = problem_of_run(settings), settings["profile"]["seed"]
        for polished in polish_maps(problem, found, trials, directory, seed, epochs):
            typer.echo(f"{polished_line(polished)}; written: {run / polished.checkpoint}")
        write_report(analyse(found), run)
    typer.echo(f"report: {run / 'report.html'}")
