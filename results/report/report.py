"""Writing what a run has found into its directory: tables, plots, bit maps, one self-contained page and a summary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from objectives.files import write_text
from results import formatting
from results.columns import to_html, write_csv
from results.export.bit_map_files import remove_stale_bit_maps, write_bit_maps
from results.outcome import Outcome
from results.plots.heat_maps import write_bits_plot
from results.plots.pareto import write_pareto_plot
from results.plots.plot_info import bits_info, pareto_info
from results.plots.progress import write_progress_plot
from results.plots.progress_info import progress_info
from results.plots.unseen import write_unseen_plot
from results.report.markdown import summary_markdown
from results.report.polished import POLISHED_COLUMNS, PolishedMap, read_polished
from results.report.summary import caution_lines, export_commands, front_lines, lead_lines
from results.report.tables import (
    baseline_columns,
    baseline_rows,
    compared_pick_rows,
    front_columns,
    front_rows,
    front_table,
    pick_columns,
    picks_table,
    trials_table,
)
from results.statistics.analysis import Analysis

MOST_FAILURES = 20
"""How many failed trials the page lists; trials.csv has them all."""

_PLOTS = {
    "pareto": "Damage and MCC of every map against its compression; pareto.csv has the numbers",
    "unseen": "Damage on sentences that the search did not see, against compression; unseen.csv has the numbers",
    "bits": "The width of every layer in the picked maps; bits.csv has the numbers",
    "sensitivity": "The damage of each layer alone at each width; sensitivity.csv has the numbers",
    "progress": "The least damage so far at each size, over evaluations and time; progress.csv has the numbers",
}


def write_report(found: Analysis, directory: Path) -> None:
    """Write everything that a run shows into its directory, each file in one step.

    That is ``trials.csv``, ``front.csv``, ``picks.csv``, ``{pareto,bits,progress}.{png,svg,csv}``, ``report.html``,
    ``report.md`` and the front's maps in ``bitmaps/``, and ``unseen.{png,svg,csv}`` where maps were scored on unseen
    sentences. Maps that left the front are removed from there at the end, so that no table ever names a file that is
    gone. The plot of the sensitivities is shown where the directory has it.

    Args:
        found: what follows from a run of any kind: without trials, without feasible ones, with failed ones.
        directory: the run directory; it is made when it is missing.

    Raises:
        OSError: the directory cannot be written.
        InputError: its table of polished maps cannot be read.
    """
    outcome = found.outcome
    write_bit_maps(outcome, found.front, directory)
    write_csv(trials_table(outcome), directory / "trials.csv")
    write_csv(front_table(found), directory / "front.csv")
    write_csv(picks_table(found), directory / "picks.csv")
    plots = {
        "pareto": write_pareto_plot(pareto_info(found), directory),
        "bits": write_bits_plot(bits_info(found), directory),
        "progress": write_progress_plot(progress_info(found), directory),
    }
    if found.unseen:
        plots["unseen"] = write_unseen_plot(found, directory)
    if (directory / "sensitivity.svg").is_file():
        plots["sensitivity"] = (directory / "sensitivity.svg").read_text(encoding="utf-8")
    write_text(directory / "report.html", report_page(found, str(directory), plots, read_polished(directory)))
    write_text(directory / "report.md", summary_markdown(found, export_commands(found, str(directory))))
    remove_stale_bit_maps(outcome, found.front, directory)


def report_page(found: Analysis, run: str, plots: dict[str, str], polished: Sequence[PolishedMap] = ()) -> str:
    """Return the page as HTML that needs no other file and no network.

    Args:
        found: what it tells.
        run: the run directory as the commands on the page name it.
        plots: by name, as matplotlib writes them in SVG; ``sensitivity`` and ``unseen`` may be missing.
        polished: what became of maps that were polished.
    """
    outcome = found.outcome
    return render(
        "report.html.j2",
        outcome=outcome,
        found=found,
        lead=lead_lines(found),
        about_front=front_lines(found),
        caution=caution_lines(found),
        picks=to_html(pick_columns(found), compared_pick_rows(found), "cards"),
        unanswered=[(line.request, line.missing) for line in found.headlines if line.trial is None],
        front=to_html(front_columns(found), front_rows(found), "sortable"),
        baselines=to_html(baseline_columns(found), baseline_rows(found), "sortable"),
        any_baseline=bool(baseline_rows(found)),
        failures=[(trial.label, trial.failure) for trial in found.failed[:MOST_FAILURES]],
        unlisted_failures=max(len(found.failed) - MOST_FAILURES, 0),
        polished=to_html(POLISHED_COLUMNS, polished) if polished else "",
        commands=export_commands(found, run),
        facts=_facts(found),
        quality=formatting.QUALITY_WORDS[outcome.quality],
        constraint=formatting.constraint(outcome),
        plots={name: inline(svg, name, _PLOTS[name]) for name, svg in plots.items()},
    )


def render(template: str, **values: object) -> str:
    """Return a template of this package with values in it, every one of them escaped."""
    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["included"] = lambda name: Markup(_read(name))  # noqa: S704  # our own files
    return environment.get_template(template).render(**values)


def inline(svg: str, name: str, description: str) -> Markup:
    """Return an SVG as part of a page, described for those who cannot see it, and as short as it can be said.

    matplotlib has escaped every text in it. What stands before the ``svg`` element, metadata, comments and identifiers
    that nothing refers to are dropped; the others get a prefix, since those of two plots on one page must differ.
    Places are kept to a hundredth of a point.
    """
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(
        r'\b(?:d|x|y)="[^"]*"|translate\([^)]*\)', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body
    )
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r">\s+<", ">\n<", body)
    return Markup('<svg role="img" aria-label="{}"').format(description) + Markup(body.removeprefix("<svg"))  # noqa: S704


def _read(name: str) -> str:
    return files("results.report").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def _holdout(outcome: Outcome) -> str:
    source, scored = outcome.holdout_source, outcome.holdout
    if scored is not None:
        return f"{source}: {scored.labels.size:,} sentences, scored after {formatting.maps(scored.trials)}"
    return f"{source}, not scored yet" if source else "none"


def _unseen(outcome: Outcome) -> str:
    if outcome.unseen is None:
        return "none scored"
    scored = formatting.maps(len(outcome.unseen.log_odds))
    return f"{outcome.unseen.fp32_log_odds.size:,} of those for training, without labels; {scored}"


def _facts(found: Analysis) -> list[tuple[str, str]]:
    """Return where everything came from, in order."""
    outcome = found.outcome
    facts = [
        ("run", outcome.name),
        ("model", outcome.model),
        ("data", outcome.data),
        ("sentences", f"{outcome.labels.size:,}, of which {int((outcome.labels == 1).sum()):,} are acceptable"),
        ("unseen sentences", _unseen(outcome)),
        ("holdout set", _holdout(outcome)),
        ("layers", f"{len(outcome.footprint.layers)}"),
        ("quality", formatting.QUALITY_WORDS[outcome.quality]),
        ("size constraint", formatting.constraint(outcome)),
        ("margin", formatting.loss(outcome.margin)),
        ("maps", f"{found.complete:,} evaluated, {len(found.failed):,} failed"),
    ]
    quick = [trial for trial in outcome.trials if trial.precision != "fp32"]
    if quick:
        left = sum(trial.precision != "fp32" for trial in found.shown)
        state = f"{left:,} maps not scored again in FP32 yet" if left else "all scored again in FP32"
        facts.append(("precision", f"{quick[0].precision} while searching; front, picks and baselines: {state}"))
    if outcome.trials:
        cost_s = sum(trial.elapsed_s for trial in outcome.trials)
        facts.append(("cost", f"{formatting.duration(cost_s)} of evaluating"))
        passed = formatting.duration(max(trial.finished_s for trial in outcome.trials))
        facts.append(("from the first trial to the last", f"{passed}, pauses included"))
    return [*facts, *outcome.provenance]
