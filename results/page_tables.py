"""The tables of the report as values: every cell with its words and with what it sorts by."""

from __future__ import annotations

from dataclasses import dataclass

from results import words
from results.bit_map_files import bit_map_path
from results.bootstrap import Interval
from results.findings import Findings
from results.outcome import Trial
from results.pareto import beaten_by, least_damage
from results.statistics import Comparison, Estimate
from results.summary import asked_words
from results.unseen import UnseenDamage


@dataclass(frozen=True)
class Cell:
    """A cell: its words, what it sorts by (its words where there is no number), and where it links to.

    ``detail`` stands small below the words: an interval, or a size.
    """

    text: str
    number: float | None = None
    detail: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report; the first cell of each row names it."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


_UNKNOWN = Cell("")


def picks_page_table(found: Findings) -> Table:
    """Return FP32, the documented map and the picks, one under the other, and what is confirmed of them."""
    outcome = found.outcome
    full = words.megabytes(outcome.footprint.fp32_packed_bytes)
    fp32_mcc = Cell(f"{outcome.fp32.mcc:.3f}", detail=words.interval(found.fp32_mcc))
    sizes = (Cell("the model as it is"), Cell("1x"), Cell("1x", detail=full))
    scores = (fp32_mcc, _UNKNOWN, _UNKNOWN, Cell("0"), *([_UNKNOWN] if found.unseen else []))
    nothing = (*_corrected_cells(found, None), *_corrected_unseen(found, None), _UNKNOWN)
    rows = [(Cell("FP32"), *sizes, *scores, *_confirmed(found, None), *nothing)]
    if (documented := found.reference) is not None:
        cells = (*_map_cells(found, documented), *_score_cells(found, documented), *_confirmed(found, documented))
        rows.append((Cell("documented"), *cells, *nothing))
    rows += [
        (
            Cell(asked_words(outcome, headline.request)),
            *_map_cells(found, headline.trial),
            *_score_cells(found, headline.trial),
            *_confirmed(found, headline.trial),
            *_corrected_cells(found, headline.corrected),
            *_corrected_unseen(found, headline.unseen),
            difference_cell(headline.against_reference),
        )
        for headline in found.headlines
        if headline.trial is not None
    ]
    sure = _CONFIRMED_HEADS if found.confirmed else ()
    corrected = (*_corrected_heads(found), *(("damage, unseen, corrected",) if found.unseen else ()))
    heads = ("pick", *_MAP_HEADS, *_score_heads(found), *sure, *corrected, "MCC against documented")
    return Table(heads, tuple(rows))


def front_page_table(found: Findings) -> Table:
    """Return the front, from the largest map to the smallest."""
    rows = tuple(
        (
            *_map_cells(found, trial),
            *_score_cells(found, trial),
            Cell(words.proposed_by(trial)),
        )
        for trial in found.front
    )
    return Table((*_MAP_HEADS, *_score_heads(found), "proposed by"), rows)


def rivals_page_table(found: Findings) -> Table:
    """Return the reference and the contenders, each with what became of it."""
    trials = [*([found.reference] if found.reference is not None else []), *found.contenders]
    rows = tuple(
        (*_map_cells(found, trial), *_score_cells(found, trial), Cell(_remark(found, trial))) for trial in trials
    )
    return Table((*_MAP_HEADS, *_score_heads(found), "outcome"), rows)


_MAP_HEADS = ("map", "nominal", "packed")
_CONFIRMED_HEADS = ("MCC, confirmed", "against FP32, confirmed", "damage, confirmed")


def _score_heads(found: Findings) -> tuple[str, ...]:
    margin = words.loss(found.outcome.margin)
    unseen = ("damage, unseen",) if found.unseen else ()
    return ("MCC", "MCC against FP32", f"no worse by over {margin}", "damage", *unseen)


def _map_cells(found: Findings, trial: Trial) -> tuple[Cell, ...]:
    outcome = found.outcome
    size_bytes = outcome.footprint.packed_bytes(trial.bits)
    link = bit_map_path(outcome, trial, "txt") if trial.number in found.front_numbers else ""
    return (
        Cell(trial.label, trial.number, link=link),
        Cell(words.times(trial.nominal_compression), trial.nominal_compression),
        Cell(words.times(trial.packed_compression), trial.packed_compression, words.megabytes(size_bytes)),
    )


def _score_cells(found: Findings, trial: Trial) -> tuple[Cell, ...]:
    if trial.scores is None:
        return (Cell("failed"), *[_UNKNOWN] * (4 if found.unseen else 3))
    intervals, against = found.intervals[trial.number], found.against_fp32[trial.number]
    return (
        mcc_cell(trial.scores.mcc, intervals.mcc),
        difference_cell(against),
        Cell(words.confidence(against.no_worse), against.no_worse),
        damage_cell(trial.scores.damage, intervals.damage),
        *([unseen_cell(found, trial)] if found.unseen else []),
    )


def unseen_cell(found: Findings, trial: Trial) -> Cell:
    """Return a map's damage on unseen sentences, empty where it was not scored there."""
    known = found.unseen.get(trial.number)
    return _UNKNOWN if known is None else damage_cell(known.damage, known.interval)


def _corrected_heads(found: Findings) -> tuple[str, ...]:
    """Return the heads of corrected figures: where damage is known on unseen sentences, that is the better one."""
    return ("MCC, corrected",) if found.unseen else ("MCC, corrected", "damage, corrected")


def _corrected_cells(found: Findings, known: Estimate | None) -> tuple[Cell, ...]:
    heads = _corrected_heads(found)
    if known is None:
        return (_UNKNOWN,) * len(heads)
    cells = (mcc_cell(known.mcc, known.mcc_interval), damage_cell(known.damage, known.damage_interval))
    return cells[: len(heads)]


def _corrected_unseen(found: Findings, known: UnseenDamage | None) -> tuple[Cell, ...]:
    """Return what choosing as a pick does gives on unseen sentences; no cell at all where nothing is known of them."""
    if not found.unseen:
        return ()
    return (_UNKNOWN if known is None else damage_cell(known.damage, known.interval),)


def _confirmed(found: Findings, trial: Trial | None) -> tuple[Cell, ...]:
    """Return what is confirmed of a map; no cells at all where nothing is confirmed in this run."""
    if not found.confirmed:
        return ()
    known = None if trial is None else found.confirmed.get(trial.number)
    if known is None:
        return (_UNKNOWN,) * 3
    return (
        mcc_cell(known.mcc, known.mcc_interval),
        difference_cell(known.against_fp32),
        damage_cell(known.damage, known.damage_interval),
    )


def mcc_cell(mcc: float, interval: Interval) -> Cell:
    """Return an MCC over its interval."""
    return Cell(f"{mcc:.3f}", mcc, words.interval(interval))


def damage_cell(damage: float, interval: Interval) -> Cell:
    """Return a damage, in nats a sentence, over its interval."""
    return Cell(words.nats(damage), damage, f"{words.nats(interval.low)} to {words.nats(interval.high)}")


def difference_cell(comparison: Comparison | None) -> Cell:
    """Return a difference in MCC over its interval; an empty cell where there is none."""
    if comparison is None:
        return _UNKNOWN
    low, high = comparison.interval.low, comparison.interval.high
    return Cell(f"{comparison.difference:+.3f}", comparison.difference, f"{low:+.3f} to {high:+.3f}")


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
