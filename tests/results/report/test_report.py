"""The report and the sentences at its top, for ordinary runs and for those with few results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from objectives.bit_maps import parse_bit_map, read_bit_map
from objectives.files import write_text
from results.columns import shown
from results.export.bit_map_files import remove_stale_bit_maps, write_bit_maps
from results.outcome import Outcome
from results.pareto import front
from results.report.report import write_report
from results.report.summary import caution_lines, front_lines
from results.report.tables import (
    baseline_columns,
    baseline_rows,
    brief_columns,
    compared_pick_rows,
    further_pick_columns,
    pick_columns,
    picks_table,
)
from results.report.verdict import verdict_of
from results.statistics.analysis import analyse
from tests.results.synthetic import (
    empty_outcome,
    failed,
    made_up_outcome,
    made_up_trial,
    scored,
    with_holdout,
    with_trials,
    with_unseen,
)

pytestmark = pytest.mark.end_to_end  # whole reports with their plots

FILES = {"trials.csv", "front.csv", "report.html", "bits.csv", "bits.png", "bits.svg", "pareto.csv", "pareto.png"}
FILES |= {"pareto.svg", "picks.csv", "progress.csv", "progress.png", "progress.svg", "report.md"}


class Page(HTMLParser):
    """Checks that tags nest, and collects identifiers, references and the visible text."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.references.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script", "path"):
            self.text += data


def page_of(directory: Path) -> Page:
    return Page((directory / "report.html").read_text(encoding="utf-8"))


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    made = made_up_outcome(trials=40)
    return replace(made, trials=(*made.trials[:-1], failed(made.trials[-1], "log-odds were <NaN>")))


@pytest.fixture(scope="module")
def directory(outcome: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "made up"
    write_report(analyse(outcome), path)
    return path


def test_the_run_directory_holds_what_is_promised(directory: Path, outcome: Outcome) -> None:
    assert names(directory) == FILES | {"bitmaps"}
    assert len(pd.read_csv(directory / "trials.csv")) == len(outcome.trials)
    assert len(pd.read_csv(directory / "front.csv")) == len(front(outcome))


def test_bit_maps_of_the_front_read_back(directory: Path, outcome: Outcome) -> None:
    layers = outcome.footprint.layers
    table = pd.read_csv(directory / "front.csv", dtype={"bits": str})
    listed = [*table["bit_map_text"], *table["bit_map_json"]]
    assert {f"bitmaps/{name}" for name in names(directory / "bitmaps")} == set(listed)
    assert sorted(table["bit_map_text"]) == list(table["bit_map_text"])  # names sort by compression
    for trial, text, document in zip(front(outcome), table["bit_map_text"], table["bit_map_json"], strict=True):
        assert read_bit_map(directory / text, layers) == trial.bit_map
        content = (directory / document).read_text(encoding="utf-8")
        assert parse_bit_map(content, layers, subject="it") == trial.bit_map
        provenance = json.loads(content)["provenance"]
        assert trial.scores is not None
        assert provenance["trial"] == trial.number
        assert provenance["scores"]["damage"] == trial.scores.damage
        assert provenance["packed_bytes"] == outcome.footprint.packed_bytes(trial.bit_map)
        assert provenance["facts"] == dict(outcome.provenance)
    sampled = next(trial for trial in front(outcome) if trial.origin == "sampler")
    assert f"bitmaps/{sampled.nominal_compression:05.2f}x-trial-{sampled.number}.txt" in listed


def test_the_page_needs_nothing_but_its_neighbours(directory: Path) -> None:
    page = page_of(directory)
    assert not page.tags & {"iframe", "object", "img"}
    assert len(page.ids) == len(set(page.ids))
    for reference in page.references:
        if reference.startswith("#"):
            assert reference[1:] in page.ids
        elif not reference.startswith("data:"):
            assert (directory / reference).is_file(), reference
    html = (directory / "report.html").read_text(encoding="utf-8")
    assert {match.split("/")[0] for match in re.findall(r"https?://([^\"'\s]+)", html)} == {"www.w3.org"}  # namespaces
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(page.ids)


def test_the_page_says_what_was_found(directory: Path, outcome: Outcome) -> None:
    text = page_of(directory).text
    analysis = analyse(outcome)
    for line in (
        *front_lines(analysis),
        *caution_lines(analysis),
        f"{verdict_of(analysis).claim}.",
        *(part for pair in verdict_of(analysis).points for part in pair),
    ):
        assert line in text
    assert "log-odds were <NaN>" in text  # escaped in the file, or it would be a tag here
    for request in ("best@5.5x", "best@8x", "best@10.67x", "best@12.8x"):
        assert f"bitfront export --run '{directory}' --pick {request} --format text" in text
    for fact in ("models/made-up", "data/made-up", "affine, per channel", "at least 5.5x (nominal)"):
        assert fact in text


def test_what_others_wrote_is_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert('$x$')</script>"
    outcome = one_trial()
    outcome = with_trials(outcome, [*outcome.trials, made_up_trial(outcome, 1, (3,) * 76)])
    trials = [replace(trial, label=f"{trial.label}{hostile}") for trial in outcome.trials[:-1]]
    trials.append(failed(outcome.trials[-1], hostile))
    facts = ((hostile, hostile),)
    outcome = replace(outcome, name=hostile, model=hostile, data=hostile, trials=tuple(trials), provenance=facts)
    write_report(analyse(outcome), tmp_path)
    page = page_of(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<script>") == 1  # our own
    assert hostile in page.text
    assert hostile not in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(re.fullmatch(r"[0-9a-z.-]+", name) for name in names(tmp_path / "bitmaps"))


def test_bit_maps_that_left_the_front_are_removed(tmp_path: Path) -> None:
    outcome = baselines_only()
    update_bit_maps(outcome, tmp_path)
    before = names(tmp_path / "bitmaps")
    assert "08.00x-uniform-4-trial-3.txt" in before
    (tmp_path / "bitmaps" / "mine.txt").write_text("a note", encoding="utf-8")
    kept = tmp_path / "bitmaps" / "16.00x-uniform-2-trial-1.txt"
    stamp = kept.stat().st_mtime_ns
    better = scored(made_up_trial(outcome, 8, (4,) * 76), damage=0.0)
    update_bit_maps(with_trials(outcome, [*outcome.trials, better]), tmp_path)
    after = names(tmp_path / "bitmaps")
    gone = ("08.00x-uniform-4-trial-3", "06.40x-uniform-5-trial-4")
    assert before - after == {f"{stem}.{suffix}" for stem in gone for suffix in ("txt", "json")}
    assert after - before == {"08.00x-trial-8.txt", "08.00x-trial-8.json", "mine.txt"}
    assert kept.stat().st_mtime_ns == stamp  # what is as it should be is not written again


@pytest.mark.usefixtures("unrendered")
def test_the_report_itself_removes_stale_bit_maps(tmp_path: Path) -> None:
    write_text(tmp_path / "bitmaps" / "09.99x-trial-5.txt", "stale")
    write_report(analyse(one_trial()), tmp_path)
    assert names(tmp_path / "bitmaps") == {"08.00x-trial-0.txt", "08.00x-trial-0.json"}


@pytest.mark.usefixtures("unrendered")
def test_picks_off_the_front_have_files_until_they_are_picks_no_more(tmp_path: Path) -> None:
    """Picks minimise damage on unseen sentences, so the front of the search's own may lack them."""
    outcome = made_up_outcome(trials=12)
    feasible = [trial for trial in outcome.trials if trial.feasible]
    beaten = next(trial for trial in feasible if trial not in front(outcome) and trial.nominal_compression >= 8)
    unseen = with_unseen(outcome, [beaten])
    analysis = analyse(unseen)
    write_report(analysis, tmp_path)
    table = pd.read_csv(tmp_path / "picks.csv")
    picked = table[table["number"] == beaten.number]
    assert len(picked) >= 2
    text, document = (tmp_path / picked[name].iloc[0] for name in ("bit_map_text", "bit_map_json"))
    assert read_bit_map(text, outcome.footprint.layers) == beaten.bit_map
    assert json.loads(document.read_text(encoding="utf-8"))["provenance"]["trial"] == beaten.number
    links = [link for link in page_of(tmp_path).references if link.startswith("bitmaps/")]
    assert links.count(picked["bit_map_text"].iloc[0]) >= 2 * len(picked)  # in the table, and beside the commands
    assert all((tmp_path / link).is_file() for link in links)
    write_report(analyse(outcome), tmp_path)
    assert not text.exists() and not document.exists()
    assert len(names(tmp_path / "bitmaps")) == 2 * len(front(outcome))


@pytest.mark.usefixtures("unrendered")
def test_the_slowest_picture_waits_for_the_end_of_the_search(tmp_path: Path) -> None:
    analysis = analyse(one_trial())
    write_report(analysis, tmp_path, running="searching: 1/9")
    assert {"bits.csv", "pareto.png"} < names(tmp_path) and "bits.png" not in names(tmp_path)
    assert 'href="bits.png"' not in (tmp_path / "report.html").read_text(encoding="utf-8")
    write_report(analysis, tmp_path)
    assert {"bits.png", "bits.svg"} < names(tmp_path)
    assert 'href="bits.png"' in (tmp_path / "report.html").read_text(encoding="utf-8")


def update_bit_maps(outcome: Outcome, directory: Path) -> None:
    write_bit_maps(outcome, front(outcome), directory)
    remove_stale_bit_maps(outcome, front(outcome), directory)


def all_failed() -> Outcome:
    outcome = made_up_outcome(trials=25)
    return replace(outcome, trials=tuple(failed(trial) for trial in outcome.trials))


def none_feasible() -> Outcome:
    outcome = made_up_outcome(trials=4)
    return replace(outcome, trials=tuple(replace(trial, feasible=False) for trial in outcome.trials))


def one_trial() -> Outcome:
    outcome = empty_outcome()
    return with_trials(outcome, [made_up_trial(outcome, 0, (4,) * 76)])


def baselines_only() -> Outcome:
    return made_up_outcome(trials=0)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            empty_outcome,
            [
                "No map has been evaluated yet",
                "The documented map is not scored: this outcome has none. Maps are compared with baselines only.",
                "There is no map to export yet",
                "No map is on the front yet",
            ],
        ),
        (
            all_failed,
            ["No answer yet.", "No map has been scored: all 33 evaluations failed", "and 13 more, in trials.csv"],
        ),
        (
            none_feasible,
            [
                "The front is empty: 12 maps evaluated, none meets the constraint of at least 5.5x (nominal)",
                "misses the constraint; not beaten by the front",
                "5.5x nominal or more: no map has been evaluated that could be picked",
                "No map is proven to be within 0.01 MCC of FP32",
            ],
        ),
        (
            one_trial,
            [
                "has 1 map (1 map evaluated): 1 proposed by the sampler",
                "10.67x nominal or more: no evaluated map is that small",
                "Knee of the front: a front of fewer than three maps has no knee",
            ],
        ),
        (
            baselines_only,
            [
                "beat 0 of the 4 baselines",
                "not beaten: uniform 2, uniform 3, uniform 4, uniform 5",
            ],
        ),
    ],
)
def test_runs_with_few_results_say_so(make: Callable[[], Outcome], expected: list[str], tmp_path: Path) -> None:
    write_report(analyse(make()), tmp_path)
    assert names(tmp_path) >= FILES
    text = re.sub(r"\s+", " ", page_of(tmp_path).text)
    for words in expected:
        assert words in text


def test_picks_are_compared_with_the_best_baseline_at_the_same_request() -> None:
    outcome = made_up_outcome(trials=0)
    searched = scored(made_up_trial(outcome, 8, (4,) * 75 + (3,)), damage=0.0)
    rival = next(trial for trial in outcome.trials if trial.label == "uniform 4")
    assert rival.scores is not None
    analysis = analyse(with_trials(outcome, [*outcome.trials, searched]))
    [baseline] = [column for column in pick_columns(analysis) if column.heading == "best baseline of that size"]
    texts = {row.pick: baseline.line(row) for row in compared_pick_rows(analysis)}
    assert texts["best@8x"] == f"uniform 4 of 8.00x nominal, validation damage {rival.scores.damage:.3g}"
    assert texts["best@10.67x"] == "this pick is a baseline: no searched map beats it"
    assert texts["FP32"] == texts["documented"] == texts["knee"] == ""


def test_the_page_says_what_beats_the_documented_map() -> None:
    def remark(outcome: Outcome) -> str:
        analysis = analyse(outcome)
        return baseline_columns(analysis)[-1].line(baseline_rows(analysis)[0])

    assert remark(made_up_outcome(trials=0)).startswith("misses the constraint; ")
    assert remark(made_up_outcome(trials=0, min_compression=5.0)).startswith(
        "beaten by uniform 5 of 6.40x nominal with "
    )


def test_only_what_the_sampler_beat_is_counted() -> None:
    outcome = made_up_outcome(trials=0)
    # Uniform 4 now beats uniform 5, but no search had a part in that.
    trials = [scored(trial, damage=0.0) if trial.label == "uniform 4" else trial for trial in outcome.trials]
    assert "uniform 5" not in {trial.label for trial in front(with_trials(outcome, trials))}
    lines = front_lines(analyse(with_trials(outcome, trials)))
    assert any("the sampler's maps beat 0 of the 4 baselines" in line for line in lines)


@pytest.mark.usefixtures("unrendered")
def test_the_page_says_by_how_much_each_baseline_is_beaten_or_that_it_is_not(tmp_path: Path) -> None:
    outcome = made_up_outcome(trials=0)
    damages = {
        trial.label: trial.scores.damage for trial in outcome.trials if trial.scores is not None and trial.scores.damage
    }
    better = scored(made_up_trial(outcome, 8, (4,) * 75 + (3,)), damage=0.25 * damages["uniform 4"])
    worse = scored(made_up_trial(outcome, 9, (3,) * 75 + (2,)), damage=1.5 * damages["uniform 3"])
    write_report(analyse(with_trials(outcome, [*outcome.trials, better, worse])), tmp_path)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "beaten by trial 8 of 8.01x nominal with 25% of its damage" in text
    assert (
        "on the front; the sampler's best of that size or less is trial 9 of 10.69x nominal with 150% of its damage"
        in text
    )
    assert "on the front; the sampler has no map that small" in text  # uniform 2


@pytest.mark.usefixtures("unrendered")
def test_the_page_names_which_sentences_its_figures_are_of(tmp_path: Path) -> None:
    outcome = with_holdout(replace(made_up_outcome(trials=30), margin=1.0), noise=2.0)
    analysis = analyse(outcome)
    for trial in outcome.trials:
        holdout = analysis.holdout[trial.number]
        assert holdout.metric_interval.low <= holdout.metric <= holdout.metric_interval.high
        assert trial.scores is not None and holdout.damage > trial.scores.damage
    write_report(analysis, tmp_path)
    assert picks_table(analysis)["confirmed_mcc"].notna().all()
    page, summary = page_of(tmp_path).text, (tmp_path / "report.md").read_text(encoding="utf-8")
    for text in (page, summary):
        assert "validation MCC (95% interval)" in text and "on 200 holdout sentences" in text
    assert "MCC against FP32, holdout" in page
    assert "0.3: 200 sentences, scored after 38 maps" in page
    withdrawn = analyse(with_holdout(outcome, withdrawn=True))
    assert not withdrawn.holdout and picks_table(withdrawn)["confirmed_mcc"].isna().all()


def test_the_page_says_how_damage_spreads_but_only_with_the_further_columns() -> None:
    outcome = made_up_outcome(trials=30)
    analysis = analyse(with_unseen(outcome, outcome.trials))
    rows = compared_pick_rows(analysis)
    brief = [column.heading for column in shown(brief_columns(analysis, pick_columns(analysis)), rows)]
    assert brief == [
        *("pick", "map", "size", "smaller", "bits a weight", "validation MCC (95% interval)", "MCC against FP32"),
        *("validation damage", "unseen damage"),
    ]
    sizes, damages = ([column.heading for column in shown(more, rows)] for more in further_pick_columns(analysis))
    assert not {*sizes[1:], *damages[1:]} & {*brief}
    assert "nominal" in sizes and "best baseline of that size" in sizes
    everything = {column.heading for column in shown(pick_columns(analysis), rows)}
    assert len(everything) == len({*sizes, *damages}) + 6  # map, size, smaller, bits, MCC, and MCC against FP32
    assert damages[1:5] == [
        *("damage (mean KL divergence from FP32)", "damage, standard error", "damage, 99% of sentences below"),
        "damage, worst sentence",
    ]
