"""What a report says around its tables: the last lines of a search, the front, what to know, and how to export."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace

from objectives.errors import quoted
from objectives.metrics import METRIC_NAMES, metric_definition
from objectives.packing.footprint import AXIS_NAMES
from results.columns import to_terminal
from results.formatting import (
    constraint,
    maps,
    quality,
)
from results.outcome import Trial
from results.pareto import beaten_by, front
from results.report.distilled import DistilledMap
from results.report.tables import compared_pick_rows, request_with_margin, terminal_pick_columns
from results.report.verdict import verdict_of
from results.statistics.analysis import Analysis


def ending_lines(
    analysis: Analysis, run: str, export: str, width: int = 100, distilled: Sequence[DistilledMap] = ()
) -> list[str]:
    """Return the last lines of a search on a terminal: the verdict, the picks, the report and the export command.

    Paths are never broken, so a line with a long path may exceed ``width``.

    Args:
        analysis: of the run.
        run: its directory, as the user names it.
        export: the command that exports a pick; empty if there is none yet.
        width: of a line, in characters.
        distilled: the run's distilled maps.
    """
    verdict = verdict_of(analysis, distilled)
    lines = textwrap.wrap(f"{verdict.claim}.", width, break_on_hyphens=False)
    indent = 2 + max((len(question) for question, _ in verdict.points), default=0)
    for question, answer in verdict.points:
        lines += textwrap.wrap(
            f"{question:{indent}}{answer}.", width, subsequent_indent=" " * indent, break_on_hyphens=False
        )
    if not analysis.outcome.trials:  # FP32 alone is no table of picks
        return [*lines, "", f"report: {run}/report.html"]
    lines += ["", *to_terminal(terminal_pick_columns(analysis), compared_pick_rows(analysis), width), ""]
    lines.append(f"report: {run}/report.html")
    if export and len(f"export: {export}") > width:
        pick, _, target = export.partition(" --format ")
        lines += [f"export: {pick} \\", f"    --format {target}"]
    elif export:
        lines.append(f"export: {export}")
    return lines


def front_lines(analysis: Analysis) -> list[str]:
    """Return the size of the front, who proposed its maps, and which baselines no searched map beats."""
    outcome = analysis.outcome
    evaluated = f"{maps(analysis.complete)} evaluated"
    if analysis.failed:
        evaluated += f", {len(analysis.failed):,} failed"
    if not analysis.front:
        if not analysis.complete:
            return [f"The front is empty: {evaluated}."]
        return [f"The front is empty: {evaluated}, none meets the constraint of {constraint(outcome)}."]
    sampled = sum(trial.origin == "sampler" for trial in analysis.front)
    others = [trial for trial in analysis.front if trial.origin != "sampler"]
    composition = f"{sampled:,} proposed by the sampler"
    if others:
        composition += f", {len(others):,} not: {_labels(others)}"
    lines = [
        f"The front of {quality(outcome.quality, outcome.metric)} against {AXIS_NAMES[outcome.size_axis]} size has "
        f"{maps(len(analysis.front))} ({evaluated}): {composition}."
    ]
    baselines = [trial for trial in analysis.baselines if trial.scores is not None and trial.feasible]
    if baselines:
        sampled_trials = tuple(trial for trial in outcome.trials if trial.origin == "sampler")
        searched = front(replace(outcome, trials=sampled_trials))  # if any searched map beats a baseline, one here does
        unbeaten = [trial for trial in baselines if beaten_by(outcome, searched, trial) is None]
        ending = f"; not beaten: {_labels(unbeaten)}" if unbeaten else ""
        lines.append(
            f"On the search's own sentences the sampler's maps beat {len(baselines) - len(unbeaten)} of the "
            f"{len(baselines)} baselines that meet the constraint, in quality and size{ending}."
        )
    return lines


def no_reference_lines(analysis: Analysis) -> list[str]:
    """Return why maps are compared with baselines only; empty if the documented map is among the trials."""
    if analysis.reference is not None:
        return []
    note = analysis.outcome.reference_note
    reason = note.rstrip(".") if note else "it has not been evaluated yet"
    return [f"The documented map is not scored: {reason}. Maps are compared with baselines only."]


def caution_lines(analysis: Analysis) -> list[str]:
    """Return what a reader must know before trusting the figures."""
    outcome = analysis.outcome
    name = METRIC_NAMES[outcome.metric]
    definition = metric_definition(outcome.metric, outcome.head, outcome.label_names)
    defined = "" if definition == name else f"The metric is {definition}. "
    sentences = f"{len(outcome.labels):,} sentences" + (", each a pair of texts" if outcome.paired else "")
    of_numbers = "; for numbers, the squared change over twice the variance of FP32's predictions"
    return [
        f"{defined}Intervals are 95%, over {sentences}. The {name} of one map has a standard error of about "
        f"{analysis.fp32_standard_error:.3f} there, so the best {name} among many maps is partly luck. Damage (mean KL "
        f"divergence from FP32, nats a sentence{of_numbers if outcome.head.kind == 'numbers' else ''}) needs no labels "
        f"and is far less noisy. Picks by size minimise it among the maps whose {name} is not clearly below the best. "
        "Once maps are scored on unseen sentences, picks minimise it there. Corrected figures come from sentences that "
        "had no part in choosing the map, though the search has seen them."
    ]


def export_commands(analysis: Analysis, run: str, target: str = "--format text") -> list[str]:
    """Return one export command for each pick that has a map.

    ``target`` gives the format and the path. The command names the margin, which may differ from the run's.
    """
    answered = [headline.request for headline in analysis.headlines if headline.trial is not None]
    requests = (request_with_margin(analysis.outcome, request) for request in answered)
    return [f"bitfront export --run {quoted(run)} --pick {request} {target}" for request in requests]


def checkpoint_command(analysis: Analysis, run: str) -> str:
    """Return the command that exports the recommended pick as a checkpoint; empty without a pick."""
    axis = analysis.outcome.file_axis
    commands = export_commands(analysis, run, f"--format {axis} --out {quoted(f'{run}-{axis}')}")
    return commands[0] if commands else ""


def _labels(trials: list[Trial]) -> str:
    return ", ".join(trial.label for trial in trials)
