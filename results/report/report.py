"""Writing a run's results into its directory: tables, plots, bit maps, a self-contained page and a summary."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from objectives.files import write_text
from objectives.heads import Classes
from objectives.metrics import metric_definition
from results import formatting
from results.columns import to_html, write_csv
from results.export.bit_map_files import maps_with_files, remove_stale_bit_maps, write_bit_maps
from results.outcome import Outcome
from results.plots.heat_maps import write_bits_plot
from results.plots.pareto import write_pareto_plot
from results.plots.plot_info import bits_info, bits_table, layer_grid, pareto_info
from results.plots.progress import write_progress_plot
from results.plots.progress_info import progress_info
from results.plots.unseen import write_unseen_plot
from results.report.commands import pick_exports
from results.report.deployed import DeployedModel, deployed_columns, read_deployed
from results.report.distilled import DistilledMap, page_tables, read_distilled
from results.report.distilled_view import distilled_points
from results.report.heat_tables import EDGES, bits_tables, sensitivity_tables
from results.report.markdown import summary_markdown
from results.report.page_data import page_json
from results.report.summary import (
    caution_lines,
    checkpoint_command,
    export_commands,
    front_lines,
    no_reference_lines,
)
from results.report.tables import (
    baseline_columns,
    baseline_rows,
    brief_columns,
    compared_pick_rows,
    front_columns,
    front_rows,
    front_table,
    further_pick_columns,
    pick_columns,
    picks_table,
    request_text,
    trials_table,
)
from results.report.verdict import verdict_of
from results.statistics.analysis import Analysis

_MOST_LABELS = 6  # whose sentences are counted
MOST_FAILURES = 20
"""How many failed trials the page lists; trials.csv has all of them."""

_PLOT_DESCRIPTIONS = {
    "pareto": "Damage and metric of every map against its compression; pareto.csv has the numbers",
    "unseen": "Damage on unseen sentences against compression; unseen.csv has the numbers",
    "progress": "The least damage so far at each size, over evaluations and time; progress.csv has the numbers",
}


@dataclass(frozen=True)
class Running:
    """How far a search is that still runs: the page says it, and refreshes itself.

    Attributes:
        line: its phase, as ``searching: 40/150, 9 min left``.
        check: the command that says whether it still runs.
        written_s: when this was so, seconds since 1970.
    """

    line: str
    check: str
    written_s: int


def write_report(analysis: Analysis, directory: Path, running: str = "") -> None:
    """Write a run's results into its directory, each file in one step.

    The files are ``trials.csv``, ``front.csv``, ``picks.csv``, ``{pareto,bits,progress}.{png,svg,csv}``,
    ``report.html``, ``report.md``, and the maps of the front and the picks in ``bitmaps/``. If maps were scored on
    unseen sentences, there is ``unseen.{png,svg,csv}`` too. The page shows ``sensitivity.csv`` if the directory has it.
    While the search runs, ``bits.png`` and ``bits.svg`` stay as they are.
    Files of other maps are removed from ``bitmaps/`` last, so that no table names a missing file.

    Args:
        analysis: of any run, also one without trials, without feasible trials or with failed ones.
        directory: the run directory; created if it is missing.
        running: how far the search is, without a full stop; empty if it has ended.

    Raises:
        OSError: the directory cannot be written.
        InputError: one of the run's tables that the page shows cannot be read.
    """
    outcome, distilled = analysis.outcome, read_distilled(directory)
    points = distilled_points(analysis, distilled)
    with_files = maps_with_files(analysis)
    write_bit_maps(outcome, with_files, directory)
    write_csv(trials_table(outcome), directory / "trials.csv")
    write_csv(front_table(analysis), directory / "front.csv")
    write_csv(picks_table(analysis), directory / "picks.csv")
    if running:  # the page has tables instead, and this picture takes the longest to draw
        write_csv(bits_table(bits_info(analysis)), directory / "bits.csv")
    else:
        write_bits_plot(bits_info(analysis), directory)
    plots = {
        "pareto": write_pareto_plot(pareto_info(analysis, points), directory),
        "progress": write_progress_plot(progress_info(analysis), directory),
    }
    if analysis.unseen:
        plots["unseen"] = write_unseen_plot(analysis, directory, points)
    live = Running(running, formatting.command("status", "--run", directory), int(time.time())) if running else None
    deployed = read_deployed(directory, outcome.metric)
    sensitivities = sensitivity_tables(outcome.footprint.layers, directory)
    page = report_page(analysis, str(directory), plots, distilled, live, deployed, sensitivities)
    write_text(directory / "report.html", page)
    commands = export_commands(analysis, str(directory))
    write_text(directory / "report.md", summary_markdown(analysis, commands, distilled))
    remove_stale_bit_maps(outcome, with_files, directory)


def report_page(
    analysis: Analysis,
    run: str,
    plots: dict[str, str],
    distilled: Sequence[DistilledMap] = (),
    running: Running | None = None,
    deployed: Sequence[DeployedModel] = (),
    sensitivities: str = "",
) -> str:
    """Return the page as HTML that needs no other file and no network.

    Args:
        analysis: what the page shows.
        run: the run directory, as the commands on the page name it.
        plots: matplotlib's SVG by name; ``unseen`` may be missing.
        distilled: the distilled maps, if there are any.
        running: how far the search is; None once it has ended.
        deployed: the run's checkpoints as they were measured, if there are any.
        sensitivities: their tables, if there are any.
    """
    outcome, compared = analysis.outcome, compared_pick_rows(analysis)
    return render(
        "report.html.j2",
        outcome=outcome,
        places=[_short_place(place) for place in (outcome.model, outcome.data)],
        analysis=analysis,
        verdict=verdict_of(analysis, distilled),
        checkpoint=checkpoint_command(analysis, run),
        about_front=front_lines(analysis),
        caution=caution_lines(analysis),
        no_reference=no_reference_lines(analysis),
        picks=to_html(brief_columns(analysis, pick_columns(analysis)), compared, "cards"),
        more_of_picks=[to_html(columns, compared, "cards") for columns in further_pick_columns(analysis)],
        unanswered=[
            (request_text(outcome, line.request), line.missing) for line in analysis.headlines if line.trial is None
        ],
        front=to_html(brief_columns(analysis, front_columns(analysis)), front_rows(analysis), "sortable cards"),
        baselines=to_html(baseline_columns(analysis), rows, "sortable cards")
        if (rows := baseline_rows(analysis))
        else "",
        failures=[(trial.label, trial.failure) for trial in analysis.failed[:MOST_FAILURES]],
        unlisted_failures=max(len(analysis.failed) - MOST_FAILURES, 0),
        distilled=[to_html(columns, distilled, "cards") for columns in page_tables(outcome.metric, distilled)],
        deployed=to_html(deployed_columns(analysis), deployed, "cards") if deployed else "",
        threads=sorted({model.threads for model in deployed}),
        bits=bits_tables(bits_info(analysis)),
        columns=layer_grid(outcome.footprint.layers).columns,
        sensitivities=sensitivities,
        damage_edges=EDGES,
        exports=pick_exports(analysis, run),
        explore=page_json(analysis, run, distilled_points(analysis, distilled)),
        running=running,
        facts=_facts(analysis),
        quality=formatting.quality(outcome.quality, outcome.metric),
        constraint=formatting.constraint(outcome),
        plots={name: inline(svg, name, _PLOT_DESCRIPTIONS[name]) for name, svg in plots.items()},
    )


def render(template: str, **values: object) -> str:
    """Return one of this package's templates with the values filled in, all of them escaped."""
    environment = Environment(
        loader=FunctionLoader(_template_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["included"] = lambda name: Markup(_template_text(name))  # noqa: S704  # our own files
    return environment.get_template(template).render(**values)


def inline(svg: str, name: str, description: str) -> Markup:
    """Return an SVG made smaller for use inside a page, with a description for screen readers.

    matplotlib has escaped every text in it. The XML header, metadata, comments and unused identifiers are dropped.
    The other identifiers get a prefix, as those of two plots on one page must differ. Coordinates are cut to a
    hundredth of a point.
    """
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(
        r'\b(?:d|x|y)="[^"]*"|translate\([^)]*\)', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), body
    )
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r">\s+<", ">\n<", body)
    return Markup('<svg role="img" aria-label="{}"').format(description) + Markup(body.removeprefix("<svg"))  # noqa: S704


def _short_place(place: str) -> str:
    """Return the name of a model or of data without the folders that an absolute path begins with."""
    return Path(place).name if Path(place).is_absolute() else place


def _template_text(name: str) -> str:
    return files("results.report").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def _holdout_fact(outcome: Outcome) -> str:
    source, scored = outcome.holdout_source, outcome.holdout
    if scored is not None:
        return f"{source}: {len(scored.labels):,} sentences, scored after {formatting.maps(scored.trials)}"
    return f"{source}, not scored yet" if source else "none"


def _sentences_fact(outcome: Outcome) -> str:
    """Return the number of sentences, whether they are pairs, and how many have each class or yes/no label."""
    head, labels = outcome.head, outcome.labels
    count = f"{len(labels):,} pairs of texts" if outcome.paired else f"{len(labels):,}"
    if head.kind == "numbers":
        return count
    names = [repr(name) if name else "" for name in outcome.label_names or [""] * (head.n_outputs + 1)]
    if isinstance(head, Classes):
        shares = [f"{(labels == at).sum():,} {names[at] or f'of class {at}'}" for at in range(head.n_classes)]
    else:
        columns = labels.reshape(len(labels), -1).T
        shares = [f"{own.sum(dtype=int):,} with {names[at] or f'label {at}'}" for at, own in enumerate(columns)]
    return f"{count}: {', '.join(shares)}" if len(shares) <= _MOST_LABELS else count


def _unseen_fact(outcome: Outcome) -> str:
    if outcome.unseen is None:
        return "none scored"
    scored = formatting.maps(len(outcome.unseen.log_odds))
    return f"{len(outcome.unseen.fp32_log_odds):,} training sentences, without labels; {scored} scored"


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    """Return the names and values of the table of what was run."""
    outcome = analysis.outcome
    facts = [
        ("run", outcome.name),
        ("model", outcome.model),
        ("data", outcome.data),
        ("sentences", _sentences_fact(outcome)),
        ("unseen sentences", _unseen_fact(outcome)),
        ("holdout set", _holdout_fact(outcome)),
        ("layers", f"{len(outcome.footprint.layers)}"),
        ("metric", metric_definition(outcome.metric, outcome.head, outcome.label_names)),
        ("quality", formatting.quality(outcome.quality, outcome.metric)),
        ("size constraint", formatting.constraint(outcome)),
        ("margin", formatting.loss(outcome.margin, outcome.metric)),
        ("maps", f"{analysis.complete:,} evaluated, {len(analysis.failed):,} failed"),
    ]
    low_precision = [trial for trial in outcome.trials if trial.precision != "fp32"]
    if low_precision:
        remaining = sum(trial.precision != "fp32" for trial in analysis.shown)
        state = (
            f"{formatting.maps(remaining)} not scored again in FP32 yet" if remaining else "all scored again in FP32"
        )
        facts.append(
            ("precision", f"{low_precision[0].precision} while searching; front, picks and baselines: {state}")
        )
    if outcome.trials:
        cost_s = sum(trial.elapsed_s for trial in outcome.trials)
        facts.append(("cost", f"{formatting.duration(cost_s)} of evaluating"))
        span = formatting.duration(max(trial.finished_s for trial in outcome.trials))
        facts.append(("from the first trial to the last", f"{span}, pauses included"))
    return [*facts, *outcome.provenance]
