"""The first sentences of the report and the last lines on the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from objectives.layers import BitMap
from objectives.packing.footprint import SizeAxis
from objectives.scores import Precision
from results.formatting import DAMAGE, confidence
from results.outcome import HoldoutScores, Origin, Outcome, Trial
from results.report.leads import lead_lines, unseen_lead
from results.report.summary import ending_lines, export_commands, front_lines
from results.report.tables import front_table
from results.statistics.analysis import analyse
from results.statistics.picks import SMALLEST, pick
from tests.results.synthetic import empty_outcome, made_up_outcome, made_up_trial, scored, with_trials, with_unseen


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


@pytest.mark.parametrize("reference_precision", ["fp32", "bf16"])
def test_a_map_off_the_front_of_mcc_is_known_to_do_less_than_the_documented_one(reference_precision: Precision) -> None:
    base = made_up_outcome(trials=0, quality="mcc")
    documented = scored(base.trials[0], damage=0.03, metric=0.2)
    harmless, accurate = (
        narrowed(base, 60, 5, "sampler", damage=0.001, metric=0.3),
        narrowed(base, 61, 20, "sampler", metric=0.99),
    )
    accurate = scored(accurate, damage=0.1)
    documented = replace(documented, precision=reference_precision)
    analysis = analyse(with_trials(base, [documented, harmless, accurate]))
    assert harmless not in analysis.front
    claims = [claim for claim, _ in lead_lines(analysis)]
    if reference_precision == "fp32":
        assert "Smaller than the documented map, with less damage." in claims
    else:  # what is scored in another precision is no match
        assert "The documented map stands." in claims


def test_only_the_first_pick_is_called_confirmed() -> None:
    outcome = replace(made_up_outcome(sentences=800), margin=0.05, holdout_source="0.3")
    other = pick(replace(outcome, margin=0.1), SMALLEST)
    picked = {number: trial for number, trial in analyse(outcome).picked.items() if number != other.number}
    log_odds = {number: trial.log_odds for number, trial in picked.items() if trial.log_odds is not None}
    scores = HoldoutScores(
        "0.3", outcome.labels, outcome.in_domain, outcome.fp32_log_odds, log_odds, len(outcome.trials), withdrawn=False
    )
    outcome = replace(outcome, holdout=scores)
    assert lead_lines(analyse(outcome))[-1][0] == "Confirmed on the holdout set."
    wider = analyse(replace(outcome, margin=0.1))
    assert lead_lines(wider)[-1][0] == "Not confirmed."
    assert f"not {other.label}" in lead_lines(wider)[-1][1]


@pytest.mark.parametrize("margin", [0.05, 0.1, 1.0])
def test_the_command_that_exports_the_smallest_map_says_the_margin(margin: float) -> None:
    """The report may be made with another margin than the run's, by which `export` would choose."""
    outcome = replace(made_up_outcome(sentences=800), margin=margin)
    command = next(line for line in export_commands(analyse(outcome), "runs/x") if "smallest" in line)
    request = command.split()[command.split().index("--pick") + 1]
    assert pick(replace(outcome, margin=0.01), request) == pick(outcome, SMALLEST)


def test_no_pick_but_the_smallest_is_called_confirmed() -> None:
    outcome = replace(made_up_outcome(), margin=0.0, holdout_source="0.3")
    analysis = analyse(outcome)
    assert analysis.headlines[0].request == SMALLEST and analysis.headlines[0].trial is None
    log_odds = {number: trial.log_odds for number, trial in analysis.picked.items() if trial.log_odds is not None}
    scores = HoldoutScores(
        "0.3", outcome.labels, outcome.in_domain, outcome.fp32_log_odds, log_odds, len(outcome.trials), withdrawn=False
    )
    assert lead_lines(analyse(replace(outcome, holdout=scores)))[-1][0] == "Scored on the holdout set."


def test_maps_that_miss_the_constraint_may_be_smaller_than_the_documented_one_too() -> None:
    base = made_up_outcome(trials=0, min_compression=14.0)
    documented = scored(base.trials[0], damage=0.03)
    better = scored(next(trial for trial in base.trials if trial.label == "uniform 4"), damage=0.001)
    assert not better.feasible
    leads = lead_lines(analyse(with_trials(base, [documented, better])))
    assert any(words.startswith("Smaller than the documented map") for words, _ in leads)


def test_an_unfinished_check_is_the_first_claim() -> None:
    [(claim, reason)] = unseen_lead(analyse(replace(made_up_outcome(trials=4), unscored=7)))
    assert claim == "Not checked on unseen sentences yet" and reason.startswith("7 maps")


def test_outdated_scores_on_unseen_sentences_are_named_so() -> None:
    outcome = made_up_outcome()
    trials = [replace(trial, origin="plain") if trial.origin == "uniform" else trial for trial in outcome.trials]
    outcome = with_trials(outcome, trials)
    outcome = with_unseen(outcome, [trial for trial in outcome.trials if trial.feasible])
    assert outcome.unseen is not None
    [(_, current)] = unseen_lead(analyse(outcome))
    assert "since" not in current
    [(_, old)] = unseen_lead(analyse(replace(outcome, unseen=replace(outcome.unseen, trials=40, outdated=True))))
    assert "after 40 maps" in old and "since" in old


def test_confidence_is_never_rounded_up_to_what_it_is_compared_with() -> None:
    texts = [confidence(probability) for probability in (0.004, 0.0099, 0.29, 0.9499, 0.95, 0.9949, 0.996)]
    assert texts == ["under 1%", "under 1%", "29%", "94%", "95%", "99%", "over 99%"]


def eventful_outcome(margin: float) -> Outcome:
    """Return a run with a holdout set, unseen sentences, knapsack maps, and a search that went on after its checks."""
    outcome = replace(made_up_outcome(sentences=800), margin=margin, holdout_source="0.3")
    maps = [replace(trial, origin="plain") if trial.origin == "uniform" else trial for trial in outcome.trials]
    outcome = with_unseen(with_trials(outcome, maps), [trial for trial in maps if trial.feasible or not trial.number])
    assert outcome.unseen is not None
    log_odds = {trial.number: trial.log_odds for trial in maps if trial.log_odds is not None}
    sentences = (outcome.labels, outcome.in_domain, outcome.fp32_log_odds)
    scored_holdout = HoldoutScores("0.3", *sentences, log_odds, len(maps), withdrawn=False)
    return replace(outcome, holdout=scored_holdout, unseen=replace(outcome.unseen, trials=40, outdated=True))


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
    command = export_commands(analysis, run, f"--format packed --out {run}-packed")[0]
    lines = ending_lines(analysis, run, command)
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100
    report, *export = lines[lines.index("") :][lines[lines.index("") :].index("", 1) + 1 :]
    assert report == f"report: {run}/report.html"
    assert "".join(export).replace("\\    ", "") == f"export: {command}"
    verdict = "\n".join(lines).partition("\n\n")[0].replace("\n", " ")
    assert verdict.count(": ") >= 2 and verdict.endswith(".")
    assert ("7 maps must still be scored" in verdict) == bool(unscored)
    for name, trial_ in (("documented", analysis.reference), ("best@12.8x", pick(outcome, "best@12.8x"))):
        assert trial_ is not None and trial_.scores is not None
        interval, unseen = analysis.intervals[trial_.number].metric, analysis.unseen[trial_.number].damage
        row = next(line for line in lines if line.startswith(name))
        assert row.split()[-2:] == [f"{trial_.scores.damage:.3g}", f"{unseen:.3g}"]
        assert f"{trial_.scores.metric:.3f} ({interval.low:.3f} to {interval.high:.3f})" in row
        assert f" {trial_.nominal_compression:.2f}x " in row and " MB " in row
    assert [line.split()[0] for line in lines if " MB " in line and "instead" not in line][:2] == ["FP32", "documented"]


def test_a_search_without_results_ends_in_few_lines() -> None:
    lines = ending_lines(analyse(empty_outcome()), "runs/x", "")
    assert lines == ["No answer yet: no map has been evaluated yet.", "", "report: runs/x/report.html"]


@pytest.mark.parametrize("outcome", [empty_outcome(), made_up_outcome(trials=4)])
def test_a_run_that_is_not_complete_says_so_first(outcome: Outcome) -> None:
    reason = "a signal stopped it after 11 of 60 trials; the same command continues it"
    analysis = analyse(replace(outcome, unfinished=reason))
    assert lead_lines(analysis)[0] == ("This run is not complete.", f"{reason.capitalize()}.")
    assert " ".join(ending_lines(analysis, "runs/x", "")).startswith(f"This run is not complete: {reason}. ")
    assert "not complete" not in " ".join(claim for claim, _ in lead_lines(analyse(outcome)))


def test_damage_is_defined_at_its_first_mention() -> None:
    leads = [reason for _, reason in lead_lines(analyse(eventful_outcome(0.05)))]
    assert sum(DAMAGE in reason for reason in leads) == 1
    assert DAMAGE in next(reason for reason in leads if "damage" in reason)


@pytest.mark.parametrize("size_axis", ["nominal", "packed"])
def test_headlines_count_the_bytes_of_the_whole_model_and_name_what_is_not_searched(size_axis: SizeAxis) -> None:
    """A million weights outside the layers, beside 340,000 in them: nominal sizes of the rest say nothing."""
    base = made_up_outcome(trials=0)
    kept = {f"bert.encoder.layer.{block}.conv.weight": (100, 1000, 1) for block in range(10)}
    sizes = replace(base.footprint, kept={**base.footprint.kept, **kept})
    outcome = replace(eventful_outcome(0.05), footprint=sizes, size_axis=size_axis, min_compression=1.1)
    trials = [replace(trial, packed_compression=sizes.compression(trial.bit_map, "packed")) for trial in outcome.trials]
    analysis = analyse(with_trials(outcome, trials))
    smallest = analysis.headline(SMALLEST)
    assert smallest is not None and smallest.trial is not None
    ratio = sizes.fp32_packed_bytes / sizes.packed_bytes(smallest.trial.bit_map)
    assert ratio < 2 < smallest.trial.nominal_compression
    lines = ending_lines(analysis, "runs/x", "")
    assert lines[0].startswith(f"{ratio:.2f}x smaller, within 0.05 MCC of FP32: ")
    assert len(lines) <= 25
    for text in (" ".join(lines), " ".join(reason for _, reason in lead_lines(analysis))):
        assert f"{sizes.unsearched}." in text and "(bert.encoder.layer.*.conv.weight, " in text
    reasons = " ".join(reason for claim, reason in lead_lines(analysis) if claim != "Not searched.")
    assert "nominal" not in reasons and "bits per weight" not in reasons
    everything = " ".join(reason for _, reason in lead_lines(analyse(eventful_outcome(0.05))))
    assert "nominal" in everything and "bits per weight" in everything
    claims = [claim for claim, _ in lead_lines(analysis)]
    nominal = {f"{trial.nominal_compression:.2f}x" for trial in trials}
    assert not any(figure in claim for claim in claims for figure in nominal)
    assert not any(claim == "Not searched." for claim, _ in lead_lines(analyse(eventful_outcome(0.05))))


def test_a_search_by_onnx_size_speaks_of_onnx_files() -> None:
    outcome = replace(made_up_outcome(trials=8, size_axis="onnx", min_compression=2.0, seed=2), margin=0.2)
    analysis, sizes = analyse(outcome), outcome.footprint
    smallest = analysis.headline(SMALLEST)
    assert smallest is not None and smallest.trial is not None
    file_bytes = sizes.onnx_sizes.file_bytes(smallest.trial.bit_map)
    lines = ending_lines(analysis, "runs/x", "")
    assert lines[0].startswith(f"{sizes.onnx_sizes.fp32_bytes / file_bytes:.2f}x smaller, within 0.2 MCC of FP32: ")
    assert any("against ONNX size" in line for line in front_lines(analysis))
    assert any(f"{file_bytes / 1e6:.3g} MB" in line for line in lines)
    table = front_table(analysis)
    by_number = {trial.number: sizes.size(trial.bit_map, "onnx") for trial in outcome.trials}
    assert table["onnx_bytes"].tolist() == [by_number[number] for number in table["number"]]
    assert "onnx_bytes" not in front_table(analyse(made_up_outcome(trials=0)))
