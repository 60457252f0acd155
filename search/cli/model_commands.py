"""Commands on a model, without a run: evaluate, sensitivity, finetune."""

# Commands import what they need when they run: torch, transformers and optuna take seconds, and --help needs none.

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from objectives.errors import InputError
from search.allocation.knapsack import Source
from search.cli.options import ProfileName, ReadBitMap, console, takes_settings
from search.run.profile import Profile, resolve_profile

if TYPE_CHECKING:
    from objectives.problem import Problem

_LOADED = ("model", "data", "quantizer", "group_size", "device")
"""The settings that a model is loaded by."""


@takes_settings(*_LOADED)
def evaluate(
    bitmap: ReadBitMap = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A packed checkpoint, in place of a bit map.")] = None,
    profile: ProfileName = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON with every digit.")] = False,
    **flags: Any,
) -> None:
    """Score one bit map, or a packed checkpoint: MCC with its interval, damage, both sizes."""
    import json

    from objectives.bit_maps import quantizer_of, read_bit_map
    from objectives.scores import divergences
    from results.statistics.intervals import damage_interval, mcc_interval
    from search.run.checkpoints import evaluate_checkpoint

    if (bitmap is None) == (checkpoint is None):
        raise InputError("say what to score: --bitmap FILE or --checkpoint DIR")
    if checkpoint is not None:
        if flags["quantizer"] is not None or flags["group_size"] is not None:
            raise InputError("--quantizer and --group-size are for --bitmap; a checkpoint brings its own codes")
        flags |= {"quantizer": "affine", "group_size": 0}  # nothing is to be calibrated
    settings, problem = _load(profile, flags)
    if checkpoint is not None:
        evaluation, loaded = evaluate_checkpoint(problem, checkpoint)
        bit_map, footprint = loaded.bit_map, loaded.footprint
    else:
        assert bitmap is not None
        bit_map = read_bit_map(bitmap, problem.layers)
        made_with = quantizer_of(bitmap)
        if made_with not in ("", problem.fingerprint["quantizer"]):
            console.print(
                f"note: the run that found this map quantised by {made_with!r}, here it is "
                f"{problem.fingerprint['quantizer']!r}: --quantizer and --group-size change quality and size",
                style="yellow",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        evaluation, footprint = problem.evaluate(bit_map), problem.footprint
    made_by = problem.fingerprint["quantizer"] if checkpoint is None else "the checkpoint's own codes"
    scores = evaluation.scores
    sentences = (problem.labels, problem.in_domain)
    fp32_mcc = mcc_interval(problem.fp32_log_odds, *sentences)
    mcc = mcc_interval(evaluation.log_odds, *sentences)
    damage = damage_interval(divergences(evaluation.log_odds, problem.fp32_log_odds), *sentences)
    sizes = footprint.figures(bit_map)
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
            "quantizer": made_by,
            **sizes,
        }
        typer.echo(json.dumps(figures, indent=2))
        return
    typer.echo(
        f"{bitmap or checkpoint} on {settings.model}, {len(problem.labels)} validation sentences of {settings.data}"
    )
    typer.echo(f"quantiser    {made_by}")
    typer.echo(f"MCC          {scores.mcc:.4f}  (95% interval {mcc.low:.3f} to {mcc.high:.3f})")
    typer.echo(f"MCC of FP32  {problem.fp32.mcc:.4f}  (95% interval {fp32_mcc.low:.3f} to {fp32_mcc.high:.3f})")
    typer.echo(
        f"damage       {scores.damage:.5f} nats a sentence  (95% interval {damage.low:.5f} to {damage.high:.5f})"
    )
    typer.echo(f"agreement    {scores.agreement:.4f} of FP32's predictions; accuracy {scores.accuracy:.4f}")
    typer.echo(f"nominal      {sizes['nominal_compression']:.4f}x, {sizes['nominal_bits']:,} bits of codes")
    typer.echo(f"packed       {sizes['packed_compression']:.4f}x, {sizes['packed_bytes']:,} bytes as a checkpoint")


@takes_settings(*_LOADED)
def sensitivity(
    profile: ProfileName = None,
    source: Annotated[
        str, typer.Option(help="measured, or gradient: all from one backward pass, coarse at 2 and 3 bits.")
    ] = "measured",
    out: Annotated[Path, typer.Option(help="The directory for sensitivity.csv, .png and .svg.")] = Path("sensitivity"),
    **flags: Any,
) -> None:
    """Measure the damage of each layer alone at each width: a table and a heat map."""
    from objectives.layers import WIDTHS
    from objectives.problem import cache_directory
    from results.formatting import nats
    from results.plots.heat_maps import write_sensitivity_plot
    from search.allocation.sensitivity import measure
    from search.cli.terminal import progress_display

    if source not in get_args(Source):
        raise InputError(f"--source must be measured or gradient, not {source!r}")
    _, problem = _load(profile, flags)
    with progress_display(console) as display:
        found = measure(problem, cache_directory(), cast(Source, source), display.sensitivities)
    assert found is not None
    write_sensitivity_plot(problem.layers, found.damages, found.measured, out)
    longest = max(len(layer.name) for layer in problem.layers)
    typer.echo(f"{'damage, nats a sentence':{longest}}" + "".join(f"{width:>9} bit" for width in WIDTHS))
    for layer, damages in zip(problem.layers, found.damages, strict=True):
        typer.echo(f"{layer.name:{longest}}" + "".join(f"{nats(damage):>13}" for damage in damages))
    typer.echo(f"written: {out / 'sensitivity.csv'}, .png and .svg")


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
    from objectives.training.finetune import finetune as train

    result = train(model, data, out, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed)
    typer.echo(f"written: {out}; validation MCC {result.mcc:.4f} after {result.elapsed_s:.0f} s")


def _load(profile: str | None, flags: Mapping[str, Any]) -> tuple[Profile, Problem]:
    """Return the settings that were asked for, and what they name."""
    from objectives.problem import load_problem
    from search.cli.terminal import log_to_console

    log_to_console(console)
    settings = resolve_profile(profile or "miniature", flags)
    problem = load_problem(
        settings.model,
        settings.data,
        device=settings.device,
        quantizer=settings.quantizer,
        group_size=settings.group_size,
    )
    return settings, problem
