"""The report in a real browser: quiet, sortable, with a plot to touch; it asks for nothing outside its file."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from objectives.layers import WIDTHS
from results.pareto import front
from results.plots.heat_maps import write_sensitivity_plot
from results.report.report import Running, report_page, write_report
from results.report.verdict import AGAINST, CERTAIN, GOOD, SMALL
from results.statistics.analysis import Analysis, analyse
from tests.results.browser import Browser, browser, needs_browser
from tests.results.synthetic import made_up_distilled, made_up_outcome, with_trials, with_unseen

pytestmark = needs_browser

DESKTOP, PHONE = 1200, 390


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysis]:
    directory = tmp_path_factory.mktemp("page") / "run"
    outcome = made_up_outcome(trials=60)
    outcome = with_unseen(outcome, outcome.trials)
    layers = outcome.footprint.layers
    damages = np.geomspace(0.3, 1e-7, len(layers))[:, None] * 4.0 ** -np.arange(len(WIDTHS))
    write_sensitivity_plot(layers, damages, np.ones(damages.shape, dtype=np.bool_), directory)
    analysis = analyse(outcome)
    write_report(analysis, directory)
    return directory / "report.html", analysis


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_is_quiet_and_fits(width: int, page: tuple[Path, Analysis], chromium: Browser, tmp_path: Path) -> None:
    path, analysis = page
    chromium.open(path, width)
    requested = {request["request"]["url"] for request in chromium.reported("Network.requestWillBeSent")}
    assert {url for url in requested if not url.startswith("data:")} == {path.as_uri()}
    assert chromium.reported("Runtime.consoleAPICalled") == []
    assert chromium.reported("Runtime.exceptionThrown") == []
    assert chromium.reported("Log.entryAdded") == []
    # Wide tables and plots scroll by themselves; the page does not.
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate("document.querySelectorAll('.wide svg').length") == 3
    assert (
        chromium.evaluate("document.querySelectorAll(':is(#bits-plot, #sensitivity-plot) + .maps figure').length") >= 8
    )
    # Plots fit, and their text, of 10 points, can be read.
    for plot in ("unseen", "progress"):
        scale = "(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
        assert chromium.evaluate(f"{scale}(document.querySelector('#{plot}-plot + .wide svg'))") > 0.85
    assert chromium.evaluate("document.querySelector('#front-picture').open") is False  # the plot to touch replaces it
    # The answer is in the first screen, whatever its size.
    assert chromium.evaluate("document.querySelector('.answer').getBoundingClientRect().bottom") < 900
    answer = chromium.evaluate("document.querySelector('.answer').textContent")
    assert "MCC of FP32" in chromium.evaluate("document.querySelector('.answer b').textContent")
    for question in (SMALL, GOOD, AGAINST, CERTAIN, "How to get it"):
        assert question in answer
    # Nothing is cut off, not even the table of all columns.
    chromium.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    boxes = "[...document.querySelectorAll('.wide, .maps, .canvas, pre, #explore-map, .commands code')]"
    assert chromium.evaluate(f"{boxes}.filter(box => box.scrollWidth > box.clientWidth + 1).length") == 0
    chromium.evaluate(
        "document.querySelector('#front-picture').open = document.querySelector('#explore-table').open = false"
    )
    if width == DESKTOP:
        picks = "document.querySelector('#picks + .wide').getBoundingClientRect().bottom"
        assert chromium.evaluate(picks) <= 900
    assert analysis.front
    chromium.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_printed_page_has_two_sides_and_no_interval_larger_than_its_value(
    page: tuple[Path, Analysis], chromium: Browser
) -> None:
    chromium.open(page[0], DESKTOP)
    printed = chromium.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]
    assert len(re.findall(rb"/Type ?/Page\b", base64.b64decode(printed))) == 2
    size = "parseFloat(getComputedStyle(document.querySelector('SELECTOR')).fontSize)"
    plots = ("#front-picture svg", "#unseen-plot + .wide svg", "#bits-plot + .maps")
    chromium.ask("Emulation.setEmulatedMedia", media="print")
    try:
        value, interval = (
            chromium.evaluate(size.replace("SELECTOR", f"#picks + .wide {of}")) for of in ("td", "td small")
        )
        heights = [
            chromium.evaluate(f"document.querySelector('{plot}').getBoundingClientRect().height") for plot in plots
        ]
        shows_summaries = chromium.evaluate("[...document.querySelectorAll('summary')].some(one => one.offsetHeight)")
    finally:
        chromium.ask("Emulation.setEmulatedMedia", media="")
    assert min(heights) > 100 and not shows_summaries
    assert interval < value


def test_the_front_sorts_by_every_column(page: tuple[Path, Analysis], chromium: Browser) -> None:
    path, analysis = page
    chromium.open(path, DESKTOP)
    rows = "[...document.querySelectorAll('#front ~ .wide table.sortable')][0]"
    column = f"[...{rows}.tBodies[0].rows].map(row => row.cells[AT].dataset.sort)"
    heads = chromium.evaluate(f"[...{rows}.tHead.rows[0].cells].map(head => head.textContent)")
    labels = f"[...{rows}.tBodies[0].rows].map(row => row.cells[0].textContent)"
    by_size = [trial.label for trial in analysis.front]
    assert chromium.evaluate(labels) == by_size
    for name in ("validation MCC (95% interval)", "validation damage", "smaller"):
        at = heads.index(name)
        click = f"{rows}.tHead.rows[0].cells[{at}].querySelector('button').click()"
        chromium.evaluate(click)
        values = [float(value) for value in chromium.evaluate(column.replace("AT", str(at)))]
        assert values == sorted(values)
        assert chromium.evaluate(f"{rows}.tHead.rows[0].cells[{at}].getAttribute('aria-sort')") == "ascending"
        chromium.evaluate(click)
        values = [float(value) for value in chromium.evaluate(column.replace("AT", str(at)))]
        assert values == sorted(values, reverse=True)
    assert chromium.evaluate(labels) == by_size[::-1]  # by size again, the other way round
    chromium.evaluate(f"{rows}.tHead.rows[0].cells[0].querySelector('button').click()")
    sampled = [int(label.split()[1]) for label in chromium.evaluate(labels) if label.startswith("trial ")]
    assert sampled == sorted(sampled)  # trial 9 before trial 10
    assert chromium.reported("Runtime.exceptionThrown") == []


def test_cards_sort_by_a_list(page: tuple[Path, Analysis], chromium: Browser) -> None:
    path, analysis = page
    chromium.open(path, PHONE)
    table = "document.querySelector('#front ~ .wide table.sortable')"
    labels = f"[...{table}.tBodies[0].rows].map(row => row.cells[0].textContent)"
    assert chromium.evaluate(labels) == [trial.label for trial in analysis.front]
    at = chromium.evaluate(
        f"[...{table}.tHead.rows[0].cells].findIndex(head => head.textContent === 'validation damage')"
    )
    label = f"{table}.parentElement.querySelector('label.by')"
    assert chromium.evaluate(f"{label}.offsetHeight") > 0
    chromium.evaluate(
        f"(list => {{ list.value = {at}; list.dispatchEvent(new Event('change')); }})({label}.querySelector('select'))"
    )
    by_damage = sorted(analysis.front, key=lambda trial: trial.scores.damage if trial.scores else 0)
    assert chromium.evaluate(labels) == [trial.label for trial in by_damage]
    chromium.evaluate(f"{label}.querySelector('button').click()")
    assert chromium.evaluate(labels) == [trial.label for trial in by_damage[::-1]]
    chromium.open(path, DESKTOP)
    assert chromium.evaluate(f"{label}.offsetHeight") == 0  # headings sort there


def test_the_page_works_without_its_script(page: tuple[Path, Analysis], chromium: Browser) -> None:
    path, analysis = page
    chromium.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(path, DESKTOP)
        root = chromium.ask("DOM.getDocument")["root"]["nodeId"]
        ids = chromium.ask("DOM.querySelectorAll", nodeId=root, selector="table.sortable tbody tr")["nodeIds"]
        assert len(ids) >= len(analysis.front)
        assert chromium.ask("DOM.querySelectorAll", nodeId=root, selector="th button")["nodeIds"] == []
        for selector in ("#front-picture[open] svg", "#explore[hidden]"):
            assert chromium.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    finally:
        chromium.ask("Emulation.setScriptExecutionDisabled", value=False)


def centre(chromium: Browser, selector: str) -> tuple[float, float]:
    """Scroll an element into the middle of the window and return where it then is."""
    element = f"document.querySelector({selector!r})"
    chromium.evaluate(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    box = f"(box => [box.x + box.width / 2, box.y + box.height / 2])({element}.getBoundingClientRect())"
    x, y = chromium.evaluate(box)
    return x, y


def mouse(chromium: Browser, selector: str, click: bool) -> None:
    x, y = centre(chromium, selector)
    chromium.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    for kind in ("mousePressed", "mouseReleased") if click else ():
        chromium.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def press(chromium: Browser, key: str) -> None:
    code = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "End": 35, "Escape": 27}[key]
    text = {"text": "\r"} if key == "Enter" else {}
    for kind in ("keyDown", "keyUp"):
        chromium.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)


def text_of(chromium: Browser, selector: str) -> str:
    return str(chromium.evaluate(f"document.querySelector({selector!r}).textContent"))


def test_a_point_shows_its_figures_and_a_click_its_bits_and_commands(
    page: tuple[Path, Analysis], chromium: Browser
) -> None:
    path, analysis = page
    chromium.open(path, DESKTOP)
    trial, neighbour = analysis.front[-3], analysis.front[-2]
    assert trial.scores is not None
    mouse(chromium, f"#mark-{trial.number}", click=False)
    shown = text_of(chromium, ".tip")
    for text in (
        *(trial.label, f"{trial.nominal_compression:.2f}x nominal", f"damage {trial.scores.damage:.3g}"),
        *(f"MCC {trial.scores.metric:.3f}", "proposed by"),
    ):
        assert text in shown
    mouse(chromium, f"#mark-{trial.number}", click=True)
    assert chromium.evaluate("location.hash") == f"#map={trial.number}"
    assert text_of(chromium, "#explore-map h3") == trial.label
    cells = "[...document.querySelectorAll('#explore-bits figure:nth-of-type(AT) td')].map(cell => cell.textContent)"
    assert "".join(chromium.evaluate(cells.replace("AT", "1"))) == "".join(map(str, trial.bit_map))
    captions = chromium.evaluate("[...document.querySelectorAll('#explore figcaption')].map(one => one.textContent)")
    assert captions == [
        f"this map{trial.label}",
        f"larger, on the front{analysis.front[-4].label}",
        f"smaller, on the front{neighbour.label}",
        "referencedocumented",
    ]
    differing = "document.querySelectorAll('#explore-bits figure:nth-of-type(3) .differs').length"
    assert chromium.evaluate(differing) == sum(
        one != other for one, other in zip(trial.bit_map, neighbour.bit_map, strict=True)
    )
    run = path.parent
    assert chromium.evaluate("[...document.querySelectorAll('.commands code')].map(one => one.textContent)") == [
        f"bitfront export --run {run} --trial {trial.number} --format {kind} --out {run}-trial-{trial.number}-{kind}"
        for kind in ("packed", "torchao", "onnx")
    ]
    mouse(chromium, "#explore-map thead .link", click=True)  # on to a neighbour
    assert text_of(chromium, "#explore-map h3") == analysis.front[-4].label
    chromium.ask("Page.reload")
    chromium.await_load()
    assert text_of(chromium, "#explore-map h3") == analysis.front[-4].label
    assert chromium.reported("Runtime.exceptionThrown") == []
    asked = [request["request"]["url"].partition("#")[0] for request in chromium.reported("Network.requestWillBeSent")]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}


def test_switches_change_the_plot_and_survive_a_reload(page: tuple[Path, Analysis], chromium: Browser) -> None:
    path, analysis = page
    chromium.open(path, DESKTOP)
    marks = "[...document.querySelectorAll('.canvas .mark.sampler')].map(one => Number(one.id.slice(5)))"
    assert set(chromium.evaluate(marks)) >= {one.number for one in analysis.front if one.origin == "sampler"}
    centre(chromium, "#explore-quality")
    for switch in ("quality-metric", "size-packed"):
        mouse(chromium, f"label:has(#explore-{switch})", click=True)
    packed = replace(analysis.outcome, quality="mcc", size_axis="packed")
    by_metric = {trial.number for trial in front(packed) if trial.origin == "sampler"}
    picks = {line.trial.number for line in analysis.headlines if line.trial and line.trial.origin == "sampler"}
    for _ in range(2):
        assert set(chromium.evaluate(marks)) == by_metric | picks
        assert chromium.evaluate("location.hash") == "#quality=metric&size=packed"
        assert "(packed)" in text_of(chromium, ".canvas svg")
        assert chromium.evaluate("document.querySelectorAll('.canvas .fp32').length") == 1
        chromium.ask("Page.reload")
        chromium.await_load()
    mouse(chromium, "label:has(#explore-view-unseen)", click=True)
    assert chromium.evaluate("document.querySelector('#explore-quality').disabled")
    assert "damage on the search's own sentences" in text_of(chromium, ".canvas svg")
    assert chromium.reported("Runtime.exceptionThrown") == []


def test_keys_and_the_table_reach_every_map(page: tuple[Path, Analysis], chromium: Browser) -> None:
    path, analysis = page
    chromium.open(path, DESKTOP)
    chromium.evaluate("document.querySelector('.mark[tabindex=\"0\"]').focus()")
    press(chromium, "End")
    last = analysis.front[-1]
    assert text_of(chromium, ".tip b") == last.label
    press(chromium, "Enter")
    assert text_of(chromium, "#explore-map h3") == last.label
    assert chromium.evaluate("document.activeElement.id") == f"mark-{last.number}"
    assert text_of(chromium, f"#explore-table tr[data-number='{last.number}'].chosen button") == last.label
    assert chromium.evaluate("document.querySelectorAll('#explore-table tbody tr').length") == analysis.complete
    chromium.evaluate("document.querySelector('#explore-table').open = true")
    beaten = next(one for one in analysis.outcome.trials if one.origin == "sampler" and one not in analysis.front)
    chromium.evaluate(f"document.querySelector('#explore-table tr[data-number=\"{beaten.number}\"] button').click()")
    assert text_of(chromium, "#explore-map h3") == beaten.label
    assert chromium.evaluate("document.querySelectorAll('#explore-table thead button').length") == 8  # it sorts, too


def test_a_finger_chooses_on_a_phone(page: tuple[Path, Analysis], chromium: Browser) -> None:
    path, analysis = page
    chromium.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        chromium.open(path, PHONE)
        trial = analysis.front[-1]
        x, y = centre(chromium, f"#mark-{trial.number}")
        near = [{"x": x - 6, "y": y + 8}]  # beside the mark, as fingers do
        chromium.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=near)
        chromium.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        assert text_of(chromium, "#explore-map h3") == trial.label
        assert text_of(chromium, ".tip b") == trial.label
        assert chromium.evaluate("document.documentElement.scrollWidth") <= PHONE
    finally:
        chromium.ask("Emulation.setTouchEmulationEnabled", enabled=False)


PLOTS = dict.fromkeys(("pareto", "progress"), "<svg></svg>")


def test_hostile_names_stay_text(chromium: Browser, tmp_path: Path) -> None:
    hostile = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"
    outcome = made_up_outcome(trials=3)
    trials = [replace(trial, label=f"{trial.label}{hostile}") for trial in outcome.trials]
    path = tmp_path / "report.html"
    path.write_text(report_page(analyse(with_trials(outcome, trials)), "runs/<b>x", PLOTS), encoding="utf-8")
    chromium.open(path, DESKTOP)
    assert chromium.evaluate("document.title") == "made-up: bits a layer"
    assert chromium.evaluate("document.images.length") == 0
    assert hostile in text_of(chromium, "#explore-map h3")
    assert "--run 'runs/<b>x' --trial" in text_of(chromium, ".commands code")
    assert chromium.reported("Runtime.exceptionThrown") == []


def test_the_page_of_a_running_search_refreshes_until_it_has_ended(chromium: Browser, tmp_path: Path) -> None:
    analysis = analyse(made_up_outcome(trials=3))
    running = Running("searching: 40/150, 9 min left", "bitfront status --run runs/x", int(time.time()))
    path = tmp_path / "report.html"
    path.write_text(report_page(analysis, "runs/x", PLOTS, (), running), encoding="utf-8")
    chromium.open(path, DESKTOP)
    assert "Still running: searching: 40/150, 9 min left." in text_of(chromium, "#running")
    for fragment in ("#refresh=off", ""):
        mouse(chromium, "#running button", click=True)
        assert chromium.evaluate("location.hash") == fragment
    mouse(chromium, "label:has(#explore-quality-metric)", click=True)
    place = chromium.evaluate("scrollY")
    assert place > 0
    path.write_text(report_page(analysis, "runs/x", PLOTS), encoding="utf-8")  # the search has ended meanwhile
    chromium.events.clear()
    chromium.evaluate("(now => { Date.now = () => now + 1e6; })(Date.now())")  # ten minutes and more later
    chromium.await_load()
    assert chromium.evaluate("document.querySelector('#running')") is None
    assert chromium.evaluate("location.hash") == "#quality=metric"
    assert chromium.evaluate("document.activeElement.id") == "explore-quality-metric"
    assert chromium.evaluate("scrollY") == place


def test_script_and_style_are_small(page: tuple[Path, Analysis]) -> None:
    html = page[0].read_text(encoding="utf-8")
    ours = html.split("<style>")[1].split("</style>")[0] + html.split("<script>")[1].split("</script>")[0]
    assert len(ours.encode()) < 60_000


def test_distilled_maps_stand_beside_the_maps_as_searched(
    page: tuple[Path, Analysis], chromium: Browser, tmp_path: Path
) -> None:
    _, analysis = page
    trial = next(one for one in analysis.outcome.trials if one.label == "uniform 2")
    distilled = [made_up_distilled(trial), made_up_distilled(trial, 0.5, "scales")]
    path = tmp_path / "report.html"
    path.write_text(report_page(analysis, "runs/x", PLOTS, distilled), encoding="utf-8")
    for width in (DESKTOP, PHONE):
        chromium.open(path, width)
        assert chromium.evaluate("document.querySelector('.answer').getBoundingClientRect().bottom") < 900
        assert "damage went from" in text_of(chromium, ".answer")
        assert chromium.evaluate("document.documentElement.scrollWidth") <= width
        boxes = "[...document.querySelectorAll('.wide, .canvas')]"
        assert chromium.evaluate(f"{boxes}.filter(box => box.scrollWidth > box.clientWidth + 1).length") == 0
    chromium.open(path, DESKTOP)
    assert "distilled: weights" in text_of(chromium, ".key")
    mouse(chromium, "#mark-distilled-0", click=True)
    shown, damage = text_of(chromium, ".tip"), distilled[0].damage_after
    assert f"damage {damage:.3g} ({distilled[0].damage_before:.3g} as searched)" in shown
    assert text_of(chromium, "#explore-map h3") == "uniform 2"  # the map, which distillation does not change
    figures = text_of(chromium, "#explore-map table")
    assert f"{damage:.3g}" in figures and f"{distilled[1].damage_after:.3g}" in figures
    places = "['0', '1'].map(at => document.querySelector(`#mark-distilled-${at}`).getBoundingClientRect())"
    (left, low), (other, high) = chromium.evaluate(f"{places}.map(box => [box.x + box.width / 2, box.y])")
    assert left == pytest.approx(other, abs=0.5) and low > high
    assert chromium.evaluate("document.querySelectorAll('#explore-table tbody tr').length") == analysis.complete + 2
    assert chromium.reported("Runtime.exceptionThrown") == []
