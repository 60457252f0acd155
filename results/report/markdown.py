"""A run's answer as Markdown, for pasting into a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from results.columns import escaped, to_markdown
from results.report.leads import lead_lines
from results.report.summary import caution_lines, front_lines, no_reference_lines
from results.report.tables import compared_pick_rows, pick_columns
from results.statistics.analysis import Analysis


def summary_markdown(analysis: Analysis, commands: Sequence[str]) -> str:
    """Return a heading, the answer as sentences, the table of picks, and the commands that export them."""
    outcome = analysis.outcome
    lines = [f"## Bits a layer: {escaped(outcome.name)}", ""]
    lines += [f"- **{escaped(claim)}** {escaped(reason)}" for claim, reason in lead_lines(analysis)]
    lines += ["", *to_markdown(pick_columns(analysis), compared_pick_rows(analysis)), ""]
    lines += [
        escaped(line) for line in (*front_lines(analysis), *no_reference_lines(analysis), *caution_lines(analysis))
    ]
    if commands:
        lines += ["", "```", *([outcome.command] if outcome.command else []), *commands, "```"]
    return "\n".join(lines) + "\n"
