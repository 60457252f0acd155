"""The report of every head says what was scored, in the words of its head and metric."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from objectives.heads import TWO_CLASSES, Classes, Head, Numbers, YesNoLabels
from objectives.metrics import MetricName
from results.report.markdown import summary_markdown
from results.report.report import report_page
from results.report.summary import ending_lines
from results.statistics.analysis import analyse
from tests.results.synthetic import made_up_outcome

NO_PLOTS = dict.fromkeys(("pareto", "progress"), "<svg></svg>")


@pytest.mark.parametrize(
    ("head", "metric", "names", "counted", "definition"),
    [
        (TWO_CLASSES, "mcc", ("unacceptable", "acceptable"), "{} 'unacceptable', {} 'acceptable'", "MCC"),
        (TWO_CLASSES, "f1", ("other", "equal"), "{} 'other', {} 'equal'", "F1 of class 1 ('equal')"),
        (Classes(2), "accuracy", ("yes", "no", ""), "{} 'yes', {} 'no', {} of class 2", "accuracy"),
        (YesNoLabels(2), "f1", ("a", ""), "{} with 'a', {} with label 1", "F1, the mean over 2 yes/no labels (macro)"),
        (Numbers(1), "pearson", (), "", "Pearson r"),
    ],
)  # fmt: skip
def test_a_report_is_in_the_words_of_its_head_and_metric(
    head: Head, metric: MetricName, names: tuple[str, ...], counted: str, definition: str
) -> None:
    outcome = made_up_outcome(trials=4, sentences=60, head=head, metric=metric)
    paired = metric != "mcc"
    analysis = analyse(replace(outcome, label_names=names, paired=paired))
    page = report_page(analysis, "runs/x", dict(NO_PLOTS)).replace("&#39;", "'")
    markdown, terminal = summary_markdown(analysis, ()), "\n".join(ending_lines(analysis, "runs/x", ""))
    facts = dict(re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td>', page))
    size = "60 pairs of texts" if paired else "60"
    counts = np.bincount(outcome.labels) if isinstance(head, Classes) else outcome.labels.sum(axis=0, dtype=int)
    assert facts["sentences"] == (f"{size}: {counted}".format(*counts) if counted else size)
    assert facts["metric"] == definition
    name = definition.split(",")[0].split(" of ")[0]
    assert (f"The metric is {definition}." in page) == (definition != name)
    assert f"over 60 sentences{', each a pair of texts' if paired else ''}. The {name} of one map" in markdown
    for text in (page, markdown, terminal):
        assert f"0.01 {name}" in text
        assert metric == "mcc" or "MCC" not in text
        assert "acceptable" in names or "acceptable" not in text
        assert "log-odds" not in text
    assert ("squared change" in page) == (head.kind == "numbers")
