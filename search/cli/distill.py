"""The command distill, and its older name polish."""

# torch, transformers and optuna are imported only when it runs: the imports take seconds, and --help needs none.

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from objectives.errors import InputError
from search.cli.options import Run, console, help_text, takes_settings
from search.run.profile import PLACES

Pick = Annotated[str | None, typer.Option(help="A map by rule: best@8x, smallest@margin, smallest@0.02, or knee.")]
TrialNumber = Annotated[int | None, typer.Option("--trial", help="A map by its trial number.")]


@takes_settings(*PLACES, default="the run's")
def distill(
    run: Run,
    pick: Pick = None,
    trial: TrialNumber = None,
    train: Annotated[
        str, typer.Option(help="scales: what costs no bits; weights: codes too (quantisation-aware training).")
    ] = "scales",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help=help_text("Passes over the training sentences.", "1 for scales, 10 for weights")),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="File of further unlabelled texts to train on, read as --calibration is.")
    ] = None,
    **places: Any,
) -> None:
    """Train a map by distillation from the FP32 model, and write a packed checkpoint of equal size.

    Without --pick or --trial, distil the report's picks and the reference map. Ctrl-C keeps the best model so far; the
    same command continues.
    """
    from objectives.training.student import Trained
    from results.formatting import command
    from results.report.distilled import distilled_line
    from results.report.report import write_report
    from results.statistics.analysis import analyse, select
    from results.statistics.picks import pick as pick_map
    from results.statistics.picks import trial_by_number
    from search.cli.terminal import log_to_console, progress_display
    from search.run.checkpoints import problem_of_run
    from search.run.distilling import EPOCHS, Distillation, distil_maps, maps_to_distil
    from search.run.progress import PhaseRecord
    from search.run.reporting import read_outcome
    from search.run.run_directory import RunDirectory
    from search.run.signals import stop_requests

    if train not in get_args(Trained):
        raise InputError(f"--train must be scales or weights, not {train!r}")
    if pick is not None and trial is not None:
        raise InputError("--pick and --trial each name a map; give one of them, or neither for the report's picks")
    directory = RunDirectory(run)
    settings = directory.read_settings()
    profile, outcome = settings["profile"], read_outcome(directory)
    if pick is not None:
        trials = [pick_map(outcome, pick)]
    elif trial is not None:
        trials = [trial_by_number(outcome, trial)]
        if trials[0].scores is None:
            raise InputError(f"trial {trial} failed and has no scores; give another")
    else:
        trials = list(maps_to_distil(select(outcome)))
    trained = cast(Trained, train)
    wanted = Distillation(trained, epochs or EPOCHS[trained], profile["seed"], text)
    log_to_console(console)
    with directory.locked(), progress_display(console) as display, stop_requests() as should_stop:
        problem = problem_of_run(settings, outcome.fp32_log_odds, places)
        phases = PhaseRecord(directory, display)
        try:
            done = distil_maps(problem, outcome, trials, directory, wanted, profile["unseen"], phases, should_stop)
        finally:
            phases.end()
        for distilled in done:
            typer.echo(f"{distilled_line(distilled, outcome.metric)}; written: {run / distilled.checkpoint}")
        write_report(analyse(outcome), run)
    typer.echo(f"report: {run / 'report.html'}")
    for distilled in done[-1:]:
        typer.echo(f"next: {command('evaluate', '--checkpoint', run / distilled.checkpoint)}")


@takes_settings(*PLACES, default="the run's")
def polish(
    run: Run,
    pick: Pick = None,
    trial: TrialNumber = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training sentences.")] = 1,
    **places: Any,
) -> None:
    """Older name of `distill --train scales`."""
    console.message("note: `polish` is now `distill`; this name goes with the next version", "yellow")
    distill(run, pick, trial, "scales", epochs, None, **places)
