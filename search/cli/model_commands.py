"""Commands that need a model but no run: evaluate, sensitivity, finetune."""

# Commands import torch, transformers and optuna only when they run: the imports take seconds, and --help needs none.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from objectives.errors import InputError
from objectives.heads import HeadKind
from search.allocation.knapsack import Source
from search.cli.options import BitMapFile, ProfileName, console, help_text, takes_settings
from search.run.profile import DATA_SETTINGS, Profile, checked_profile, given_as, resolve_profile

if TYPE_CHECKING:
    from objectives.loading.fingerprint import Fingerprint
    from objectives.problem import Problem
    from objectives.scores import LogOdds

_FINETUNE_SETTINGS = ("task", "text_column", "label_column", "train_split", "validation_split", "max_length", "metric")
_MODEL_SETTINGS = ("model", "data", *DATA_SETTINGS, "metric", "quantizer", "group_size", "device")


@takes_settings(*_MODEL_SETTINGS)
def evaluate(
    bitmap: BitMapFile = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Directory of a packed or ONNX checkpoint, in place of --bitmap.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="With --checkpoint: the run it came from; the figures go into the run's report."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a checkpoint that is timed.")] = 1,
    profile: ProfileName = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, with every digit.")] = False,
    **flags: Any,
) -> None:
    """Score a bit map or a checkpoint: metric, damage (mean KL divergence from FP32), agreement and sizes.

    A checkpoint is scored with the model and data that it was made from, unless others are named.
    """
    import json

    from objectives.bit_maps import quantizer_of, read_bit_map
    from results.export.onnx import check_onnx
    from search.cli.scoring import intervals_of, score_lines, size_lines
    from search.run.checkpoints import evaluate_checkpoint, is_onnx

    onnx, costs = None, []
    sizes: dict[str, Any]
    if (bitmap is None) == (checkpoint is None):
        raise InputError("give one thing to score: --bitmap FILE or --checkpoint DIR")
    origin = None
    if run is not None:
        own_data = profile is None and all(flags[name] is None for name in ("data", *DATA_SETTINGS, "metric"))
        if checkpoint is None or not own_data:
            raise InputError("--run needs --checkpoint, and the run's own sentences: leave options of the data out")
        from search.cli.deployment import Origin, cost_lines, costs_beside_fp32, packed_contenders

        origin = Origin.of(checkpoint, run)
        flags["metric"] = origin.outcome.metric
    if checkpoint is not None:
        if flags["quantizer"] is not None or flags["group_size"] is not None:
            raise InputError("--quantizer and --group-size apply to --bitmap only; a checkpoint has its own codes")
        flags |= {"quantizer": "affine", "group_size": 0}  # not used; affine needs no calibration
        if is_onnx(checkpoint):
            check_onnx()  # before anything is loaded
            from search.cli.onnx_evaluation import evaluate_onnx

            settings, problem = _load_original(checkpoint, profile, flags)
            onnx = evaluate_onnx(problem, checkpoint, threads)
            evaluation, sizes, costs = onnx.evaluation, onnx.figures(), onnx.costs
        else:
            settings, problem = _load_original(checkpoint, profile, flags)
            evaluation, loaded = evaluate_checkpoint(problem, checkpoint)
            sizes = dict(loaded.footprint.figures(loaded.bit_map))
            if origin is not None:
                costs = costs_beside_fp32(problem, packed_contenders(loaded, checkpoint), threads)
                sizes["costs"] = costs
        if origin is not None:
            origin.record(problem, evaluation, costs, threads)
    else:
        assert bitmap is not None
        settings, problem = _load(profile, flags)
        bit_map = read_bit_map(bitmap, problem.layers)
        searched_with = quantizer_of(bitmap)
        if searched_with not in ("", problem.fingerprint["quantizer"]):
            console.message(
                f"note: this map was searched with the quantiser {searched_with!r}; it is scored with "
                f"{problem.fingerprint['quantizer']!r}, which changes quality and size; see --quantizer",
                "yellow",
            )
        evaluation, sizes = problem.evaluate(bit_map), problem.footprint.figures(bit_map)
    quantizer = problem.fingerprint["quantizer"] if checkpoint is None else "the checkpoint's own codes"
    if json_:
        intervals = intervals_of(problem, evaluation)
        metric, damage, name = intervals.metric, intervals.damage, problem.metric
        figures = {
            **evaluation.scores.record(),
            **{f"{name}_low": metric.low, f"{name}_high": metric.high},
            **{"damage_low": damage.low, "damage_high": damage.high},
            f"fp32_{name}": problem.fp32.metric,
            "sentences": len(problem.labels),
            "quantizer": quantizer,
            **sizes,
        }
        typer.echo(json.dumps(figures, indent=2))
        return
    typer.echo(
        f"{bitmap or checkpoint} on {settings.model}, {len(problem.labels)} validation sentences of {settings.data}"
    )
    typer.echo(f"quantiser    {quantizer}")
    for line in [*score_lines(problem, evaluation), *(size_lines(sizes) if onnx is None else onnx.lines())]:
        typer.echo(line)
    if origin is not None:
        if onnx is None:
            typer.echo("\n".join(["", *cost_lines(costs)]))
        typer.echo(f"report: {origin.run.path / 'report.html'}")


@takes_settings(*_MODEL_SETTINGS)
def sensitivity(
    profile: ProfileName = None,
    source: Annotated[
        str, typer.Option(help="measured, or gradient: quicker, from one backward pass, but coarse at 2 and 3 bits.")
    ] = "measured",
    out: Annotated[Path, typer.Option(help="Directory for sensitivity.csv, .png and .svg.")] = Path("sensitivity"),
    **flags: Any,
) -> None:
    """Measure each layer alone at each width: a table and a heat map of damage (mean KL divergence from FP32)."""
    from objectives.cache import cache_directory
    from objectives.layers import WIDTHS
    from objectives.loading.layer_discovery import what_is_searched
    from results.formatting import DAMAGE, nats
    from results.plots.heat_maps import write_sensitivity_plot
    from search.allocation.sensitivity import measure
    from search.cli.terminal import progress_display
    from search.run.progress import Phase

    if source not in get_args(Source):
        raise InputError(f"--source must be measured or gradient, not {source!r}")
    _, problem = _load(profile, flags)
    with progress_display(console) as display:
        sensitivities = measure(
            problem, cache_directory(), cast(Source, source), lambda *phase: display.phase(Phase(*phase))
        )
    assert sensitivities is not None
    write_sensitivity_plot(problem.layers, sensitivities.damages, sensitivities.measured, out)
    longest = max(len(layer.name) for layer in problem.layers)
    typer.echo(what_is_searched(problem.network))
    typer.echo(f"{DAMAGE}, nats a sentence")
    typer.echo(f"{'layer':{longest}}" + "".join(f"{width:>9} bit" for width in WIDTHS))
    for layer, damages in zip(problem.layers, sensitivities.damages, strict=True):
        typer.echo(f"{layer.name:{longest}}" + "".join(f"{nats(damage):>13}" for damage in damages))
    typer.echo(f"written: {out / 'sensitivity.csv'}, .png and .svg")


@takes_settings(*_FINETUNE_SETTINGS)
def finetune(
    model: Annotated[str, typer.Option("--model", help="Base model: a local directory or a hub name.")],
    out: Annotated[Path, typer.Option(help="Directory to write; it must not exist.")],
    data: Annotated[
        str,
        typer.Option("--data", help="Labelled sentences: a directory with train and validation, or a hub data set."),
    ] = "nyu-mll/glue",
    epochs: Annotated[
        float, typer.Option(min=0.0, help="Number of passes over the training sentences; a fraction is allowed.")
    ] = 3.0,
    learning_rate: Annotated[
        float, typer.Option(min=0.0, help="Highest learning rate; it warms up, then falls linearly to 0.")
    ] = 2e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of sentences in a step.")] = 32,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the new head, the order of sentences and dropout.")
    ] = 42,
    predict: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(get_args(HeadKind)),
            help=help_text("What labels are: one of several classes, yes or no each, or numbers.", "by the labels"),
            show_default=False,
        ),
    ] = None,
    **flags: Any,
) -> None:
    """Fine-tune a base model on labelled sentences, CoLA without --data, to have a model to search."""
    from objectives.metrics import METRIC_NAMES
    from objectives.training.finetune import finetune as train
    from results.formatting import command

    if predict not in (None, *get_args(HeadKind)):
        raise InputError(f"--predict must be {', '.join(get_args(HeadKind))}, not {predict!r}")
    given = {"model": model, "data": data, **{name: value for name, value in flags.items() if value is not None}}
    settings = checked_profile(given, "finetune")
    result = train(
        model,
        data,
        out,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        options=replace(settings.data_options, max_eval_samples=0),
        predict=cast(HeadKind | None, predict),
        metric=settings.metric,
        report_progress=lambda text: console.message(text, "dim"),
    )
    shown = f"validation {METRIC_NAMES[result.metric]} {result.value:.4f}"
    typer.echo(f"written: {out}; {shown} after {result.elapsed_s:.0f} s")
    run = Path("runs") / (out.name or "new")
    read = [word for name in _FINETUNE_SETTINGS if flags[name] for word in given_as(name, flags[name])]
    typer.echo(f"next: {command('search', '--model', out, '--data', data, *read, '--run', run)}")


def _load_original(checkpoint: Path, profile: str | None, flags: Mapping[str, Any]) -> tuple[Profile, Problem]:
    """Return the settings and the problem that a packed checkpoint is scored with."""
    from search.run.checkpoints import check_original, checkpoint_data_settings, checkpoint_places

    same_data = profile is None and all(flags.get(name) is None for name in ("data", *DATA_SETTINGS))
    if profile is None:
        flags = checkpoint_data_settings(checkpoint) | {key: value for key, value in flags.items() if value is not None}
    given = dict(flags) if profile is None else resolve_profile(profile, flags).to_dict()
    *earlier, last = checkpoint_places(checkpoint, given)

    def load(place: Mapping[str, str]) -> tuple[Profile, Problem]:
        def check(fingerprint: Fingerprint) -> None:
            check_original(checkpoint, place, fingerprint, same_data)

        return _load(profile, {**flags, **place}, check)

    for place in earlier:
        try:
            return load(place)
        except InputError:
            continue  # another directory of that name may hold anything
    return load(last)


def _load(
    profile: str | None,
    flags: Mapping[str, Any],
    known_scores: Callable[[Fingerprint], LogOdds | None] = lambda _: None,
) -> tuple[Profile, Problem]:
    """Return the resolved settings, and the problem that they describe."""
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
        known_scores=known_scores,
        options=settings.data_options,
        metric=settings.metric,
    )
    return settings, problem
