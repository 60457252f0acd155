"""The answer of a run as Markdown, for pasting into a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from results import words
from results.findings import Findings
from results.outcome import Trial
from results.summary import asked_words, caution_lines, front_lines, lead_lines


def summary_markdown(found: Findings, commands: Sequence[str]) -> str:
    """Return a heading, the answer in words, the picks as a table, and the commands that export them."""
    outcome = found.outcome
    lines = [f"## Bits a layer: {_escaped(outcome.name)}", ""]
    for beginning, rest in lead_lines(found):
        lines += [f"- **{_escaped(beginning)}** {_escaped(rest)}"]
    lines += ["", *_table(found), ""]
    lines += [_escaped(line) for line in (*front_lines(found), *caution_lines(found))]
    if commands:
        lines += ["", "```", *([outcome.command] if outcome.command else []), *commands, "```"]
    return "\n".join(lines) + "\n"


def _table(found: Findings) -> list[str]:
    outcome = found.outcome
    heads: tuple[str, ...] = (
        "pick",
        "map",
        "nominal",
        "packed",
        "MCC (95%)",
        "corrected MCC",
        "MCC against FP32",
        "no worse",
        "damage",
    )
    heads += ("damage, unseen",) if found.unseen else ()
    heads += ("MCC against FP32, confirmed",) if found.confirmed else ()
    fp32 = words.mcc_with(outcome.fp32.mcc, found.fp32_mcc)
    size = words.megabytes(outcome.footprint.fp32_packed_bytes)
    rows: list[Sequence[str]] = [("FP32", "", "1x", f"1x, {size}", fp32, "", "", "", "0")]
    if found.reference is not None:
        rows.append(("documented", *_cells(found, found.reference, ""), *_confirmed(found, found.reference)))
    for headline in found.headlines:
        if headline.trial is not None:
            known = headline.corrected
            corrected = "" if known is None else words.mcc_with(known.mcc, known.mcc_interval)
            cells = (*_cells(found, headline.trial, corrected), *_confirmed(found, headline.trial))
            rows.append((asked_words(outcome, headline.request), *cells))
    return [
        _row(heads),
        _row(["---"] * len(heads)),
        *(_row([_escaped(cell) for cell in (*row, *[""] * (len(heads) - len(row)))]) for row in rows),
    ]


def _cells(found: Findings, trial: Trial, corrected: str) -> tuple[str, ...]:
    size = words.megabytes(found.outcome.footprint.packed_bytes(trial.bits))
    sizes = (trial.label, words.times(trial.nominal_compression), f"{words.times(trial.packed_compression)}, {size}")
    if trial.scores is None:
        return (*sizes, "failed", "", "", "", "", *([""] if found.unseen else []))
    against = found.against_fp32[trial.number]
    return (
        *sizes,
        words.mcc_with(trial.scores.mcc, found.intervals[trial.number].mcc),
        corrected,
        words.difference_with(against),
        words.confidence(against.no_worse),
        words.nats(trial.scores.damage),
        *_unseen(found, trial),
    )


def _unseen(found: Findings, trial: Trial) -> tuple[str, ...]:
    if not found.unseen:
        return ()
    known = found.unseen.get(trial.number)
    return ("" if known is None else words.damage_with(known.damage, known.interval),)


def _confirmed(found: Findings, trial: Trial) -> tuple[str, ...]:
    known = found.confirmed.get(trial.number)
    return () if known is None else (words.difference_with(known.against_fp32),)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
