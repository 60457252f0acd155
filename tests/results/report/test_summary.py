"""The last lines on the terminal, the front in words, and the commands that export picks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from objectives.layers import BitMap
from results.formatting import confidence
from results.outcome import Origin, Outcome, Trial
from results.report.summary import checkpoint_command, ending_lines, export_commands, front_lines
from results.report.verdict import verdict_of
from results.statistics.analysis import analyse
from results.statistics.picks import SMALLEST, pick
from tests.results.synthetic import (
    empty_outcome,
    eventful_outcome,
    made_up_outcome,
    made_up_trial,
    scored,
    with_trials,
)


def narrowed(outcome: Outcome, number: int, narrow: int, origin: Origin, **scores: float) -> Trial:
    """Return a map of 4 bits whose first ``narrow`` layers have 3."""
    layers = len(outcome.footprint.layers)
    bit_map: BitMap = (3,) * narrow + (4,) * (layers - narrow)
    return scored(made_up_trial(outcome, number, bit_map, origin, f"{origin} {number}"), **scores)


def test_a_baseline_is_beaten_by_any_map_of_the_sampler_not_only_by_its_front() -> None:
    base = made_up_outcome(trials=0)
    uniform_4 = next(trial for trial in base.trials if trial.label == "uniform 4")
    sampled, knapsack = narrowed(base, 50, 5, "sampler", damage=0.03), narrowed(base, 51, 20, "plain", damage=0.02)
    analysis = analyse(with_trials(base, [scored(uniform_4, damage=0.05), sampled, knapsack]))
    assert sampled not in analysis.front
    assert "beat 1 of the 2 baselines" in front_lines(analysis)[-1]
    assert front_lines(analysis)[-1].endswith("not beaten: plain 51.")


@pytest.mark.parametrize("margin", [0.05, 0.1, 1.0])
def test_the_command_that_exports_the_smallest_map_says_the_margin(margin: float) -> None:
    """The report may be made with another margin than the run's, by which `export` would choose."""
    outcome = replace(made_up_outcome(sentences=800), margin=margin)
    command = next(line for line in export_commands(analyse(outcome), "runs/x") if "smallest" in line)
    request = command.split()[command.split().index("--pick") + 1]
    assert pick(replace(outcome, margin=0.01), request) == pick(outcome, SMALLEST)


def test_confidence_is_never_rounded_up_to_what_it_is_compared_with() -> None:
    texts = [confidence(probability) for probability in (0.004, 0.0099, 0.29, 0.9499, 0.95, 0.9949, 0.996)]
    assert texts == ["under 1%", "under 1%", "29%", "94%", "95%", "99%", "over 99%"]


@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("unscored", [0, 7])
@pytest.mark.parametrize(
    ("holdout", "run"),
    [("none", "runs/x"), ("not yet", "runs/made-up"), ("scored", "runs/made-up"), ("withdrawn", "runs/x")],
)
def test_a_search_ends_in_25_lines_of_100_columns(margin: float, unscored: int, holdout: str, run: str) -> None:
    outcome = replace(eventful_outcome(margin), unscored=unscored)
    assert outcome.holdout is not None
    if holdout != "scored":
        withdrawn = replace(outcome.holdout, withdrawn=True) if holdout == "withdrawn" else None
        outcome = replace(outcome, holdout=withdrawn, holdout_source="" if holdout == "none" else "0.3")
    analysis = analyse(outcome)
    command = checkpoint_command(analysis, run)
    assert command.endswith(f" --format packed --out {run}-packed")
    lines = ending_lines(analysis, run, command)
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100
    report, *export = lines[lines.index("") :][lines[lines.index("") :].index("", 1) + 1 :]
    assert report == f"report: {run}/report.html"
    assert "".join(export).replace("\\    ", "") == f"export: {command}"
    verdict = " ".join("\n".join(lines).partition("\n\n")[0].split())
    for question, answer in verdict_of(analysis).points:
        assert f"{question} {answer}." in verdict
    assert ("7 maps must still be scored" in verdict) == bool(unscored)
    for name, trial_ in (("documented", analysis.reference), ("best@12.8x", pick(outcome, "best@12.8x"))):
        assert trial_ is not None and trial_.scores is not None
        interval, unseen = analysis.intervals[trial_.number].metric, analysis.unseen[trial_.number].damage
        row = next(line for line in lines if line.startswith(name))
        assert row.split()[-2:] == [f"{trial_.scores.damage:.3g}", f"{unseen:.3g}"]
        assert f"{trial_.scores.metric:.3f} ({interval.low:.3f} to {interval.high:.3f})" in row
        assert f" {trial_.packed_compression:.2f}x " in row and " MB " in row
    assert [line.split()[0] for line in lines if " MB " in line and "instead" not in line][:2] == ["FP32", "documented"]


def test_a_search_without_results_ends_in_few_lines() -> None:
    lines = ending_lines(analyse(empty_outcome()), "runs/x", "")
    assert lines == ["No answer yet.", "Why  No map has been evaluated yet.", "", "report: runs/x/report.html"]
