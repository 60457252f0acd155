"""A run's answer as Markdown, for pasting into a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from results.columns import escaped, to_markdown
from results.report.distilled import DistilledMap
from results.report.summary import caution_lines, front_lines, no_reference_lines
from results.report.tables import brief_columns, compared_pick_rows, pick_columns
from results.report.verdict import verdict_of
from results.statistics.analysis import Analysis


def summary_markdown(analysis: Analysis, commands: Sequence[str], distilled: Sequence[DistilledMap] = ()) -> str:
    """Return a heading, the answer as sentences, the table of picks, and the commands that export them."""
    outcome, verdict = analysis.outcome, verdict_of(analysis, distilled)
    columns = brief_columns(analysis, pick_columns(analysis))
    lines = [f"## Bits a layer: {escaped(outcome.name)}", ""]
    lines += [f"**{escaped(verdict.claim)}.**", ""]
    lines += [f"- **{question}:** {escaped(answer)}." for question, answer in verdict.points]
    lines += ["", *to_markdown(columns, compared_pick_rows(analysis)), ""]
    lines += [
        escaped(line) for line in (*front_lines(analysis), *no_reference_lines(analysis), *caution_lines(analysis))
    ]
    if commands:
        lines += ["", "```", *([outcome.command] if outcome.command else []), *commands, "```"]
    return "\n".join(lines) + "\n"
