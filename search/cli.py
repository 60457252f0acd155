"""The command line. A user's mistake is one clear line and exit status 2."""

# Commands import what they need when they run: torch, transformers and optuna take seconds, and --help needs none.

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console

from objectives.errors import InputError

if TYPE_CHECKING:
    from objectives.sizes import Footprint

app = typer.Typer(
    name="bitfront",
    help="How many bits does each layer of a fine-tuned BERT need?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console(stderr=True)

Run = Annotated[Path, typer.Option("--run", help="The run's directory.")]
Model = Annotated[str | None, typer.Option("--model", help="A local transformers directory, a hub name, or miniature.")]
Data = Annotated[str | None, typer.Option("--data", help="A local CoLA directory, a hub data set, or miniature.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="miniature, cola, or a TOML file.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
QuantizerOption = Annotated[
    str | None,
    typer.Option(
        "--quantizer", help="affine, or calibrated: rounding that makes up for errors, on training sentences."
    ),
]
Margin = Annotated[float | None, typer.Option("--margin", help="The loss of MCC against FP32 that counts as none.")]
ReadBitMap = Annotated[Path | None, typer.Option("--bitmap", help="A bit map, as text or JSON.")]


@app.command()
def search(
    run: Run,
    profile: ProfileName = None,
    model: Model = None,
    data: Data = None,
    trials: Annotated[int | None, typer.Option(help="Stop when the run has this many trials; 0: no limit.")] = None,
    hours: Annotated[float | None, typer.Option(help="Stop after this many hours; 0: no limit.")] = None,
    quality: Annotated[str | None, typer.Option(help="The first objective: damage, mcc or agreement.")] = None,
    size: Annotated[
        str | None, typer.Option(help="What the constraint and the size axis count: nominal or packed.")
    ] = None,
    min_compression: Annotated[float | None, typer.Option(help="The size constraint, in times the FP32 size.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Who proposes maps: guided, nsga2, tpe or random.")] = None,
    sensitivity: Annotated[
        str | None, typer.Option(help="Damage of each layer alone: measured, gradient (quick) or none.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the search's matrix products: fp32 or bf16. What it ends with is FP32.")
    ] = None,
    quantizer: QuantizerOption = None,
    device: Device = None,
    polish: Annotated[
        bool | None, typer.Option("--polish", help="Polish the picks and the reference at the end, as `polish` does.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Reproduces a run of one worker exactly.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that evaluate at the same time.")] = None,
    storage: Annotated[
        str, typer.Option(envvar="BITFRONT_STORAGE", help="postgresql+psycopg://... of a study that machines share.")
    ] = "",
    notify: Annotated[str, typer.Option(help="A command to run when the search ends, however it ends.")] = "",
    margin: Margin = None,
    confirm: Annotated[
        str | None,
        typer.Option(help="Sentences kept for the end: a share as 0.3 (or 0.3@SEED), a CoLA directory, or none."),
    ] = None,
) -> None:
    """Search for the front; start the same run again to continue it."""
    from results.summary import summary_lines
    from search.notify import notifying
    from search.profile import resolve_profile
    from search.run_directory import RunDirectory
    from search.runner import run_search
    from search.terminal import log_to_console, progress_display

    flags = {
        "model": model,
        "data": data,
        "trials": trials,
        "hours": hours,
        "quality": quality,
        "size": size,
        "min_compression": min_compression,
        "sampler": sampler,
        "sensitivity": sensitivity,
        "precision": precision,
        "quantizer": quantizer,
        "device": device,
        "polish": polish,
        "seed": seed,
        "workers": workers,
        "margin": margin,
        "confirm": confirm,
    }
    directory = RunDirectory(run)
    if profile is None and directory.exists():
        # Continuing: what the run was started with, where the flags do not say otherwise.
        flags = directory.read_settings()["profile"] | {key: value for key, value in flags.items() if value is not None}
    settings = resolve_profile(profile or "miniature", flags)
    log_to_console(console)
    with notifying(notify, run), progress_display(console) as display:
        outcome = run_search(settings, directory, display, storage)
    for line in summary_lines(outcome):
        typer.echo(line)
    typer.echo(f"report: {run / 'report.html'}")


@app.command()
def status(run: Run) -> None:
    """Say how far a search is, from any terminal, or where it ended."""
    from search.run_directory import RunDirectory
    from search.status import status_lines

    for line in status_lines(RunDirectory(run)):
        typer.echo(line)


@app.command()
def report(
    run: Annotated[Path | None, typer.Option("--run", help="The run's directory.")] = None,
    margin: Margin = None,
    compare: Annotated[bool, typer.Option("--compare", help="Put the runs named after it on one plot.")] = False,
    runs: Annotated[list[Path] | None, typer.Argument(help="With --compare: the runs' directories.")] = None,
    out: Annotated[Path, typer.Option(help="With --compare: the directory to write.")] = Path("comparison"),
) -> None:
    """Write the tables, plots, report and bit maps of a run anew, or compare several runs."""
    from results.report import write_report
    from results.summary import summary_lines
    from search.reporting import compare_runs, outcome_of_run
    from search.run_directory import RunDirectory
    from search.study import load_study

    if compare:
        for warning in compare_runs([*([run] if run else []), *(runs or [])], margin, out):
            console.print(f"note: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        typer.echo(f"comparison: {out / 'comparison.html'}")
        return
    if run is None or runs:
        raise InputError("say which run: --run runs/x; or several to compare: --compare runs/x runs/y")
    directory = RunDirectory(run)
    directory.read_settings()
    found = outcome_of_run(load_study(directory.place()), directory, margin)
    for line in summary_lines(found, write_report(found, run)):
        typer.echo(line)
    typer.echo(f"report: {run / 'report.html'}")


@app.command()
def export(
    run: Run,
    pick: Annotated[str | None, typer.Option(help="best@8x, smallest@margin, smallest@0.02, or knee.")] = None,
    trial: Annotated[int | None, typer.Option(help="A trial by its number.")] = None,
    bitmap: ReadBitMap = None,
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
    from results.bit_map_files import bit_map_provenance
    from results.picks import pick as pick_map
    from results.picks import trial_by_number
    from search.checkpoints import export_checkpoint
    from search.reporting import outcome_of_run
    from search.run_directory import RunDirectory
    from search.study import load_study
    from search.terminal import log_to_console

    if format_ not in ("text", "json", "packed", "torchao"):
        raise InputError(f"--format must be text, json, packed or torchao, not {format_!r}")
    is_checkpoint = format_ in ("packed", "torchao")
    if is_checkpoint and out is None:
        raise InputError(f"say where the {format_} checkpoint goes: --out DIR")
    if sum(choice is not None for choice in (pick, trial, bitmap)) != 1:
        raise InputError("say which map to export: one of --pick best@8x, --trial N, --bitmap FILE")
    directory = RunDirectory(run)
    settings = directory.read_settings()
    found = outcome_of_run(load_study(directory.place()), directory)
    layers = found.footprint.layers
    if bitmap is not None:
        bits = read_bit_map(bitmap, layers)
        provenance: dict[str, Any] = {"bitmap": bitmap.name, **_sizes(found.footprint, bits)}
    else:
        chosen = pick_map(found, pick) if pick is not None else trial_by_number(found, trial or 0)
        bits, provenance = chosen.bits, bit_map_provenance(found, chosen)
    if is_checkpoint:
        assert out is not None
        log_to_console(console)
        typer.echo(f"written: {out}, {export_checkpoint(settings, bits, provenance, out, format_)}")
        return
    text = to_text(layers, bits) if format_ == "text" else to_json(layers, bits, provenance)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)
        typer.echo(f"written: {out}")


@app.command()
def polish(
    run: Run,
    pick: Annotated[
        str | None, typer.Option(help="As for export; without it the report's picks and the reference.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="A trial by its number.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training sentences.")] = 1,
) -> None:
    """Tune what costs no bits, by distillation from the FP32 model; each map becomes a packed checkpoint as small."""
    from results.picks import pick as pick_map
    from results.picks import trial_by_number
    from results.polished import polished_line
    from results.report import write_report
    from search.checkpoints import problem_of_run
    from search.polishing import maps_to_polish, polish_maps
    from search.reporting import outcome_of_run
    from search.run_directory import RunDirectory
    from search.study import load_study
    from search.terminal import log_to_console

    if pick is not None and trial is not None:
        raise InputError("say which map to polish by one of --pick best@8x and --trial N, or by neither")
    directory = RunDirectory(run)
    settings = directory.read_settings()
    found = outcome_of_run(load_study(directory.place()), directory)
    if pick is not None:
        trials = [pick_map(found, pick)]
    elif trial is not None:
        trials = [trial_by_number(found, trial)]
    else:
        trials = list(maps_to_polish(found))
    log_to_console(console)
    with directory.locked():
        problem, seed = problem_of_run(settings), settings["profile"]["seed"]
        for polished in polish_maps(problem, found, trials, directory, seed, epochs):
            typer.echo(f"{polished_line(polished)}; written: {run / polished.checkpoint}")
        write_report(found, run)
    typer.echo(f"report: {run / 'report.html'}")


@app.command()
def evaluate(
    bitmap: ReadBitMap = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A packed checkpoint, in place of a bit map.")] = None,
    profile: ProfileName = None,
    model: Model = None,
    data: Data = None,
    quantizer: QuantizerOption = None,
    device: Device = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON with every digit.")] = False,
) -> None:
    """Score one bit map, or a packed checkpoint: MCC with its interval, damage, both sizes."""
    import json

    from objectives.bit_maps import read_bit_map
    from objectives.problem import load_problem
    from objectives.scores import divergences
    from results.statistics import damage_interval, mcc_interval
    from search.profile import resolve_profile
    from search.terminal import log_to_console

    if (bitmap is None) == (checkpoint is None):
        raise InputError("say what to score: --bitmap FILE or --checkpoint DIR")
    log_to_console(console)
    flags = {"model": model, "data": data, "quantizer": quantizer, "device": device}
    settings = resolve_profile(profile or "miniature", flags)
    problem = load_problem(settings.model, settings.data, device=settings.device, quantizer=settings.quantizer)
    if checkpoint is not None:
        evaluation, bits = problem.evaluate_checkpoint(checkpoint)
    else:
        assert bitmap is not None
        bits = read_bit_map(bitmap, problem.layers)
        evaluation = problem.evaluate(bits)
    scores = evaluation.scores
    sentences = (problem.labels, problem.in_domain)
    fp32_mcc = mcc_interval(problem.fp32_log_odds, *sentences)
    mcc = mcc_interval(evaluation.log_odds, *sentences)
    damage = damage_interval(divergences(evaluation.log_odds, problem.fp32_log_odds), *sentences)
    sizes = _sizes(problem.footprint, bits)
    if json_:
        figures = {
            "mcc": scores.mcc,
            "mcc_low": mcc.low,
            "mcc_high": mcc.high,
            "damage": scores.damage,
            "damage_low": damage.low,
            "damage_high": damage.high,
            "agreement": scores.agreement,
            "accuracy": scores.accuracy,
            "cross_entropy": scores.cross_entropy,
            "fp32_mcc": problem.fp32.mcc,
            "sentences": len(problem.labels),
            **sizes,
        }
        typer.echo(json.dumps(figures, indent=2))
        return
    typer.echo(
        f"{bitmap or checkpoint} on {settings.model}, {len(problem.labels)} validation sentences of {settings.data}"
    )
    typer.echo(f"MCC          {scores.mcc:.4f}  (95% interval {mcc.low:.3f} to {mcc.high:.3f})")
    typer.echo(f"MCC of FP32  {problem.fp32.mcc:.4f}  (95% interval {fp32_mcc.low:.3f} to {fp32_mcc.high:.3f})")
    typer.echo(
        f"damage       {scores.damage:.5f} nats a sentence  (95% interval {damage.low:.5f} to {damage.high:.5f})"
    )
    typer.echo(f"agreement    {scores.agreement:.4f} of FP32's predictions; accuracy {scores.accuracy:.4f}")
    typer.echo(f"nominal      {sizes['nominal_compression']:.4f}x, {sizes['nominal_bits']:,} bits of codes")
    typer.echo(f"packed       {sizes['packed_compression']:.4f}x, {sizes['packed_bytes']:,} bytes on disk")


@app.command()
def sensitivity(
    profile: ProfileName = None,
    model: Model = None,
    data: Data = None,
    source: Annotated[
        str, typer.Option(help="measured, or gradient: all from one backward pass, coarse at 2 and 3 bits.")
    ] = "measured",
    quantizer: QuantizerOption = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="The directory for sensitivity.csv, .png and .svg.")] = Path("sensitivity"),
) -> None:
    """Measure the damage of each layer alone at each width: a table and a heat map."""
    from objectives.layers import WIDTHS
    from objectives.problem import cache_directory, load_problem
    from results.plot_heat_maps import write_sensitivity_plot
    from results.words import nats
    from search.profile import resolve_profile
    from search.sensitivity import Source, measure
    from search.terminal import log_to_console, progress_display

    if source not in ("measured", "gradient"):
        raise InputError(f"--source must be measured or gradient, not {source!r}")
    flags = {"model": model, "data": data, "quantizer": quantizer, "device": device}
    settings = resolve_profile(profile or "miniature", flags)
    log_to_console(console)
    problem = load_problem(settings.model, settings.data, device=settings.device, quantizer=settings.quantizer)
    with progress_display(console) as display:
        found = measure(problem, cache_directory(), cast(Source, source), display.sensitivities)
    assert found is not None
    write_sensitivity_plot(problem.layers, found.damages, found.measured, out)
    longest = max(len(layer.name) for layer in problem.layers)
    typer.echo(f"{'damage, nats a sentence':{longest}}" + "".join(f"{width:>9} bit" for width in WIDTHS))
    for layer, damages in zip(problem.layers, found.damages, strict=True):
        typer.echo(f"{layer.name:{longest}}" + "".join(f"{nats(damage):>13}" for damage in damages))
    typer.echo(f"written: {out / 'sensitivity.csv'}, .png and .svg")


@app.command()
def finetune(
    model: Annotated[str, typer.Option("--model", help="A base model: a local directory or a hub name.")],
    out: Annotated[Path, typer.Option(help="The directory to write; it must not exist.")],
    data: Annotated[str, typer.Option("--data", help="A local CoLA directory or a hub data set.")] = "nyu-mll/glue",
    epochs: Annotated[float, typer.Option(min=0.0, help="Passes over the training sentences.")] = 3.0,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 2e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences a step.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the head and of the order of sentences.")] = 42,
) -> None:
    """Fine-tune a base model on CoLA, for those who have no fine-tuned one."""
    from objectives.finetune import finetune as train

    result = train(model, data, out, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed)
    typer.echo(f"written: {out}; validation MCC {result.mcc:.4f} after {result.elapsed_s:.0f} s")


def _sizes(footprint: Footprint, bits: tuple[int, ...]) -> dict[str, Any]:
    return {
        "nominal_compression": footprint.compression(bits, "nominal"),
        "packed_compression": footprint.compression(bits, "packed"),
        "nominal_bits": footprint.nominal_bits(bits),
        "packed_bytes": footprint.packed_bytes(bits),
    }


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 the machine failed, 2 a mistake in what was asked, 130 interrupted."""
    try:
        app()
    except InputError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        console.print(
            f"error: {where}{error.strerror or error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(1)
    except MemoryError as error:
        console.print(f"error: out of memory: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted; start the same command again to continue", style="yellow")
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
