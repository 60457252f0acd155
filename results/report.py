"""Writing what a run has found into its directory: tables, plots, bit maps and one self-contained page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from objectives.files import write_text
from results import words
from results.bit_map_files import bit_map_path, remove_stale_bit_maps, write_bit_maps
from results.findings import Findings, conclude
from results.outcome import Outcome, Trial
from results.pareto import beaten_by, least_damage, shown
from results.plot_heat_maps import write_bits_plot
from results.plot_info import bits_info, pareto_info
from results.plot_pareto import write_pareto_plot
from results.polished import PolishedMap, polished_row, read_polished
from results.summary import answer_lines, caution, front_lines
from results.tables import front_table, trials_table, write_csv

MOST_FAILURES = 20
"""How many failed trials the page lists; trials.csv has them all."""


@dataclass(frozen=True)
class Row:
    """One map in a table of the page, every number as words.

    Attributes:
        heading: what the row answers, as ``8x or more``; empty outside the answer's table.
        label: what the map is called.
        nominal: nominal compression.
        packed: packed compression.
        size: packed size.
        mcc: with its interval.
        damage: with its interval.
        agreement: with FP32.
        who: who proposed the map.
        remark: whether it meets the constraint, what beats it.
        file: the path of its text bit map beside the page; empty for maps off the front.
    """

    heading: str
    label: str
    nominal: str
    packed: str
    size: str
    mcc: str
    damage: str
    agreement: str
    who: str
    remark: str = ""
    file: str = ""


def write_report(outcome: Outcome, directory: Path) -> None:
    """Write everything that a run shows into its directory, each file in one step.

    That is ``trials.csv``, ``front.csv``, ``pareto.{png,svg,csv}``, ``bits.{png,svg,csv}``, ``report.html`` and the
    front's maps in ``bitmaps/``. Maps that left the front are removed from there at the end, so that no table ever
    names a file that is gone.

    Args:
        outcome: the state of a run, of any kind: without trials, without feasible ones, with failed ones.
        directory: the run directory; it is made when it is missing.

    Raises:
        OSError: the directory cannot be written.
        InputError: its table of polished maps cannot be read.
    """
    found = conclude(outcome)
    write_bit_maps(outcome, found.front, directory)
    write_csv(trials_table(outcome), directory / "trials.csv")
    write_csv(front_table(outcome, found), directory / "front.csv")
    pareto_svg = write_pareto_plot(pareto_info(found), directory)
    bits_svg = write_bits_plot(bits_info(found), directory)
    page = report_page(found, str(directory), pareto_svg, bits_svg, read_polished(directory))
    write_text(directory / "report.html", page)
    remove_stale_bit_maps(outcome, found.front, directory)


def report_page(found: Findings, run: str, pareto_svg: str, bits_svg: str, polished: Sequence[PolishedMap] = ()) -> str:
    """Return the page as HTML that needs no other file and no network.

    Args:
        found: what it tells.
        run: the run directory as the commands on the page name it.
        pareto_svg: the plots, as matplotlib writes them.
        bits_svg: likewise.
        polished: what became of maps that were polished.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("results").joinpath("report.html.j2").read_text(encoding="utf-8"))
    outcome = found.outcome
    return template.render(
        outcome=outcome,
        found=found,
        answer=answer_lines(found),
        about_front=front_lines(found),
        caution=caution(found),
        answer_rows=_answer_rows(found),
        front_rows=[_row(found, trial) for trial in found.front],
        rival_rows=_rival_rows(found),
        failures=[(trial.label, trial.failure) for trial in found.failed[:MOST_FAILURES]],
        unlisted_failures=max(len(found.failed) - MOST_FAILURES, 0),
        polished_rows=[polished_row(map_) for map_ in polished],
        commands=_commands(found, run),
        facts=_facts(found),
        quality=words.QUALITY_WORDS[outcome.quality],
        constraint=words.constraint(outcome),
        pareto_svg=_inline(
            pareto_svg, "pareto", "Damage and MCC of every map against its compression; pareto.csv has the numbers"
        ),
        bits_svg=_inline(bits_svg, "bits", "The width of every layer in the picked maps; bits.csv has the numbers"),
    )


def _row(found: Findings, trial: Trial, heading: str = "", remark: str = "") -> Row:
    footprint = found.outcome.footprint
    intervals = found.intervals.get(trial.number)
    if trial.scores is None or intervals is None:
        mcc = damage = agreement = "failed"
    else:
        mcc = words.mcc_with(trial.scores.mcc, intervals.mcc)
        damage = words.damage_with(trial.scores.damage, intervals.damage)
        agreement = words.share(trial.scores.agreement)
    return Row(
        heading=heading,
        label=trial.label,
        nominal=words.times(trial.nominal_compression),
        packed=words.times(trial.packed_compression),
        size=words.megabytes(footprint.packed_bytes(trial.bits)),
        mcc=mcc,
        damage=damage,
        agreement=agreement,
        who=words.proposed_by(trial),
        remark=remark,
        file=bit_map_path(found.outcome, trial, "txt") if trial.number in found.front_numbers else "",
    )


def _answer_rows(found: Findings) -> list[Row]:
    """Return FP32, the documented map and the picks, one under the other."""
    fp32 = found.outcome.fp32
    rows = [
        Row(
            heading="FP32",
            label="",
            nominal="1x",
            packed="1x",
            size=words.megabytes(found.outcome.footprint.fp32_packed_bytes),
            mcc=words.mcc_with(fp32.mcc, found.fp32_mcc),
            damage="0",
            agreement="100%",
            who="",
        )
    ]
    if found.reference is not None:
        rows.append(_row(found, found.reference, heading="documented"))
    rows += [
        _row(found, headline.trial, heading=f"{headline.request.removeprefix('best@')} or more")
        for headline in found.headlines
        if headline.trial is not None
    ]
    return rows


def _rival_rows(found: Findings) -> list[Row]:
    """Return the reference and the contenders, each with what became of it."""
    trials = [*([found.reference] if found.reference is not None else []), *found.contenders]
    return [_row(found, trial, remark=_remark(found, trial)) for trial in trials]


def _remark(found: Findings, trial: Trial) -> str:
    if trial.scores is None:
        return f"failed: {trial.failure}"
    missed = "" if trial.feasible else "misses the constraint; "
    better = beaten_by(found.outcome, found.front, trial)
    if better is not None:
        return f"{missed}beaten by {_compared(found, better, trial)}"
    standing = "on the front" if trial.number in found.front_numbers else f"{missed}not beaten by the front"
    challenger = least_damage(
        found.outcome, [other for other in found.outcome.trials if other.origin == "sampler"], trial
    )
    if challenger is None:
        return f"{standing}; the sampler has no map that small"
    return f"{standing}; the sampler's best of that size or less is {_compared(found, challenger, trial)}"


def _compared(found: Findings, other: Trial, trial: Trial) -> str:
    """Return by how much another map's damage is less, or more, at what size."""
    assert other.scores is not None
    assert trial.scores is not None
    what = f"{other.label} of {words.times(other.compression(found.outcome.size_axis))}"
    if trial.scores.damage == 0:
        return what
    return f"{what} with {other.scores.damage / trial.scores.damage:.0%} of its damage"


def _commands(found: Findings, run: str) -> list[str]:
    """Return the command that exports each pick; picks that nothing reaches yet are left out."""
    return [
        f"bitfront export --run {shlex.quote(run)} --pick {headline.request} --format text"
        for headline in found.headlines
        if headline.trial is not None
    ]


def _facts(found: Findings) -> list[tuple[str, str]]:
    """Return where everything came from, in order."""
    outcome = found.outcome
    facts = [
        ("run", outcome.name),
        ("model", outcome.model),
        ("data", outcome.data),
        ("sentences", f"{outcome.labels.size:,}, of which {int((outcome.labels == 1).sum()):,} are acceptable"),
        ("layers", f"{len(outcome.footprint.layers)}"),
        ("quality", words.QUALITY_WORDS[outcome.quality]),
        ("size constraint", words.constraint(outcome)),
        ("maps", f"{found.complete:,} evaluated, {len(found.failed):,} failed"),
    ]
    scouted = [trial for trial in outcome.trials if trial.precision != "fp32"]
    if scouted:
        unconfirmed = sum(trial.precision != "fp32" for trial in shown(outcome))
        told = f"{unconfirmed:,} maps not confirmed in FP32 yet" if unconfirmed else "all confirmed in FP32"
        facts.append(("precision", f"{scouted[0].precision} while searching; front, reference and contenders: {told}"))
    if outcome.trials:
        facts.append(("time searched", words.duration(max(trial.finished_s for trial in outcome.trials))))
    return [*facts, *outcome.provenance]


def _inline(svg: str, name: str, description: str) -> Markup:
    """Return an SVG as part of a page, described for those who cannot see it.

    matplotlib has escaped every text in it. What stands before the ``svg`` element, and the metadata, are dropped; its
    identifiers get a prefix, since those of two plots on one page must differ.
    """
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    return Markup('<svg role="img" aria-label="{}"').format(description) + Markup(body.removeprefix("<svg"))  # noqa: S704
