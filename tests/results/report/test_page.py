"""The report in a real browser: it sorts, says nothing to the console, and asks for nothing outside its file."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from objectives.layers import WIDTHS
from results.plots.heat_maps import write_sensitivity_plot
from results.report.report import write_report
from results.report.verdict import AGAINST, CERTAIN, GOOD, SMALL
from results.statistics.analysis import Analysis, analyse
from tests.results.browser import Browser, browser, needs_browser
from tests.results.synthetic import made_up_outcome, with_unseen

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
    assert chromium.evaluate("document.querySelectorAll('svg').length") == 5
    # The answer is in the first screen, whatever its size.
    assert chromium.evaluate("document.querySelector('.answer').getBoundingClientRect().bottom") < 900
    answer = chromium.evaluate("document.querySelector('.answer').textContent")
    assert "MCC of FP32" in chromium.evaluate("document.querySelector('.answer b').textContent")
    for question in (SMALL, GOOD, AGAINST, CERTAIN, "How to get it"):
        assert question in answer
    # No table is cut off, not even that of all columns; only plots scroll.
    chromium.evaluate("document.querySelector('details').open = true")
    cut = "[...document.querySelectorAll('.wide:has(> table)')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert chromium.evaluate(cut) == 0
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
    chromium.ask("Emulation.setEmulatedMedia", media="print")
    size = "parseFloat(getComputedStyle(document.querySelector('SELECTOR')).fontSize)"
    value, interval = (chromium.evaluate(size.replace("SELECTOR", f"#picks + .wide {of}")) for of in ("td", "td small"))
    chromium.ask("Emulation.setEmulatedMedia", media="")
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


def test_the_page_works_without_its_script(page: tuple[Path, Analysis], chromium: Browser) -> None:
    path, analysis = page
    chromium.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(path, DESKTOP)
        root = chromium.ask("DOM.getDocument")["root"]["nodeId"]
        ids = chromium.ask("DOM.querySelectorAll", nodeId=root, selector="table.sortable tbody tr")["nodeIds"]
        assert len(ids) >= len(analysis.front)
        assert chromium.ask("DOM.querySelectorAll", nodeId=root, selector="th button")["nodeIds"] == []
    finally:
        chromium.ask("Emulation.setScriptExecutionDisabled", value=False)
